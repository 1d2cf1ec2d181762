//! The prefixes that are known and not yet listed.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Prefixes to list, shared by all workers. It is done when none waits and none is in a worker's hands.
#[derive(Debug)]
pub(super) struct Frontier {
    state: Mutex<State>,
    changed: Notify,
    most: usize,
}

#[derive(Debug)]
struct State {
    /// Last in, first out: the deepest first, so that few wait.
    waiting: Vec<String>,
    taken: usize,
}

/// A prefix in a worker's hands.
#[derive(Debug)]
pub(super) struct ClaimedPrefix {
    pub(super) prefix: String,
    frontier: Arc<Frontier>,
}

impl Frontier {
    pub(super) fn new(root: String, most: usize) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: vec![root],
                taken: 0,
            }),
            changed: Notify::new(),
            most,
        }
    }

    /// The next prefix, as soon as there is one; `None` when there will be none.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn take(self: &Arc<Self>) -> Option<ClaimedPrefix> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // In line before the look, so that no change goes by in between.
            changed.as_mut().enable();
            {
                let mut state = self.state.lock();
                if let Some(prefix) = state.waiting.pop() {
                    state.taken += 1;
                    return Some(ClaimedPrefix {
                        prefix,
                        frontier: Arc::clone(self),
                    });
                }
                if state.taken == 0 {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Leaves a prefix to whoever is free; gives it back when there are too many.
    pub(super) fn leave(&self, prefix: String) -> Result<(), String> {
        {
            let mut state = self.state.lock();
            if state.waiting.len() >= self.most {
                return Err(prefix);
            }
            state.waiting.push(prefix);
        }
        self.changed.notify_waiters();
        Ok(())
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// How many are not done.
    pub(super) fn open(&self) -> usize {
        let state = self.state.lock();
        state.waiting.len() + state.taken
    }
}

impl Drop for ClaimedPrefix {
    fn drop(&mut self) {
        self.frontier.state.lock().taken -= 1;
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
        frontier.leave("a/b/".to_owned()).unwrap();
        assert_eq!(waits.join().await.as_deref(), Some("a/b/"));
        drop(first);
        assert!(frontier.take().await.is_none());
    }

    #[tokio::test]
    async fn all_who_wait_learn_of_the_end() {
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
    fn more_than_the_most_are_given_back() {
        let frontier = Frontier::new("a/".to_owned(), 1);
        assert_eq!(frontier.leave("b/".to_owned()), Err("b/".to_owned()));
        assert_eq!(frontier.waiting(), 1);
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
