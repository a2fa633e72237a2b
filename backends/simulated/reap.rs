//! Completions: time passes, and what is due is done.

use super::Simulated;
use super::disk::State;
use super::trace::What;
use crate::backend::{Completions, Wait};
use crate::sync::lock;

impl Simulated {
    /// Whether something is due, or would be if time went on.
    pub(super) fn has_due(&self) -> bool {
        let state = lock(&self.shared.state);
        let next = state.queues.get(&self.number).and_then(|queue| queue.next());
        next.is_some_and(|due| !state.settings.manual || due <= state.now)
    }

    /// Lets the time come at which the next request is due, and serves all that are due then. Whoever reaps here has nothing
    /// better to do than to wait, so that nobody sees that no time has passed.
    pub(super) fn collect(&self, wait: Wait, completions: &mut Completions<'_>) -> usize {
        let mut state = lock(&self.shared.state);
        let Some(next) = state.queues.get(&self.number).and_then(|queue| queue.next()) else { return 0 };
        if !state.settings.manual {
            state.now = state.now.max(next);
        }
        let mut count = 0;
        while count < wait.max {
            let now = state.now;
            let Some(entry) = state.queues.get_mut(&self.number).and_then(|queue| queue.pop(now)) else { break };
            let (request, outcome) = state.finish(entry);
            completions.finish(request, outcome);
            count += 1;
        }
        count
    }
}

impl State {
    fn finish(&mut self, mut entry: super::queue::Entry) -> (crate::request::Request, crate::completion::Outcome) {
        let outcome = match entry.outcome {
            Some(outcome) => outcome,
            None => self.serve(&mut entry),
        };
        self.note(What::Answered { number: entry.number, outcome });
        (entry.request, outcome)
    }
}
