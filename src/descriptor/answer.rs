//! What a backend's answer means: the result, or the next step.

use super::*;
use crate::request::ONE_RANGE;

impl OpenFile {
    /// Takes the backend's answer apart: the result to publish, or `None` for another step.
    pub(super) fn verdict(&self, request: &mut Request, outcome: Outcome) -> Option<Outcome> {
        let class = Class::of(request.kind(), request.position().is_some());
        match outcome {
            Ok(n) => self.succeeded(request, class, n),
            Err(errno) => {
                if errno.0 == libc::EAGAIN && request.nowait() && request.body().trail.counted {
                    self.counters_of(request).nowait_misses.add(1);
                }
                self.failed(request, class, errno)
            }
        }
    }

    /// Of the backend that has answered.
    pub(super) fn counters_of(&self, request: &Request) -> &BackendCounters {
        &self.core.lane(request.body().trail.place).counters
    }

    pub(super) fn succeeded(&self, request: &mut Request, class: Class, n: u64) -> Option<Outcome> {
        let (kind, nowait) = (request.kind(), request.nowait());
        let trail = request.body().trail;
        if nowait && kind == OpKind::Read && n == 0 && self.ends_early(request) {
            return self.go_on(request, class, Reason::EarlyEnd, Memory::Forget, Errno(libc::EAGAIN));
        }
        if nowait {
            self.counters_of(request).nowait_hits.add(1);
            self.learned.nowait_hit(class);
            if trail.grows {
                self.learned.grew(true);
            }
        }
        if let Some((backend, errno)) = trail.refused {
            let before = self.learned.demoted(class);
            self.learned.confirm(class, backend, errno);
            self.raise_demoted(class, backend, errno, before);
        }
        match kind {
            // It says nothing of where the bytes are.
            OpKind::Write if request.appends() => {}
            OpKind::Write => {
                if let Some(position) = request.position() {
                    self.extent.extend(position, position + n);
                    self.look_at_mapping(class, trail.backend);
                }
            }
            OpKind::PunchHole if self.facts.kind == FileKind::Regular => {
                self.extent.punch(request.position().unwrap_or(0))
            }
            OpKind::SetLen if self.facts.kind == FileKind::Regular => self.extent.cut(request.position().unwrap_or(0)),
            OpKind::Allocate => {
                let position = request.position().unwrap_or(0);
                self.extent.extend(position, position + request.length());
            }
            _ => {}
        }
        if !kind.is_transfer() {
            return Some(Ok(n));
        }
        let short = n > 0 && n < request.body().memory.bytes();
        // A backend that takes one range at a time is given the next one.
        let goes_on = request.body().whole || (request.body().step == ONE_RANGE && n == request.length());
        if short {
            self.counters_of(request).short.add(1);
        }
        let at_end = short && !request.is_misaligned() && self.is_direct_tail(kind, n);
        if short && !goes_on && !at_end && self.stopped_half_way(request, n) {
            request.advance(n);
            return self.go_on(request, class, Reason::WouldBlock, Memory::Forget, Errno(libc::EAGAIN));
        }
        if short && goes_on && !at_end {
            request.advance(n);
            let misaligned = self.is_misaligned(kind, request.place(), request.memory_left());
            if misaligned && !request.is_misaligned() && self.may_divert(class) {
                self.divert(request);
            }
            return None;
        }
        Some(Ok(request.body().done + n))
    }

    /// A NOWAIT read said 0, but the file goes on: old kernels did that.
    pub(super) fn ends_early(&self, request: &Request) -> bool {
        let len = self.descriptor().and_then(facts::current_len).unwrap_or(0);
        self.facts.kind == FileKind::Regular && request.position().is_some_and(|position| position < len)
    }

    /// A NOWAIT transfer of `n` bytes has met something that it would have had to wait for. Without the flag it would have
    /// gone on; and what nobody has asked for must not be seen in the result.
    fn stopped_half_way(&self, request: &Request, n: u64) -> bool {
        let expected = !request.nowait() || request.how().nowait || self.core.settings.strict || n >= request.length();
        let Some(position) = request.position().filter(|_| !expected) else { return false };
        let len = || self.descriptor().and_then(facts::current_len).unwrap_or(0);
        self.facts.kind == FileKind::Regular && (request.kind() == OpKind::Write || position + n < len())
    }

    /// A direct read that ends within a block has met the end of the file. Asking for the rest would be misaligned.
    pub(super) fn is_direct_tail(&self, kind: OpKind, n: u64) -> bool {
        let block = self.facts.alignment.map_or(1, |alignment| alignment.offset as u64);
        kind == OpKind::Read && self.facts.direct && !n.is_multiple_of(block.max(1))
    }

    pub(super) fn failed(&self, request: &mut Request, class: Class, errno: Errno) -> Option<Outcome> {
        let trail = request.body().trail;
        if errno.0 == libc::EINTR {
            return None;
        }
        if errno.0 == libc::ECANCELED && request.body().done > 0 && request.take_asked() {
            // "Cancelled" would mean that nothing has happened: whoever has asked is told that it is running.
            return None;
        }
        let mapped = self.extent.reach(request.kind(), request.position(), request.length()).mapped;
        let on_workers = trail.backend == self.core.stream_workers;
        let last_resort = trail.backend == self.core.pool || on_workers;
        let how = request.how();
        if errno.0 == libc::EINVAL && last_resort && !how.nowait && self.is_refused_as_direct(request, class) {
            self.divert(request);
            return None;
        }
        // Without the flag only direct I/O is asynchronous.
        let asked = Asked { nowait: request.nowait(), mapped: mapped && self.facts.direct, last_resort };
        let action = match errno.0 {
            // It was never taken: there was no room, and nothing of ours in flight that could make some.
            libc::EAGAIN if !trail.counted => Action::Next { reason: Reason::QueueFull, memory: Memory::Forget },
            // The rules that the file emulates are its own: nobody else would be told anything else.
            libc::EINVAL if self.check_where_it_runs(request).is_err() => Action::Report,
            // Nor was this: not one stream worker can be started.
            libc::ENOSYS if on_workers => Action::Next { reason: Reason::NotStarted, memory: Memory::Forget },
            _ if how.nowait => Action::Report,
            libc::EPERM if how.priority.is_some() => Action::Report,
            // An old kernel may know the transfer, but not how it is to be done.
            libc::EINVAL | libc::EOPNOTSUPP if how.durability != Durability::Later && !last_resort => {
                Action::Next { reason: Reason::Unsupported, memory: Memory::Forget }
            }
            _ => fallback::action(errno, asked),
        };
        match action {
            Action::Next { reason, memory } => self.go_on(request, class, reason, memory, errno),
            Action::WithoutNowait => {
                self.learned.without_nowait(class, trail.backend);
                request.body_mut().nowait = false;
                self.fell_back(request, Reason::NowaitUnsupported, errno, trail.backend);
                None
            }
            Action::Report => Some(self.partial_or(request, errno)),
        }
    }

    /// An operation that may be short reports what it has; the error will meet the next one.
    pub(super) fn partial_or(&self, request: &Request, errno: Errno) -> Outcome {
        let body = request.body();
        if body.done > 0 && !body.whole { Ok(body.done) } else { Err(errno) }
    }

    /// Sends a request to the next backend of its plan, or reports the error where there is none.
    pub(super) fn go_on(
        &self,
        request: &mut Request,
        class: Class,
        reason: Reason,
        memory: Memory,
        errno: Errno,
    ) -> Option<Outcome> {
        let backend = request.body().trail.backend;
        let trail = &mut request.body_mut().trail;
        trail.tried |= 1 << backend;
        trail.refused = (memory == Memory::Confirm).then_some((backend, errno));
        let (tried, grows) = (trail.tried, trail.grows);
        let tried = tried | self.unfit(request.how());
        match memory {
            // It asks anew each time.
            _ if self.core.settings.strict => {}
            Memory::Demote => {
                let before = self.learned.demoted(class);
                self.learned.demote(class, backend, errno);
                self.raise_demoted(class, backend, errno, before);
            }
            Memory::NoFlag => self.learned.without_nowait(class, backend),
            // What makes the file longer would block on any file system: that says nothing about this one.
            Memory::NowaitMiss if grows => self.learned.grew(false),
            Memory::NowaitMiss => {
                if self.learned.nowait_miss(class, backend) {
                    events::raise(|| Event::Resting { backend: self.name(backend), class, reason });
                }
            }
            Memory::Confirm | Memory::Forget => {}
        }
        let reach = self.extent.reach(request.kind(), request.position(), request.length());
        let needs = Needs { reach, hopeless: false };
        let next = self.choose(class, request.kind(), needs, tried, self.passed_over(class));
        let settings = &self.core.settings;
        // Its own answer is what it has asked for.
        let next = next.filter(|_| !request.how().nowait);
        // A required backend has nobody behind it whom one could hand over to; without the policy there would be the pool.
        let refused = if next.is_some() {
            settings.strict
        } else {
            settings.required && self.own.is_none() && !request.how().nowait
        };
        request.body_mut().trail.strict = refused.then_some(reason);
        let next = next.filter(|_| !settings.strict);
        let Some((next, nowait)) = next else { return Some(self.partial_or(request, errno)) };
        let next = if request.is_stream() { self.for_stream(next, tried) } else { next };
        let body = request.body_mut();
        body.trail.backend = next;
        body.nowait = nowait;
        self.fell_back(request, reason, errno, backend);
        None
    }

    /// Notes that a request goes on otherwise than it began: `from` a backend that has answered with an error.
    pub(super) fn fell_back(&self, request: &mut Request, reason: Reason, errno: Errno, from: u8) {
        self.core.counters.fallback(reason);
        let body = request.body_mut();
        body.trail.reasons.insert(reason);
        if !body.quiet {
            let answer = (reason != Reason::EarlyEnd).then_some(errno);
            self.raise_fallback(reason, answer, self.name(from), body.trail.backend, body.kind);
        }
    }

    /// Tells of a fallback, unless it is a subscriber's own doing.
    pub(crate) fn raise_fallback(
        &self,
        reason: Reason,
        errno: Option<Errno>,
        from: &'static str,
        to: u8,
        kind: OpKind,
    ) {
        if !events::is_inside() {
            events::raise(|| Event::Fallback { reason, errno, from, to: self.name(to), kind: Some(kind) });
        }
    }

    pub(super) fn name(&self, backend: u8) -> &'static str {
        self.core.lanes[usize::from(backend)].name
    }

    /// Tells of a backend that was demoted since `before`.
    pub(super) fn raise_demoted(&self, class: Class, backend: u8, errno: Errno, before: u32) {
        if before & 1 << backend == 0 && self.learned.demoted(class) & 1 << backend != 0 {
            events::raise(|| Event::Demoted { backend: self.name(backend), class, errno });
        }
    }

    /// The request is over: what waited for it may go.
    pub(super) fn finish(&self, request: &Request, outcome: Outcome) {
        // A close that was cancelled has not run: the descriptor is closed with the file.
        if request.kind() == OpKind::Close && outcome != Err(Errno(libc::ECANCELED)) {
            self.gone.store(true, Ordering::Release);
            self.twin.close();
        }
        let trail = &request.body().trail;
        let mut released = false;
        // A step is not counted: see `close`. Neither has a pass that is not.
        let counted = request.kind() != OpKind::Close && !request.is_stream();
        let enqueue = |next| {
            self.core.enqueue(next);
            released = true;
        };
        // What waits in the order gate is counted itself: the close that is found here does not come before it.
        let close = if counted { self.count_out(trail.pass, enqueue) } else { None };
        self.order.ended(trail.gate, trail.epoch, |next| {
            self.launch(next);
            released = true;
        });
        self.go_after(close, released);
    }

    /// A stream's step is over: what it came to is left with the stream, and its descriptor is let go.
    pub(super) fn end_step(&self, request: &mut Request, outcome: Outcome) {
        let (Some(stream), Some(fd)) = (&self.stream, self.descriptor()) else {
            unreachable!("only streams have steps")
        };
        // SAFETY: `Launch::step` has stored it, this is the one end of the request, and the backend has completed it. A count
        // was checked against the request's length, and is of bytes that were written.
        unsafe {
            let memory = request.take_payload::<Vec<u8>>();
            let trail = request.body().trail;
            let trace = Trace { served_by: self.name(trail.backend), fallbacks: trail.reasons };
            stream.end_step(request.kind(), memory, outcome, trace, trail.refusal());
        }
        if stream.let_go() {
            // SAFETY: the file was closed while this step had the descriptor, and nobody else closes it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}
