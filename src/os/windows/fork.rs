//! No process is the child of another one's memory here.

/// What elsewhere tells a child of a fork from the process that made it.
pub(crate) struct ForkGuard;

impl ForkGuard {
    pub(crate) fn new() -> Self {
        Self
    }

    /// Never.
    pub(crate) fn is_child(&self) -> bool {
        false
    }
}
