//! What is put right however a scope is left, a panic in a future included.

pub(super) struct OnExit<F: FnMut()>(pub(super) F);

impl<F: FnMut()> Drop for OnExit<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
