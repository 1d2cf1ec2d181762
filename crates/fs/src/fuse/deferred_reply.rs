//! A reply that waits for a task.

/// A reply that `fuser` does not answer with an error when its task is dropped: at a shutdown the request must stay
/// unanswered, for the successor. Only a panic is answered: no successor would receive the request before its reader ends.
pub(crate) struct DeferredReply<R>(Option<R>);

impl<R> DeferredReply<R> {
    pub(crate) const fn new(reply: R) -> Self {
        Self(Some(reply))
    }

    /// Sends the reply now, by `send`.
    pub(crate) fn send(mut self, send: impl FnOnce(R)) {
        if let Some(reply) = self.0.take() {
            send(reply);
        }
    }

    /// Leaves the request to the successor.
    pub(crate) fn leave_unanswered(self) {}
}

impl<R> Drop for DeferredReply<R> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::mem::forget(self.0.take());
        }
    }
}
