//! Explicit batches: mixed operations on any files of an engine, submitted in one go.
//!
//! # Examples
//! A checkpoint: two pages, then a sync of both, in one submission.
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
//! # let path = dir.path().join("data");
//! # std::fs::write(&path, "hello, world")?;
//! # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
//! use polyaio::batch::{All, Batch};
//! let mut checkpoint: Batch<std::io::Result<()>> = engine.batch();
//! checkpoint.push(file.write_all_at(vec![1; 512], 0), |written| written.0);
//! checkpoint.push(file.write_all_at(vec![2; 512], 512), |written| written.0);
//! checkpoint.push(file.sync_data(), |synced| synced);
//! let all: All<_> = checkpoint.into_future(); // what `checkpoint.await` awaits
//! assert!(all.wait().iter().all(|result| result.is_ok()));
//! # Ok(()) }
//! ```

use std::collections::VecDeque;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::dispatch::{Core, REAP_MAX};
use crate::driver;
use crate::future::{self, Op};
use crate::op::Operation;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, lock};

/// Operations that are submitted together; made by [`Engine::batch`](crate::Engine::batch).
///
/// Each operation comes with a function that makes an `R` of its output, so that reads, writes and syncs of several files can
/// be in one batch. [`next`](Self::next) yields the results as the operations complete, [`all`](Self::all) all of them in
/// the order in which they were pushed. Further operations may be pushed at any time.
///
/// # Cancel safety
/// A dropped [`next`](Self::next) or [`all`](Self::all) loses nothing: what has completed is kept for the next call. Dropping
/// the batch drops its operations, see [`Op`].
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("data");
/// use polyaio::{BufResult, Engine, OpenOptions};
/// let engine = Engine::new()?;
/// let file = OpenOptions::new().read(true).write(true).create(true).open(&engine, &path)?;
/// let mut batch = engine.batch();
/// for block in 0..4u64 {
///     batch.push(file.write_all_at(vec![block as u8; 512], block * 512), |BufResult(done, _)| done);
/// }
/// batch.push(file.sync_data(), |synced| synced);
/// for result in engine.block_on(batch.all()) {
///     result?;
/// }
/// # Ok(()) }
/// ```
#[must_use = "nothing is submitted before the results are asked for"]
pub struct Batch<R> {
    core: Arc<Core>,
    /// In the order of the pushes; empty places are over. Those at the front are gone.
    entries: VecDeque<Entry<R>>,
    /// The number of the first of them.
    first: usize,
    shared: Arc<Shared>,
    /// Operations that are not over.
    running: usize,
    /// Results that nobody has asked for, by the number of their operation.
    finished: VecDeque<(usize, R)>,
    /// From here on the operations have not been polled.
    fresh: usize,
}

enum Entry<R> {
    Running { operation: Box<dyn Pollable<R>>, place: Arc<Place>, waker: Waker },
    Over,
}

/// All results of a [`Batch`] that is awaited as a whole, in the order of the pushes.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// let words = file.read_many_at([(vec![0; 5], 0), (vec![0; 5], 7)]); // an `All`
/// let words = engine.block_on(async { words.await });
/// assert_eq!(words.iter().map(|word| &word.1[..]).collect::<Vec<_>>(), [b"hello", b"world"]);
/// # Ok(()) }
/// ```
#[must_use = "nothing is submitted before it is awaited"]
pub struct All<R>(Batch<R>);

// Nothing in a batch is pinned.
impl<R> Unpin for All<R> {}

impl<R> All<R> {
    /// As [`Op::wait`]: for code without an executor.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let mut batch = engine.batch();
    /// for (word, place) in [("HELLO", 0), ("WORLD", 7)] {
    ///     batch.push(file.write_all_at(word, place), |written| written.0);
    /// }
    /// for written in batch.into_future().wait() { written?; } // without an executor
    /// assert_eq!(std::fs::read(&path)?, b"HELLO, WORLD");
    /// # Ok(()) }
    /// ```
    pub fn wait(self) -> Vec<R> {
        let core = self.0.core.clone();
        driver::block_on(&core, self)
    }
}

impl<R> Future for All<R> {
    type Output = Vec<R>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Vec<R>> {
        self.0.poll_all(context)
    }
}

impl<R> IntoFuture for Batch<R> {
    type Output = Vec<R>;
    type IntoFuture = All<R>;

    fn into_future(self) -> All<R> {
        All(self)
    }
}

/// An operation with what makes a result of its output.
trait Pollable<R>: Send {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<R>;
}

struct Mapped<T: Operation, F> {
    operation: Op<T>,
    map: Option<F>,
}

impl<T: Operation, R, F: FnOnce(T::Output) -> R + Send> Pollable<R> for Mapped<T, F> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<R> {
        Pin::new(&mut self.operation).poll(context).map(|output| match self.map.take() {
            Some(map) => map(output),
            None => unreachable!("an operation ends once"),
        })
    }
}

/// What the wakers of the operations and the batch have in common.
struct Shared {
    woken: Mutex<Woken>,
}

#[derive(Default)]
struct Woken {
    numbers: Vec<usize>,
    sleeper: Option<Waker>,
}

/// The waker of one operation.
struct Place {
    shared: Arc<Shared>,
    number: usize,
    /// It is in the list of the woken ones.
    listed: AtomicBool,
}

impl Wake for Place {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.listed.swap(true, Ordering::SeqCst) {
            return;
        }
        let sleeper = {
            let mut woken = lock(&self.shared.woken);
            woken.numbers.push(self.number);
            woken.sleeper.take()
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }
}

impl<R> Batch<R> {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        let shared = Arc::new(Shared { woken: Mutex::new(Woken::default()) });
        Self { core, entries: VecDeque::new(), first: 0, shared, running: 0, finished: VecDeque::new(), fresh: 0 }
    }

    /// Adds an operation, and what makes a result of its output. Returns its number, counted from 0. Nothing is submitted
    /// yet.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let mut batch = engine.batch();
    /// // Different operations, one kind of result.
    /// batch.push(file.len(), |len| len.map(|len| len as usize));
    /// batch.push(file.read_at(vec![0; 5], 7), |read| read.0);
    /// let results: Result<Vec<_>, _> = engine.block_on(batch.all()).into_iter().collect();
    /// assert_eq!(results?, [12, 5]);
    /// # Ok(()) }
    /// ```
    pub fn push<T: Operation>(&mut self, operation: Op<T>, map: impl FnOnce(T::Output) -> R + Send + 'static) -> usize
    where
        R: 'static,
    {
        let number = self.first + self.entries.len();
        let place = Arc::new(Place { shared: self.shared.clone(), number, listed: AtomicBool::new(false) });
        let operation = Box::new(Mapped { operation, map: Some(map) });
        let waker = Waker::from(place.clone());
        self.entries.push_back(Entry::Running { operation, place, waker });
        self.running += 1;
        number
    }

    /// Operations whose results were not given out.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let mut batch = engine.batch();
    /// batch.push(file.len(), |len| len.is_ok());
    /// batch.push(file.sync_all(), |synced| synced.is_ok());
    /// assert_eq!((batch.len(), batch.wait_next().is_some(), batch.len()), (2, true, 1));
    /// # Ok(()) }
    /// ```
    pub fn len(&self) -> usize {
        self.running + self.finished.len()
    }

    /// Whether every result was given out.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let mut batch = engine.batch();
    /// batch.push(file.sync_all(), |synced| synced);
    /// while !batch.is_empty() {
    ///     if let Some((_, synced)) = batch.wait_next() { synced?; }
    /// }
    /// assert!(batch.wait_next().is_none());
    /// # Ok(()) }
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Submits what was pushed, all of it at once, and does not wait.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let mut batch = engine.batch();
    /// batch.push(file.write_all_at("HELLO", 0), |result| result.0);
    /// batch.submit();                     // it is on its way
    /// let mut sum = 0;                    // while this thread does something else
    /// for number in 0..1000 { sum += number; }
    /// for written in engine.block_on(batch.all()) { written?; }
    /// # assert_eq!(sum, 499_500);
    /// # Ok(()) }
    /// ```
    pub fn submit(&mut self) {
        let end = self.first + self.entries.len();
        if self.fresh == end {
            return;
        }
        // Their first polls queue the requests; nothing goes out before all are queued.
        let gathering = future::Gathering::enter(&self.core);
        for number in self.fresh..end {
            self.poll_one(number);
        }
        self.fresh = end;
        drop(gathering);
        self.core.flush();
        self.core.reap(REAP_MAX);
    }

    /// The next result with its operation's number; `None` when all were given out. Submits what was pushed.
    ///
    /// # Cancel safety
    /// A dropped one loses no result: what has completed is kept for the next call.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let mut batch = engine.batch();
    /// for place in [0, 7] {
    ///     batch.push(file.read_exact_at(vec![0; 5], place), |result| result.1);
    /// }
    /// engine.block_on(async {
    ///     while let Some((number, word)) = batch.next().await {
    ///         assert_eq!(word, [b"hello", b"world"][number]);
    ///     }
    /// });
    /// # Ok(()) }
    /// ```
    #[allow(clippy::should_implement_trait, reason = "it is asynchronous, as that of a stream")]
    pub fn next(&mut self) -> impl Future<Output = Option<(usize, R)>> + '_ {
        std::future::poll_fn(|context| self.poll_next(context))
    }

    /// The same, for code without an executor: waits on this thread, collecting completions meanwhile.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let mut batch = engine.batch();
    /// batch.push(file.read_exact_at(vec![0; 5], 0), |result| result.1);
    /// batch.push(file.read_exact_at(vec![0; 5], 7), |result| result.1);
    /// while let Some((number, word)) = batch.wait_next() {
    ///     println!("{number}: {}", String::from_utf8_lossy(&word));
    /// }
    /// # Ok(()) }
    /// ```
    pub fn wait_next(&mut self) -> Option<(usize, R)> {
        let core = self.core.clone();
        driver::block_on(&core, self.next())
    }

    /// All results that were not given out, in the order in which their operations were pushed. Submits what was pushed.
    ///
    /// # Cancel safety
    /// As [`next`](Self::next): the results that are there are kept.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let mut batch = engine.batch();
    /// for place in [7, 0] {
    ///     batch.push(file.read_exact_at(vec![0; 5], place), |result| result.1);
    /// }
    /// assert_eq!(engine.block_on(batch.all()), [b"world", b"hello"], "in the order of the pushes");
    /// # Ok(()) }
    /// ```
    pub fn all(&mut self) -> impl Future<Output = Vec<R>> + '_ {
        std::future::poll_fn(|context| self.poll_all(context))
    }

    fn poll_all(&mut self, context: &mut Context<'_>) -> Poll<Vec<R>> {
        self.advance(context);
        if self.running > 0 {
            return Poll::Pending;
        }
        let mut results: Vec<_> = self.finished.drain(..).collect();
        results.sort_by_key(|(number, _)| *number);
        Poll::Ready(results.into_iter().map(|(_, result)| result).collect())
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<(usize, R)>> {
        if self.finished.is_empty() {
            self.advance(context);
        } else {
            self.submit();
        }
        match self.finished.pop_front() {
            Some(result) => Poll::Ready(Some(result)),
            None if self.running == 0 => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// Submits what is new, and polls what was woken. With operations running the waker is registered.
    fn advance(&mut self, context: &mut Context<'_>) {
        self.submit();
        loop {
            let waker = context.waker().clone();
            let (numbers, old) = {
                let mut woken = lock(&self.shared.woken);
                (std::mem::take(&mut woken.numbers), woken.sleeper.replace(waker))
            };
            drop(old);
            if numbers.is_empty() {
                if self.running > 0 && !driver::is_driving(&self.core) {
                    // Where they were begun is not asked.
                    self.core.driver.sides.share_all(&self.core);
                    future::keep_driven(&self.core, context.waker());
                }
                return;
            }
            numbers.into_iter().for_each(|number| self.poll_one(number));
            if self.running == 0 {
                return;
            }
        }
    }

    fn poll_one(&mut self, number: usize) {
        // What is gone may have been woken once more.
        let Some(at) = number.checked_sub(self.first) else { return };
        let Some(Entry::Running { operation, place, waker }) = self.entries.get_mut(at) else { return };
        // From here on a wake-up is a new one. Swapped, so that what the last one told of is seen.
        place.listed.swap(false, Ordering::SeqCst);
        if let Poll::Ready(result) = operation.poll(&mut Context::from_waker(waker)) {
            self.entries[at] = Entry::Over;
            self.running -= 1;
            self.finished.push_back((number, result));
            while let Some(Entry::Over) = self.entries.front() {
                self.entries.pop_front();
                self.first += 1;
            }
        }
    }
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use crate::{BufResult, Engine, OpenOptions};

    /// A batch may live as long as its program: what is over leaves nothing behind.
    #[test]
    fn what_is_over_leaves_no_place() {
        let engine = Engine::new().expect("an engine");
        let file = OpenOptions::new().read(true).open(&engine, "/dev/zero").expect("/dev/zero");
        let mut batch = engine.batch();
        for number in 0..100 {
            batch.push(file.read(vec![0; 1]), |BufResult(n, _)| n);
            assert!(matches!(batch.wait_next(), Some((n, Ok(1))) if n == number));
        }
        assert!(batch.entries.is_empty() && batch.is_empty());
    }
}
