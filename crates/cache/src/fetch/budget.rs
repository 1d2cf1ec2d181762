//! The byte budgets that all buffers on the way of a read come from.
//!
//! Whoever is going to hold bytes in memory takes their number here first and keeps the [`MemoryPermit`] as long as
//! the bytes: under pressure readers wait, and the process does not grow. The budget counts bytes of objects;
//! what the client library holds beside them (a read buffer for each connection) is bounded by the number of
//! requests at once.
//!
//! Budgets of one process may have bytes in [`SharedBudget`]: each can always have the least that is its own, however much
//! the others hold, so that one whose source does not answer holds nobody up; what it takes beyond comes out of what all
//! have together. So the process holds no more than that, and the least of each that is being read.

use std::sync::Arc;

use super::Priority;
use super::priority_semaphore::{PriorityPermit, PrioritySemaphore};

/// Bytes that several budgets have together. Clones are the same bytes.
#[derive(Clone, Debug)]
pub struct SharedBudget {
    gate: Arc<PrioritySemaphore>,
    least_bytes: u64,
}

impl SharedBudget {
    /// `bytes` for all budgets together, and `least_bytes` for each alone.
    pub fn new(bytes: u64, least_bytes: u64) -> Self {
        Self {
            gate: PrioritySemaphore::new(bytes),
            least_bytes,
        }
    }
}

/// A budget of bytes. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct Budget {
    gate: Arc<PrioritySemaphore>,
    parts: Option<Parts>,
}

/// Where the bytes of a budget come from that has some in common with others.
#[derive(Clone, Debug)]
struct Parts {
    least: Arc<PrioritySemaphore>,
    common: Arc<PrioritySemaphore>,
}

/// A part of a budget, given back when it is dropped.
#[derive(Debug)]
#[must_use = "memory is given back as soon as it is dropped"]
pub struct MemoryPermit {
    own: PriorityPermit,
    part: Option<PriorityPermit>,
}

impl MemoryPermit {
    /// Takes `bytes` (or all there are) out of this into one of its own.
    pub fn split(&mut self, bytes: u64) -> Self {
        Self {
            own: self.own.split(bytes),
            part: self.part.as_mut().map(|part| part.split(bytes)),
        }
    }
}

impl Budget {
    /// A budget of `bytes` of its own.
    pub fn new(bytes: u64) -> Self {
        Self {
            gate: PrioritySemaphore::new(bytes),
            parts: None,
        }
    }

    /// A budget of at most `bytes`, which come out of what several have in common.
    pub fn sharing(bytes: u64, common: &SharedBudget) -> Self {
        Self {
            gate: PrioritySemaphore::new(bytes),
            parts: Some(Parts {
                least: PrioritySemaphore::new(common.least_bytes.min(bytes)),
                common: Arc::clone(&common.gate),
            }),
        }
    }

    /// Waits until `bytes` may be held. More than the whole budget is clamped to it; read-ahead to three
    /// quarters of it.
    ///
    /// Never call it while holding memory of the same budget.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue and nothing else.
    pub async fn acquire(&self, bytes: u64, priority: Priority) -> MemoryPermit {
        let own = self.gate.acquire(bytes, priority).await;
        let part = match &self.parts {
            Some(parts) => Some(parts.acquire(own.amount(), priority).await),
            None => None,
        };
        MemoryPermit { own, part }
    }

    /// Takes `bytes` if they are free and nobody waits for them.
    pub fn try_acquire(&self, bytes: u64, priority: Priority) -> Option<MemoryPermit> {
        let own = self.gate.try_acquire(bytes, priority)?;
        let part = match &self.parts {
            Some(parts) => Some(parts.try_acquire(own.amount(), priority)?),
            None => None,
        };
        Some(MemoryPermit { own, part })
    }

    /// The whole budget.
    pub fn capacity_bytes(&self) -> u64 {
        self.gate.capacity()
    }

    /// What is held now.
    pub fn used_bytes(&self) -> u64 {
        self.gate.used()
    }

    /// How many wait for bytes.
    pub fn waiting(&self) -> usize {
        let for_parts = self.parts.as_ref().map_or(0, |parts| parts.least.waiting());
        self.gate.waiting() + for_parts
    }
}

impl Parts {
    /// Of whichever has them first.
    async fn acquire(&self, bytes: u64, priority: Priority) -> PriorityPermit {
        if bytes > self.least.ceiling(priority) {
            return self.common.acquire(bytes, priority).await;
        }
        tokio::select! {
            biased;
            grant = self.least.acquire(bytes, priority) => grant,
            grant = self.common.acquire(bytes, priority) => grant,
        }
    }

    fn try_acquire(&self, bytes: u64, priority: Priority) -> Option<PriorityPermit> {
        let least = (bytes <= self.least.ceiling(priority))
            .then(|| self.least.try_acquire(bytes, priority))
            .flatten();
        least.or_else(|| self.common.try_acquire(bytes, priority))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;
    use proptest::prelude::*;
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;

    /// Longer than anything here takes.
    const GUARD: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn the_least_is_there_whatever_others_hold() {
        let common = SharedBudget::new(100, 10);
        let (one, two) = (Budget::sharing(1_000, &common), Budget::sharing(1_000, &common));
        let _all = one.acquire(100, Priority::Reader).await;
        let own = two.acquire(10, Priority::Reader).await;
        assert!(two.try_acquire(1, Priority::Reader).is_none());
        let mut next = Box::pin(two.acquire(5, Priority::Reader));
        assert!(next.as_mut().now_or_never().is_none());
        assert_eq!(two.waiting(), 1);
        drop(own);
        assert!(next.now_or_never().is_some(), "its own came back");
    }

    #[tokio::test]
    async fn what_all_have_goes_to_whoever_waits() {
        let common = SharedBudget::new(100, 10);
        let (one, two) = (Budget::sharing(1_000, &common), Budget::sharing(1_000, &common));
        let mut all = one.acquire(100, Priority::Reader).await;
        let mut large = Box::pin(two.acquire(50, Priority::Reader));
        assert!(large.as_mut().now_or_never().is_none());
        let half = all.split(50);
        assert!(large.as_mut().now_or_never().is_none());
        drop(half);
        assert!(large.now_or_never().is_some());
        assert_eq!((one.used_bytes(), two.used_bytes()), (50, 0));
    }

    #[tokio::test]
    async fn none_has_more_than_its_budget() {
        let common = SharedBudget::new(1_000, 10);
        let budget = Budget::sharing(50, &common);
        let held = budget.acquire(500, Priority::Reader).await;
        assert_eq!(budget.used_bytes(), 50);
        assert!(budget.try_acquire(1, Priority::Reader).is_none());
        drop(held);
        assert_eq!(common.gate.used(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Whatever is asked for and given up, all are served in the end, and everything comes back.
        #[test]
        fn everything_comes_back(wishes in proptest::collection::vec((0_usize..3, 1_u64..200, any::<bool>()), 1..60)) {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
            let common = SharedBudget::new(100, 20);
            let budgets: Vec<_> = (0..3).map(|_| Budget::sharing(150, &common)).collect();
            runtime.block_on(async {
                let mut tasks = JoinSet::new();
                for (whose, bytes, is_dropped) in wishes {
                    let budget = budgets[whose].clone();
                    tasks.spawn(async move {
                        let priority = if bytes % 2 == 0 { Priority::Reader } else { Priority::Background };
                        let wish = budget.acquire(bytes, priority);
                        if is_dropped {
                            drop(timeout(Duration::from_micros(bytes), wish).await);
                        } else {
                            let mut memory = timeout(GUARD, wish).await.unwrap();
                            let half = memory.split(bytes / 2);
                            tokio::task::yield_now().await;
                            drop((memory, half));
                        }
                    });
                }
                while let Some(task) = tasks.join_next().await {
                    task.unwrap();
                }
            });
            prop_assert_eq!(common.gate.used(), 0);
            for budget in &budgets {
                prop_assert_eq!((budget.used_bytes(), budget.parts.as_ref().unwrap().least.used()), (0, 0));
            }
        }
    }
}
