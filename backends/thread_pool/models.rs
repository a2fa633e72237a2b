//! What loom checks of the queue: no wake-up is lost, and every job is taken, or handed back, exactly once.
//!
//! Run with `RUSTFLAGS="--cfg polyaio_loom" cargo test --release --lib loom`. A lost wake-up shows as loom's deadlock
//! report: all threads are parked.

use std::sync::Arc;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread::{self, JoinHandle};

use super::queue::{Closed, Queue, Seat};

/// A job that counts how often it was run.
struct Job(Arc<AtomicUsize>);

fn model(f: impl Fn() + Sync + Send + 'static) {
    // So many find what is known to go wrong here; more takes hours.
    model_switching(3, f);
}

/// At most `switches` at points where none is forced: fewer where more workers, jobs and settings come together.
fn model_switching(switches: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(switches));
    builder.check(f);
}

/// A pool of `workers` loops that are hired from the start.
struct Pool {
    queue: Arc<Queue<Job>>,
    loops: Vec<JoinHandle<usize>>,
}

impl Pool {
    fn new(bound: usize, workers: usize) -> Self {
        let (queue, seats) = Queue::new(bound, workers);
        let queue = Arc::new(queue);
        let mut pool = Self { queue, loops: Vec::new() };
        for seat in seats {
            pool.queue.hire_always();
            pool.start(seat);
        }
        pool
    }

    fn start(&mut self, seat: Seat<Job>) {
        let queue = self.queue.clone();
        self.loops.push(thread::spawn(move || serve_all(&queue, seat)));
    }

    /// Closes and waits; returns how many jobs were run.
    fn finish(self) -> usize {
        self.queue.close();
        let served = self.loops.into_iter().map(|l| l.join().expect("the loop ends")).sum();
        assert!(self.queue.drain().is_none(), "workers leave an empty queue behind");
        assert_eq!(self.queue.hired(), 0);
        served
    }

    /// As [`finish`](Self::finish), while a submitter is at work.
    fn finish_with(self, submitter: JoinHandle<usize>) -> usize {
        self.queue.close();
        let submitted = submitter.join().expect("the submitter ends");
        let served = self.finish();
        assert_eq!(served, submitted, "what was taken is served");
        served
    }
}

fn serve_all(queue: &Queue<Job>, mut seat: Seat<Job>) -> usize {
    let mut served = 0;
    loop {
        let Some(job) = queue.next(&mut seat) else {
            if seat.is_surplus() && !queue.leave(&mut seat) {
                continue;
            }
            return served;
        };
        job.0.fetch_add(1, Ordering::Relaxed);
        queue.release();
        served += 1;
    }
}

/// Takes one job, unless there are too many workers; returns how many were run.
fn take_one_or_leave(queue: &Queue<Job>, seat: &mut Seat<Job>) -> usize {
    loop {
        if let Some(job) = queue.next(seat) {
            job.0.fetch_add(1, Ordering::Relaxed);
            return 1;
        }
        if seat.is_surplus() && queue.leave(seat) {
            return 0;
        }
    }
}

/// Takes one job, runs it, and never comes back for another.
fn take_one(queue: &Queue<Job>, seat: &mut Seat<Job>) {
    let job = queue.next(seat).expect("the queue is open");
    job.0.fetch_add(1, Ordering::Relaxed);
}

/// Submits as the backend does; returns how many were taken.
fn submit(queue: &Queue<Job>, jobs: &[Arc<AtomicUsize>]) -> Result<usize, Closed> {
    let room = queue.reserve(jobs.len())?;
    for job in &jobs[..room] {
        queue.push(Job(job.clone()));
    }
    queue.announce();
    Ok(room)
}

fn jobs(count: usize) -> Vec<Arc<AtomicUsize>> {
    (0..count).map(|_| Arc::new(AtomicUsize::new(0))).collect()
}

fn assert_each_ran_once(jobs: &[Arc<AtomicUsize>]) {
    assert!(jobs.iter().all(|job| job.load(Ordering::Relaxed) == 1), "every job runs once");
}

/// A worker on its way to sleep against a submitter. Nobody closes before the job has run: a lost wake-up stays lost.
#[test]
fn loom_submit_against_park() {
    model(|| {
        let (queue, mut seats) = Queue::new(4, 1);
        let queue = Arc::new(queue);
        queue.hire_always();
        let mut seat = seats.pop().expect("one seat");
        let worker = {
            let queue = queue.clone();
            thread::spawn(move || take_one(&queue, &mut seat))
        };
        let jobs = jobs(1);
        assert_eq!(submit(&queue, &jobs), Ok(1));
        worker.join().expect("the worker got the job");
        assert_each_ran_once(&jobs);
    });
}

/// Two submissions against one worker that goes to sleep between them, or does not.
#[test]
fn loom_submit_twice_against_park() {
    model(|| {
        let (queue, mut seats) = Queue::new(4, 1);
        let queue = Arc::new(queue);
        queue.hire_always();
        let mut seat = seats.pop().expect("one seat");
        let worker = {
            let queue = queue.clone();
            thread::spawn(move || (0..2).for_each(|_| take_one(&queue, &mut seat)))
        };
        let jobs = jobs(2);
        assert_eq!(submit(&queue, &jobs[..1]), Ok(1));
        assert_eq!(submit(&queue, &jobs[1..]), Ok(1));
        worker.join().expect("the worker got both jobs");
        assert_each_ran_once(&jobs);
    });
}

/// Two workers that take one job each and then are stuck: the one that was woken must wake the other for the second job.
#[test]
fn loom_a_batch_reaches_two_workers() {
    model(|| {
        let (queue, seats) = Queue::new(4, 2);
        let queue = Arc::new(queue);
        let workers: Vec<_> = seats
            .into_iter()
            .map(|mut seat| {
                queue.hire_always();
                let queue = queue.clone();
                thread::spawn(move || {
                    take_one(&queue, &mut seat);
                    // Its deque lives on: it is stuck, not gone.
                    seat
                })
            })
            .collect();
        let jobs = jobs(2);
        assert_eq!(submit(&queue, &jobs), Ok(2));
        for worker in workers {
            drop(worker.join().expect("each worker got a job"));
        }
        assert_each_ran_once(&jobs);
    });
}

/// A worker takes a batch into its own deque and is stuck in the first job: a thief must be woken for the others.
#[test]
fn loom_what_waits_behind_a_stuck_worker_is_stolen() {
    model(|| {
        let (queue, mut seats) = Queue::new(4, 2);
        let queue = Arc::new(queue);
        let jobs = jobs(3);
        queue.hire_always();
        queue.hire_always();
        let mut thief = seats.pop().expect("two seats");
        let mut stuck = seats.pop().expect("two seats");
        let thief = {
            let queue = queue.clone();
            thread::spawn(move || (0..2).for_each(|_| take_one(&queue, &mut thief)))
        };
        assert_eq!(submit(&queue, &jobs), Ok(3));
        take_one(&queue, &mut stuck);
        thief.join().expect("the thief got the others");
        assert_each_ran_once(&jobs);
    });
}

/// The queue closes while a submitter is at work: what was taken runs, what was refused does not, workers leave.
#[test]
fn loom_shutdown_against_submit() {
    model(|| {
        let pool = Pool::new(4, 1);
        let jobs = jobs(2);
        let submitter = {
            let (queue, jobs) = (pool.queue.clone(), jobs.clone());
            thread::spawn(move || submit(&queue, &jobs).unwrap_or(0))
        };
        let served = pool.finish_with(submitter);
        let ran: usize = jobs.iter().map(|job| job.load(Ordering::Relaxed)).sum();
        assert_eq!(served, ran);
    });
}

/// Two workers, one job and a close: one runs it, both leave.
#[test]
fn loom_two_workers_finish_and_leave() {
    model_switching(2, || {
        let pool = Pool::new(4, 2);
        let jobs = jobs(1);
        assert_eq!(submit(&pool.queue, &jobs), Ok(1));
        assert_eq!(pool.finish(), 1);
        assert_each_ran_once(&jobs);
    });
}

/// Two busy workers take what is queued, a few jobs at once, while a third goes to sleep: it must see the job that moves
/// into the deque of a worker that is stuck then.
#[test]
fn loom_a_job_that_moves_is_seen() {
    model(|| {
        let (queue, seats) = Queue::new(8, 3);
        let queue = Arc::new(queue);
        let [mut first, mut second, third] = <[_; 3]>::try_from(seats).ok().expect("three seats");
        (0..3).for_each(|_| queue.hire_always());
        let jobs = jobs(5);
        assert_eq!(submit(&queue, &jobs[..2]), Ok(2));
        take_one(&queue, &mut first);
        take_one(&queue, &mut second);
        let others = [second, third].map(|mut seat| {
            let queue = queue.clone();
            thread::spawn(move || take_one(&queue, &mut seat))
        });
        assert_eq!(submit(&queue, &jobs[2..]), Ok(3));
        take_one(&queue, &mut first);
        others.into_iter().for_each(|other| other.join().expect("each gets one"));
        assert_each_ran_once(&jobs);
    });
}

/// A hire that fails must not swallow the wake-up that a submitter left to it.
#[test]
fn loom_a_failed_hire_passes_the_wake_up_on() {
    model(|| {
        let (queue, seats) = Queue::new(4, 3);
        let queue = Arc::new(queue);
        let [mut first, mut second, _] = <[_; 3]>::try_from(seats).ok().expect("three seats");
        (0..2).for_each(|_| queue.hire_always());
        let jobs = jobs(3);
        assert_eq!(submit(&queue, &jobs[..2]), Ok(2));
        take_one(&queue, &mut first);
        take_one(&queue, &mut second);
        let other = {
            let queue = queue.clone();
            thread::spawn(move || take_one(&queue, &mut second))
        };
        let grower = {
            let queue = queue.clone();
            thread::spawn(move || {
                if queue.hire() {
                    queue.dismiss();
                }
            })
        };
        assert_eq!(submit(&queue, &jobs[2..]), Ok(1));
        grower.join().expect("no panic");
        other.join().expect("it gets the third job");
        assert_each_ran_once(&jobs);
    });
}

/// One of two workers becomes one too many while a job is submitted: the other gets it, though the one that leaves may have been
/// the one that was woken. Nobody closes before the job has run: a lost wake-up stays lost.
#[test]
fn loom_who_leaves_passes_the_wake_up_on() {
    for first in [true, false] {
        model_switching(2, move || {
            let (queue, seats) = Queue::new(4, 2);
            let queue = Arc::new(queue);
            let start = |mut seat| {
                queue.hire_always();
                let queue = queue.clone();
                thread::spawn(move || {
                    let served = take_one_or_leave(&queue, &mut seat);
                    // Its deque lives on: it is stuck, or rests.
                    (served, seat)
                })
            };
            let workers: Vec<_> = seats.into_iter().map(start).collect();
            let jobs = jobs(1);
            if first {
                queue.set_most(1);
            }
            assert_eq!(submit(&queue, &jobs), Ok(1));
            queue.set_most(1);
            let ends: Vec<_> = workers.into_iter().map(|worker| worker.join().expect("no panic")).collect();
            assert_eq!(ends.iter().map(|(served, _)| served).sum::<usize>(), 1, "one serves, one leaves");
            assert_each_ran_once(&jobs);
        });
    }
}

/// A worker that leaves hands back the jobs of its deque, and the end comes as ever.
#[test]
fn loom_who_leaves_takes_no_job_along() {
    model_switching(1, || {
        let pool = Pool::new(4, 2);
        let jobs = jobs(2);
        assert_eq!(submit(&pool.queue, &jobs), Ok(2));
        pool.queue.set_most(1);
        assert_eq!(pool.finish(), 2);
        assert_each_ran_once(&jobs);
    });
}

/// The bound holds against two submitters, and what is released makes room.
#[test]
fn loom_the_bound_is_exact() {
    model(|| {
        let (queue, _seats) = Queue::<Job>::new(1, 1);
        let queue = Arc::new(queue);
        let other = {
            let queue = queue.clone();
            thread::spawn(move || queue.reserve(2))
        };
        let mine = queue.reserve(2).expect("the queue is open");
        let theirs = other.join().expect("no panic").expect("the queue is open");
        assert_eq!(mine + theirs, 1);
        queue.release();
        assert_eq!(queue.reserve(2), Ok(1));
    });
}
