//! A reply that waits for somebody's work.

/// Keeps `fuser` from answering with an error when the work is dropped: at a shutdown the request must stay unanswered,
/// for the successor. Only a panic is answered, since no successor would hear of it before the reader gives up.
pub(crate) struct Pending<R>(Option<R>);

impl<R> Pending<R> {
    pub(crate) const fn new(reply: R) -> Self {
        Self(Some(reply))
    }

    /// The reply, to answer it now.
    pub(crate) fn answer(mut self, answer: impl FnOnce(R)) {
        if let Some(reply) = self.0.take() {
            answer(reply);
        }
    }

    /// Leaves the request to the successor.
    pub(crate) fn leave(self) {}
}

impl<R> Drop for Pending<R> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::mem::forget(self.0.take());
        }
    }
}
