//! A queued signal for each operation that ends: what POSIX AIO calls `SIGEV_SIGNAL`, on every backend.

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::{Callback, task};
use crate::backend::CancelOutcome;
use crate::completion::Errno;
use crate::dispatch::Core;
use crate::driver;
use crate::future::Op;
use crate::op::Operation;
use crate::refused::Refused;
use crate::request::wake;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, lock};

/// An operation whose end is told by a signal; made by [`Op::signal_on_completion`].
///
/// # Cancel safety
/// Dropping it does not cancel the operation. Its result is dropped; the signal comes all the same.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let signal = libc::SIGRTMIN();
/// # // SAFETY: the set is made by `sigemptyset`. Blocked before any thread of the engine is there.
/// # let set = unsafe {
/// #     let mut set = std::mem::zeroed();
/// #     libc::sigemptyset(&mut set);
/// #     libc::sigaddset(&mut set, signal);
/// #     libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
/// #     set
/// # };
/// # // SAFETY: as above; what is written is a `siginfo_t`.
/// # let next_signal = || unsafe {
/// #     let mut info = std::mem::zeroed::<libc::siginfo_t>();
/// #     assert_eq!(libc::sigwaitinfo(&set, &mut info), signal);
/// #     info.si_value().sival_ptr as u64
/// # };
/// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
/// # let path = dir.path().join("data");
/// # std::fs::write(&path, "hello, world")?;
/// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
/// let mut sync: polyaio::Signalled<_> = file.sync_all().signal_on_completion(signal)?;
/// // Told by number, as with POSIX AIO; here `sigtimedwait(2)`, elsewhere a signalfd or a handler.
/// assert_eq!(next_signal(), sync.id());
/// sync.try_take().ok_or("it is over")??;
/// # Ok(()) }
/// ```
pub struct Signalled<T: Operation> {
    core: Arc<Core>,
    callback: Callback,
    parcel: Arc<Parcel<T::Output>>,
}

/// Being told by a signal.
impl<T: Operation> Op<T> {
    /// Begins the operation, and queues the real-time signal `signal` to this process once its result can be taken from what
    /// this returns. The signal carries [`Signalled::id`] in `si_value` (`sigval.sival_ptr` as a number), with `SI_ASYNCIO` in
    /// `si_code`.
    ///
    /// The signal is for the process: block it in all threads and take it by `sigwaitinfo(2)` or from a `signalfd(2)`. A
    /// handler is possible; nothing of this crate may be called in one, and the crate installs none. A signal that is
    /// neither blocked nor handled ends the process, by default.
    ///
    /// Signals come in the order in which the results were collected, on the threads that [`on_completion`](Self::on_completion)
    /// names, and one may come before this call has returned.
    ///
    /// **When the kernel has no room** for another queued signal (`RLIMIT_SIGPENDING`, which all processes of the user share),
    /// the result is there all the same, and the signal waits: it is tried again with each completion that is collected, and
    /// whenever a result is taken by [`Signalled::try_take`], so that a program that takes one signal after the other gets all
    /// of them. [`NotificationStats::signals_waiting`](crate::NotificationStats::signals_waiting) tells how many wait.
    ///
    /// # Errors
    /// [`Refused`], with the operation: `EINVAL` the number is not one of `SIGRTMIN..=SIGRTMAX`; `EOPNOTSUPP` the system queues
    /// no signals; the engine has ended, or is the parent process's.
    ///
    /// # Panics
    /// Panics where the operation has already returned its result.
    ///
    /// # Platform
    /// Linux and FreeBSD (there with `SI_QUEUE` in `si_code`). Other systems queue no signals: `EOPNOTSUPP`; use
    /// [`on_completion`](Self::on_completion).
    ///
    /// # References
    /// sigevent(3), rt_sigqueueinfo(2), signal(7)
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let signal = libc::SIGRTMIN();
    /// # // SAFETY: the set is made by `sigemptyset`. Blocked before any thread of the engine is there.
    /// # let set = unsafe {
    /// #     let mut set = std::mem::zeroed();
    /// #     libc::sigemptyset(&mut set);
    /// #     libc::sigaddset(&mut set, signal);
    /// #     libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    /// #     set
    /// # };
    /// # // SAFETY: as above; what is written is a `siginfo_t`.
    /// # let next_signal = || unsafe {
    /// #     let mut info = std::mem::zeroed::<libc::siginfo_t>();
    /// #     assert_eq!(libc::sigwaitinfo(&set, &mut info), signal);
    /// #     info.si_value().sival_ptr as u64
    /// # };
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let mut reads = Vec::new();
    /// for place in [0, 7] { reads.push(file.read_at(vec![0; 5], place).signal_on_completion(signal)?); }
    /// for _ in 0..2 {
    ///     let id = next_signal();
    ///     let read = reads.iter_mut().find(|read| read.id() == id).ok_or("one of these")?;
    ///     assert_eq!(read.try_take().ok_or("it is over")?.0?, 5);
    /// }
    /// assert!(file.sync_all().signal_on_completion(libc::SIGINT).is_err(), "that one is not queued");
    /// # Ok(()) }
    /// ```
    pub fn signal_on_completion(self, signal: i32) -> Result<Signalled<T>, Refused<Self>> {
        if let Some(errno) = sys::is_queued(signal).map_or_else(Some, |queued| (!queued).then_some(Errno(libc::EINVAL)))
        {
            return Err(Refused::new(self, errno));
        }
        let (core, id) = (self.home(), task::next_id());
        let parcel = Arc::new(Parcel(Mutex::new(Content::Awaited(None))));
        let sender = Sender { parcel: parcel.clone(), sent: false };
        let engine = core.clone();
        let callback = task::register(self, id, move |output| {
            sender.send(output);
            engine.counters.signals.add(1);
            engine.notifications.unsent.queue(signal, id);
        })?;
        Ok(Signalled { core, callback, parcel })
    }
}

impl<T: Operation> Signalled<T> {
    /// What the signal carries: see [`Callback::id`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let signal = libc::SIGRTMIN();
    /// # // SAFETY: the set is made by `sigemptyset`. Blocked before any thread of the engine is there.
    /// # let set = unsafe {
    /// #     let mut set = std::mem::zeroed();
    /// #     libc::sigemptyset(&mut set);
    /// #     libc::sigaddset(&mut set, signal);
    /// #     libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    /// #     set
    /// # };
    /// # // SAFETY: as above; what is written is a `siginfo_t`.
    /// # let next_signal = || unsafe {
    /// #     let mut info = std::mem::zeroed::<libc::siginfo_t>();
    /// #     assert_eq!(libc::sigwaitinfo(&set, &mut info), signal);
    /// #     info.si_value().sival_ptr as u64
    /// # };
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let (first, second) = (file.len().signal_on_completion(signal)?, file.len().signal_on_completion(signal)?);
    /// assert_ne!(first.id(), second.id());
    /// let mut told = [next_signal(), next_signal()];
    /// told.sort();
    /// assert_eq!(told, [first.id(), second.id()]);
    /// # Ok(()) }
    /// ```
    pub fn id(&self) -> u64 {
        self.callback.id()
    }

    /// As [`Callback::cancel`]: the result and the signal come in every case.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let signal = libc::SIGRTMIN();
    /// # // SAFETY: the set is made by `sigemptyset`. Blocked before any thread of the engine is there.
    /// # let set = unsafe {
    /// #     let mut set = std::mem::zeroed();
    /// #     libc::sigemptyset(&mut set);
    /// #     libc::sigaddset(&mut set, signal);
    /// #     libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    /// #     set
    /// # };
    /// # // SAFETY: as above; what is written is a `siginfo_t`.
    /// # let next_signal = || unsafe {
    /// #     let mut info = std::mem::zeroed::<libc::siginfo_t>();
    /// #     assert_eq!(libc::sigwaitinfo(&set, &mut info), signal);
    /// #     info.si_value().sival_ptr as u64
    /// # };
    /// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
    /// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// use polyaio::backend::CancelOutcome;
    /// let mut read = reader.read(vec![0; 4]).signal_on_completion(signal)?;
    /// assert_eq!(read.cancel(), CancelOutcome::Cancelled);
    /// assert_eq!(next_signal(), read.id());
    /// let polyaio::BufResult(result, _buffer) = read.try_take().ok_or("it is over")?;
    /// assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
    /// # drop(writer);
    /// # Ok(()) }
    /// ```
    pub fn cancel(&self) -> CancelOutcome {
        self.callback.cancel()
    }

    /// The result, if it is there and was not taken before. Never blocks, and collects nothing.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let signal = libc::SIGRTMIN();
    /// # // SAFETY: the set is made by `sigemptyset`. Blocked before any thread of the engine is there.
    /// # let set = unsafe {
    /// #     let mut set = std::mem::zeroed();
    /// #     libc::sigemptyset(&mut set);
    /// #     libc::sigaddset(&mut set, signal);
    /// #     libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    /// #     set
    /// # };
    /// # // SAFETY: as above; what is written is a `siginfo_t`.
    /// # let next_signal = || unsafe {
    /// #     let mut info = std::mem::zeroed::<libc::siginfo_t>();
    /// #     assert_eq!(libc::sigwaitinfo(&set, &mut info), signal);
    /// #     info.si_value().sival_ptr as u64
    /// # };
    /// # let (engine, (reader, writer)) = (polyaio::Engine::new()?, std::io::pipe()?);
    /// # let (reader, writer) = (engine.adopt(reader.into())?, engine.adopt(writer.into())?);
    /// let mut read = reader.read_exact(vec![0; 4]).signal_on_completion(signal)?;
    /// assert!(read.try_take().is_none(), "nothing was written");
    /// writer.write_all("ping").wait().0?;
    /// next_signal();
    /// assert_eq!(read.try_take().ok_or("it is over")?.1, b"ping");
    /// assert!(read.try_take().is_none(), "it was taken");
    /// # Ok(()) }
    /// ```
    pub fn try_take(&mut self) -> Option<T::Output> {
        if self.core.fork.is_child() {
            return None;
        }
        // Who comes for a result has taken a signal, perhaps, and made room for another one.
        self.core.notifications.unsent.retry();
        self.parcel.take()
    }

    /// Waits for the result on this thread, collecting completions meanwhile. The signal comes all the same.
    ///
    /// # Panics
    /// Panics where the result was taken before, where the operation's buffer has panicked, and in the child of a fork, to
    /// which no result comes.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let signal = libc::SIGRTMIN();
    /// # // SAFETY: the set is made by `sigemptyset`. Blocked before any thread of the engine is there.
    /// # let set = unsafe {
    /// #     let mut set = std::mem::zeroed();
    /// #     libc::sigemptyset(&mut set);
    /// #     libc::sigaddset(&mut set, signal);
    /// #     libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    /// #     set
    /// # };
    /// # // SAFETY: as above; what is written is a `siginfo_t`.
    /// # let next_signal = || unsafe {
    /// #     let mut info = std::mem::zeroed::<libc::siginfo_t>();
    /// #     assert_eq!(libc::sigwaitinfo(&set, &mut info), signal);
    /// #     info.si_value().sival_ptr as u64
    /// # };
    /// # let (dir, engine) = (tempfile::tempdir()?, polyaio::Engine::new()?);
    /// # let path = dir.path().join("data");
    /// # std::fs::write(&path, "hello, world")?;
    /// # let file = polyaio::OpenOptions::new().read(true).write(true).open(&engine, &path)?;
    /// let len = file.len().signal_on_completion(signal)?;
    /// assert_eq!(len.wait()?, 12);
    /// next_signal(); // all the same
    /// # Ok(()) }
    /// ```
    pub fn wait(self) -> T::Output {
        assert!(!self.core.fork.is_child(), "the result is the parent process's");
        let output = driver::block_on(&self.core, std::future::poll_fn(|context| self.parcel.poll(context)));
        self.core.notifications.unsent.retry();
        output
    }
}

impl<T: Operation> std::fmt::Debug for Signalled<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signalled").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// A result on its way from the callback to who has asked for it.
struct Parcel<V>(Mutex<Content<V>>);

enum Content<V> {
    Awaited(Option<Waker>),
    There(V),
    Taken,
    /// It will never come.
    Lost,
}

impl<V> Parcel<V> {
    fn take(&self) -> Option<V> {
        let mut content = lock(&self.0);
        match std::mem::replace(&mut *content, Content::Taken) {
            Content::There(value) => Some(value),
            other => {
                *content = other;
                None
            }
        }
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<V> {
        if let Some(value) = self.take() {
            return Poll::Ready(value);
        }
        let mut waker = Some(context.waker().clone());
        {
            let mut content = lock(&self.0);
            match &mut *content {
                Content::Awaited(old) => std::mem::swap(old, &mut waker),
                // It has come since.
                Content::There(_) => context.waker().wake_by_ref(),
                Content::Taken => panic!("the result was taken before"),
                Content::Lost => panic!("the operation has panicked"),
            }
        }
        Poll::Pending
    }

    fn put(&self, content: Content<V>) {
        let before = std::mem::replace(&mut *lock(&self.0), content);
        if let Content::Awaited(Some(waker)) = before {
            wake(waker);
        }
    }
}

/// The other end of a parcel.
struct Sender<V> {
    parcel: Arc<Parcel<V>>,
    sent: bool,
}

impl<V> Sender<V> {
    fn send(mut self, value: V) {
        self.sent = true;
        self.parcel.put(Content::There(value));
    }
}

impl<V> Drop for Sender<V> {
    fn drop(&mut self) {
        if !self.sent {
            self.parcel.put(Content::Lost);
        }
    }
}

/// Signals for which the kernel had no room, in their order.
#[derive(Default)]
pub(crate) struct Unsent {
    signals: Mutex<VecDeque<(i32, u64)>>,
    /// Length of `signals`, to be read without the lock.
    count: AtomicUsize,
}

impl Unsent {
    /// Queues a signal, now or (behind those that wait already) later.
    fn queue(&self, signal: i32, id: u64) {
        let mut signals = lock(&self.signals);
        signals.push_back((signal, id));
        self.send(&mut signals);
    }

    /// Tries those that wait.
    pub(crate) fn retry(&self) {
        if self.waiting() > 0 {
            self.send(&mut lock(&self.signals));
        }
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    fn send(&self, signals: &mut VecDeque<(i32, u64)>) {
        while let Some(&(signal, id)) = signals.front() {
            if sys::queue(signal, id).is_err() {
                break;
            }
            signals.pop_front();
        }
        self.count.store(signals.len(), Ordering::SeqCst);
    }
}

// What systems queue, and how.
cfg_if::cfg_if! {
    if #[cfg(any(target_os = "linux", target_os = "android"))] {
        mod sys {
            use super::Errno;

            /// `siginfo_t` as rt_sigqueueinfo(2) reads it: its head, and the fields of queued signals.
            #[repr(C)]
            struct Head {
                signal: libc::c_int,
                errno: libc::c_int,
                code: libc::c_int,
                fields: Fields,
            }

            #[repr(C)]
            struct Fields {
                pid: libc::pid_t,
                uid: libc::uid_t,
                value: usize,
            }

            #[repr(C)]
            union Info {
                head: std::mem::ManuallyDrop<Head>,
                /// As long as the kernel copies.
                whole: [u64; 16],
            }

            const _: () = assert!(size_of::<Info>() == size_of::<libc::siginfo_t>());

            /// Whether signals can be queued that have this number.
            pub(super) fn is_queued(signal: i32) -> Result<bool, Errno> {
                Ok((libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&signal))
            }

            /// Queues a signal to this process. `EAGAIN` where `RLIMIT_SIGPENDING` is reached.
            pub(super) fn queue(signal: i32, id: u64) -> Result<(), Errno> {
                let mut info = Info { whole: [0; 16] };
                // SAFETY: neither call takes a pointer, and neither can fail.
                let (pid, uid) = unsafe { (libc::getpid(), libc::getuid()) };
                let fields = Fields { pid, uid, value: id as usize };
                info.head = std::mem::ManuallyDrop::new(Head { signal, errno: 0, code: libc::SI_ASYNCIO, fields });
                // SAFETY: the kernel reads a siginfo_t, which `info` is as long as, during the call.
                match unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, pid, signal, &raw const info) } {
                    0 => Ok(()),
                    _ => Err(Errno::last()),
                }
            }
        }
    } else if #[cfg(target_os = "freebsd")] {
        mod sys {
            use super::Errno;

            /// `SIGRTMIN` and `SIGRTMAX` of `sys/signal.h`.
            const REAL_TIME: std::ops::RangeInclusive<i32> = 65..=126;

            unsafe extern "C" {
                /// sigqueue(2)
                fn sigqueue(process: libc::pid_t, signal: libc::c_int, value: libc::sigval) -> libc::c_int;
            }

            /// Whether signals can be queued that have this number.
            pub(super) fn is_queued(signal: i32) -> Result<bool, Errno> {
                Ok(REAL_TIME.contains(&signal))
            }

            /// Queues a signal to this process. `EAGAIN` where `kern.sigqueue.max_pending_per_proc` is reached.
            pub(super) fn queue(signal: i32, id: u64) -> Result<(), Errno> {
                let value = libc::sigval { sival_ptr: id as usize as *mut libc::c_void };
                // SAFETY: neither call takes a pointer that anybody follows.
                match unsafe { sigqueue(libc::getpid(), signal, value) } {
                    0 => Ok(()),
                    _ => Err(Errno::last()),
                }
            }
        }
    } else {
        mod sys {
            use super::Errno;

            /// No signals can be queued.
            pub(super) fn is_queued(_signal: i32) -> Result<bool, Errno> {
                Err(Errno(libc::EOPNOTSUPP))
            }

            /// See [`is_queued`].
            pub(super) fn queue(_signal: i32, _id: u64) -> Result<(), Errno> {
                Err(Errno(libc::EOPNOTSUPP))
            }
        }
    }
}
