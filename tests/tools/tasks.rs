//! Futures without a runtime. The crate must work with any executor: these are the simplest ones there can be.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};

/// Counts how often it was woken.
#[derive(Default)]
pub(crate) struct Flag(AtomicUsize);

impl Flag {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn wakes(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Panics whenever it is woken, and counts.
#[derive(Default)]
pub(crate) struct PanickingWaker(AtomicUsize);

impl PanickingWaker {
    pub(crate) fn wakes(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        // Not `panic!`: the hook would print a message for each of hundreds that are meant.
        std::panic::resume_unwind(Box::new("this waker always panics"));
    }
}

/// Polls once, with a waker that does nothing.
pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// A future that was begun, and perhaps is over already: it can be polled on, whatever the first polls came to.
pub(crate) enum Begun<F: Future> {
    Running(F),
    Over(Option<F::Output>),
}

impl<F: Future + Unpin> Begun<F> {
    /// Polls once, with a waker that does nothing.
    pub(crate) fn new(future: F) -> Self {
        Self::with(future, Waker::noop())
    }

    pub(crate) fn with(mut future: F, waker: &Waker) -> Self {
        match Pin::new(&mut future).poll(&mut Context::from_waker(waker)) {
            Poll::Ready(output) => Self::Over(Some(output)),
            Poll::Pending => Self::Running(future),
        }
    }

    /// Polls once more, unless it is over; returns whether it is still running.
    pub(crate) fn again(&mut self) -> bool {
        if let Self::Running(future) = self
            && let Poll::Ready(output) = poll_once(future)
        {
            *self = Self::Over(Some(output));
        }
        matches!(self, Self::Running(_))
    }

    /// Does something with the future, unless it is over.
    pub(crate) fn with_running<T>(&mut self, f: impl FnOnce(&mut F) -> T) -> Option<T> {
        match self {
            Self::Running(future) => Some(f(future)),
            Self::Over(_) => None,
        }
    }
}

// The output is moved out as it is, and nothing points into it.
impl<F: Future> Unpin for Begun<F> {}

impl<F: Future + Unpin> Future for Begun<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        match &mut *self {
            Self::Running(future) => Pin::new(future).poll(context),
            Self::Over(output) => Poll::Ready(output.take().expect("the output is taken once")),
        }
    }
}

/// Runs a future on this thread, which parks meanwhile: an executor that knows nothing of the engine.
pub(crate) fn park_on<F: Future>(future: F) -> F::Output {
    /// The flag, because whatever blocks inside of a poll may take the token of `unpark`.
    struct Unpark(Thread, AtomicBool);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.1.store(true, Ordering::SeqCst);
            self.0.unpark();
        }
    }
    let mut future = pin!(future);
    let unpark = Arc::new(Unpark(std::thread::current(), AtomicBool::new(false)));
    let waker = Waker::from(unpark.clone());
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        while !unpark.1.swap(false, Ordering::SeqCst) {
            std::thread::park();
        }
    }
}

/// [`park_on`], on a thread of its own.
pub(crate) fn spawn_park<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    std::thread::spawn(move || park_on(future))
}

/// Runs all of them at once; the outputs come in the order of the futures.
pub(crate) fn join<F, I>(futures: I) -> impl Future<Output = Vec<F::Output>> + use<F, I>
where
    F: Future + Unpin,
    I: IntoIterator<Item = F>,
{
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Some(future), None)).collect();
    std::future::poll_fn(move |context| {
        let mut pending = false;
        for (future, output) in &mut futures {
            let Some(running) = future else { continue };
            match Pin::new(running).poll(context) {
                Poll::Ready(value) => (*future, *output) = (None, Some(value)),
                Poll::Pending => pending = true,
            }
        }
        if pending {
            return Poll::Pending;
        }
        Poll::Ready(futures.iter_mut().map(|(_, output)| output.take().expect("each has ended")).collect())
    })
}

/// A value that another thread will send.
pub(crate) struct Oneshot<T>(Arc<Mutex<(Option<T>, Option<Waker>)>>);

impl<T> Clone for Oneshot<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Oneshot<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new((None, None))))
    }

    pub(crate) fn send(&self, value: T) {
        let waker = {
            let mut state = self.0.lock().expect("nobody panics inside");
            state.0 = Some(value);
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Oneshot<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut state = self.0.lock().expect("nobody panics inside");
        match state.0.take() {
            Some(value) => Poll::Ready(value),
            None => {
                state.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
