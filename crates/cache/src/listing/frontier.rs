//! The prefixes that were found and are not yet listed.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Prefixes to list, shared by all workers. Done when none is queued and no worker holds one.
#[derive(Debug)]
pub(super) struct Frontier {
    state: Mutex<State>,
    changed: Notify,
    max_queued: usize,
}

#[derive(Debug)]
struct State {
    /// Last in, first out: the deepest first, so that few are queued.
    queued: Vec<String>,
    in_progress: usize,
}

/// A prefix that a worker is listing; done when dropped.
#[derive(Debug)]
pub(super) struct ClaimedPrefix {
    pub(super) prefix: String,
    frontier: Arc<Frontier>,
}

impl Frontier {
    pub(super) fn new(root: String, max_queued: usize) -> Self {
        Self {
            state: Mutex::new(State {
                queued: vec![root],
                in_progress: 0,
            }),
            changed: Notify::new(),
            max_queued,
        }
    }

    /// Returns the next prefix, as soon as there is one; `None` when all are done.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn take(self: &Arc<Self>) -> Option<ClaimedPrefix> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the check, so that no change is missed in between.
            changed.as_mut().enable();
            {
                let mut state = self.state.lock();
                if let Some(prefix) = state.queued.pop() {
                    state.in_progress += 1;
                    return Some(ClaimedPrefix {
                        prefix,
                        frontier: Arc::clone(self),
                    });
                }
                if state.in_progress == 0 {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Queues a prefix for the next free worker; returns it when the queue is full.
    pub(super) fn push(&self, prefix: String) -> Result<(), String> {
        {
            let mut state = self.state.lock();
            if state.queued.len() >= self.max_queued {
                return Err(prefix);
            }
            state.queued.push(prefix);
        }
        self.changed.notify_waiters();
        Ok(())
    }

    /// Returns the number of queued prefixes.
    pub(super) fn queued(&self) -> usize {
        self.state.lock().queued.len()
    }

    /// Returns the number of prefixes that are not done.
    pub(super) fn unfinished(&self) -> usize {
        let state = self.state.lock();
        state.queued.len() + state.in_progress
    }
}

impl Drop for ClaimedPrefix {
    fn drop(&mut self) {
        self.frontier.state.lock().in_progress -= 1;
        self.frontier.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_ends_when_the_last_prefix_was_listed_and_not_before() {
        let frontier = Arc::new(Frontier::new("a/".to_owned(), 10));
        let first = frontier.take().await.unwrap();
        let other = Arc::clone(&frontier);
        let mut waits =
            JoinSetOfOne::spawn(async move { other.take().await.map(|taken| taken.prefix.clone()) });
        frontier.push("a/b/".to_owned()).unwrap();
        assert_eq!(waits.join().await.as_deref(), Some("a/b/"));
        drop(first);
        assert!(frontier.take().await.is_none());
    }

    #[tokio::test]
    async fn all_waiters_are_woken_at_the_end() {
        let frontier = Arc::new(Frontier::new("a/".to_owned(), 10));
        let only = frontier.take().await.unwrap();
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let frontier = Arc::clone(&frontier);
            waiting.spawn(async move { frontier.take().await.is_none() });
        }
        tokio::task::yield_now().await;
        drop(only);
        while let Some(ended) = waiting.join_next().await {
            assert!(ended.unwrap());
        }
    }

    #[test]
    fn a_prefix_beyond_the_limit_is_returned() {
        let frontier = Frontier::new("a/".to_owned(), 1);
        assert_eq!(frontier.push("b/".to_owned()), Err("b/".to_owned()));
        assert_eq!(frontier.queued(), 1);
    }

    struct JoinSetOfOne<T>(tokio::task::JoinSet<T>);

    impl<T: Send + 'static> JoinSetOfOne<T> {
        fn spawn(task: impl Future<Output = T> + Send + 'static) -> Self {
            let mut set = tokio::task::JoinSet::new();
            set.spawn(task);
            Self(set)
        }

        async fn join(&mut self) -> T {
            self.0.join_next().await.unwrap().unwrap()
        }
    }
}
