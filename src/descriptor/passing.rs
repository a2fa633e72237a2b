//! Begins and ends of operations, as a file's gates are told of them.

use super::*;
use crate::counts::Closed;

impl OpenFile {
    /// Notes the begin of an operation that uses the handle; [`end`](Self::end) must follow. What cannot have to wait in the
    /// order gate passes that of overlapping requests by the same step, unless ranges are tracked: see `overlap.rs`.
    #[inline]
    pub(crate) fn begin(&self, shape: &Shape) -> Result<Pass, Closed> {
        let begun = self.counts.begin(self.may_overlap(shape.kind) && !self.gate(shape, false).may_wait());
        let mut pass = if begun.untracked { Pass::Untracked } else { Pass::None };
        if begun.closed {
            self.end(pass);
            return Err(Closed);
        }
        if begun.tracking {
            self.give_back(&mut pass);
        }
        Ok(pass)
    }

    /// Gives the pass of an operation back that may have to wait for others, which may wait for it. It is admitted anew when it
    /// is sent.
    #[inline]
    pub(crate) fn give_back(&self, pass: &mut Pass) {
        if *pass != Pass::None && self.take_back(pass) {
            self.core.flush_after_completion();
        }
    }

    /// The same, where a flush follows anyway. Returns whether another request was let go.
    pub(super) fn take_back(&self, pass: &mut Pass) -> bool {
        let mut released = false;
        self.overlap.give_back(&self.counts, std::mem::take(pass), |next| {
            self.core.enqueue(next);
            released = true;
        });
        released
    }

    /// Notes the end of an operation that [`begin`](Self::begin) began, and that no request has become of.
    pub(crate) fn end(&self, pass: Pass) {
        let mut released = false;
        let close = self.count_out(pass, |next| {
            self.core.enqueue(next);
            released = true;
        });
        self.go_after(close, released);
    }

    /// After an end: sends the close on its way that waited for it, and, with what else was `released`, to the backends.
    #[inline]
    pub(super) fn go_after(&self, close: Option<Request>, mut released: bool) {
        if let Some(close) = close {
            self.close(close);
            released = true;
        }
        if released {
            self.core.flush_after_completion();
        }
    }

    /// Counts an operation out, and hands to `release` what waited for its pass. Returns the close that waited for it, to be
    /// submitted now.
    #[inline]
    pub(super) fn count_out(&self, pass: Pass, release: impl FnMut(Request)) -> Option<Request> {
        let ended = self.counts.end(pass == Pass::Untracked);
        self.overlap.ended(&self.counts, pass, ended.writes, release);
        if ended.close { self.order.take_close() } else { None }
    }

    /// Whether the file is closed, or being closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.counts.is_closed()
    }
}

#[cfg(all(test, not(polyaio_loom), target_os = "linux"))]
mod tests {
    use super::*;
    use crate::Engine;
    use crate::testing::Bench;

    fn file(engine: &Engine) -> (tempfile::NamedTempFile, crate::File) {
        let scratch = tempfile::NamedTempFile::new().expect("room");
        let file = crate::OpenOptions::new().read(true).write(true).open(engine, scratch.path()).expect("it is there");
        (scratch, file)
    }

    fn shape(kind: OpKind, position: Option<u64>) -> Shape {
        Shape { kind, position, bytes: 512, allocate: 0, whole: false, how: How::default() }
    }

    /// Only what goes its way without a turn in the order gate passes the other one at its begin.
    #[test]
    fn who_passes_at_its_begin() {
        let engine = Engine::new().expect("an engine");
        let (_scratch, file) = file(&engine);
        let file = file.open_file();
        let mut append = shape(OpKind::Write, Some(0));
        append.how.append = true;
        let cases = [
            (shape(OpKind::Read, Some(0)), Pass::Untracked),
            (shape(OpKind::Write, Some(0)), Pass::Untracked),
            (shape(OpKind::Read, None), Pass::None),
            (append, Pass::None),
            (shape(OpKind::SyncAll, None), Pass::None),
            (shape(OpKind::SetLen, Some(0)), Pass::None),
        ];
        for (shape, expected) in cases {
            let pass = file.begin(&shape).expect("it is open");
            assert_eq!(pass, expected, "{shape:?}");
            file.end(pass);
        }
        file.counts.track();
        let pass = file.begin(&cases[0].0).expect("it is open");
        assert_eq!(pass, Pass::None, "ranges are tracked");
        file.end(pass);
        assert!(!file.counts.has_untracked());
    }

    /// A write that turns out to need its turn, after it has passed: those before it may be cached writes.
    #[test]
    fn who_waits_for_its_turn_has_no_pass() {
        let (engine, bench) = (Engine::new().expect("an engine"), Bench::new());
        let (_scratch, file) = file(&engine);
        let file = file.open_file();
        let request = || {
            let (mut request, pending) = bench.request(OpKind::Write, -1, Some(0), vec![0; 512]);
            drop(pending);
            request.body_mut().trail.gate = order::Class::Serial;
            request
        };
        let first = file.order.admit(request(), &file.counts).expect("nobody is before it");
        let mut second = request();
        second.body_mut().trail.pass = file.begin(&shape(OpKind::Write, Some(0))).expect("it is open");
        assert!(file.counts.has_untracked());
        file.submit(second, &First::at(file.core.pool));
        let passed = file.counts.has_untracked();
        // The test ends them, and not the engine.
        file.core.unfinished.fetch_sub(1, Ordering::SeqCst);
        file.end(Pass::None);
        drop(first);
        assert!(!passed, "it waits behind the first");
    }
}
