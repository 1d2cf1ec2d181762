//! The byte budgets of all buffers on the read path.
//!
//! A caller that will hold bytes in memory reserves them here first and keeps the [`MemoryPermit`] as long as the
//! bytes: under pressure readers wait, and the process does not grow. The budget counts bytes of objects; what the
//! client library holds beside them (a read buffer for each connection) is bounded by the number of concurrent
//! requests.
//!
//! The budgets of a process may draw on one [`SharedBudget`]: each has a minimum of its own that is available
//! whatever the others hold, so that a Dataset whose source does not answer blocks no other; what it takes beyond
//! the minimum comes out of the shared bytes. So the process holds at most the shared bytes plus the minimum of
//! each Dataset that is read.

use std::sync::Arc;

use super::Priority;
use super::priority_semaphore::{PriorityPermit, PrioritySemaphore};

/// Bytes that several budgets share. Clones share the same bytes.
#[derive(Clone, Debug)]
pub struct SharedBudget {
    semaphore: Arc<PrioritySemaphore>,
    min_bytes: u64,
}

impl SharedBudget {
    /// Returns `bytes` for all budgets together, and `min_bytes` for each budget alone.
    pub fn new(bytes: u64, min_bytes: u64) -> Self {
        Self {
            semaphore: PrioritySemaphore::new(bytes),
            min_bytes,
        }
    }
}

/// A budget of bytes. Clones share one budget.
#[derive(Clone, Debug)]
pub struct Budget {
    semaphore: Arc<PrioritySemaphore>,
    pools: Option<SharedPools>,
}

/// The two pools of a budget that draws on a [`SharedBudget`].
#[derive(Clone, Debug)]
struct SharedPools {
    minimum: Arc<PrioritySemaphore>,
    shared: Arc<PrioritySemaphore>,
}

/// Bytes of a budget, released when dropped.
#[derive(Debug)]
#[must_use = "memory is released as soon as the permit is dropped"]
pub struct MemoryPermit {
    own: PriorityPermit,
    pool: Option<PriorityPermit>,
}

impl MemoryPermit {
    /// Splits `bytes` (at most all) off into a permit of their own.
    pub fn split(&mut self, bytes: u64) -> Self {
        Self {
            own: self.own.split(bytes),
            pool: self.pool.as_mut().map(|pool| pool.split(bytes)),
        }
    }
}

impl Budget {
    /// Returns a budget of `bytes` of its own.
    pub fn new(bytes: u64) -> Self {
        Self {
            semaphore: PrioritySemaphore::new(bytes),
            pools: None,
        }
    }

    /// Returns a budget of at most `bytes`, drawn from `shared`.
    pub fn sharing(bytes: u64, shared: &SharedBudget) -> Self {
        Self {
            semaphore: PrioritySemaphore::new(bytes),
            pools: Some(SharedPools {
                minimum: PrioritySemaphore::new(shared.min_bytes.min(bytes)),
                shared: Arc::clone(&shared.semaphore),
            }),
        }
    }

    /// Waits until `bytes` may be held. More than the budget is clamped to it; background work to three quarters of
    /// it.
    ///
    /// Never call it while holding memory of the same budget.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the queue and takes nothing.
    pub async fn acquire(&self, bytes: u64, priority: Priority) -> MemoryPermit {
        let own = self.semaphore.acquire(bytes, priority).await;
        let pool = match &self.pools {
            Some(pools) => Some(pools.acquire(own.amount(), priority).await),
            None => None,
        };
        MemoryPermit { own, pool }
    }

    /// Takes `bytes` if they are free and no earlier request waits.
    pub fn try_acquire(&self, bytes: u64, priority: Priority) -> Option<MemoryPermit> {
        let own = self.semaphore.try_acquire(bytes, priority)?;
        let pool = match &self.pools {
            Some(pools) => Some(pools.try_acquire(own.amount(), priority)?),
            None => None,
        };
        Some(MemoryPermit { own, pool })
    }

    /// Returns the bytes of the budget.
    pub fn capacity_bytes(&self) -> u64 {
        self.semaphore.capacity()
    }

    /// Returns the bytes held now.
    pub fn used_bytes(&self) -> u64 {
        self.semaphore.used()
    }

    /// Returns how many requests wait for bytes.
    pub fn waiting(&self) -> usize {
        let for_pools = self.pools.as_ref().map_or(0, |pools| pools.minimum.waiting());
        self.semaphore.waiting() + for_pools
    }
}

impl SharedPools {
    /// Takes `bytes` of whichever pool grants them first.
    async fn acquire(&self, bytes: u64, priority: Priority) -> PriorityPermit {
        if bytes > self.minimum.ceiling(priority) {
            return self.shared.acquire(bytes, priority).await;
        }
        tokio::select! {
            biased;
            permit = self.minimum.acquire(bytes, priority) => permit,
            permit = self.shared.acquire(bytes, priority) => permit,
        }
    }

    fn try_acquire(&self, bytes: u64, priority: Priority) -> Option<PriorityPermit> {
        let minimum = (bytes <= self.minimum.ceiling(priority))
            .then(|| self.minimum.try_acquire(bytes, priority))
            .flatten();
        minimum.or_else(|| self.shared.try_acquire(bytes, priority))
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

    /// Longer than any test here takes.
    const GUARD: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn the_minimum_is_available_whatever_others_hold() {
        let shared = SharedBudget::new(100, 10);
        let (one, two) = (Budget::sharing(1_000, &shared), Budget::sharing(1_000, &shared));
        let _all = one.acquire(100, Priority::Reader).await;
        let own = two.acquire(10, Priority::Reader).await;
        assert!(two.try_acquire(1, Priority::Reader).is_none());
        let mut next = Box::pin(two.acquire(5, Priority::Reader));
        assert!(next.as_mut().now_or_never().is_none());
        assert_eq!(two.waiting(), 1);
        drop(own);
        assert!(next.now_or_never().is_some(), "its own bytes were released");
    }

    #[tokio::test]
    async fn released_shared_bytes_are_granted_to_a_waiter() {
        let shared = SharedBudget::new(100, 10);
        let (one, two) = (Budget::sharing(1_000, &shared), Budget::sharing(1_000, &shared));
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
        let shared = SharedBudget::new(1_000, 10);
        let budget = Budget::sharing(50, &shared);
        let held = budget.acquire(500, Priority::Reader).await;
        assert_eq!(budget.used_bytes(), 50);
        assert!(budget.try_acquire(1, Priority::Reader).is_none());
        drop(held);
        assert_eq!(shared.semaphore.used(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Whatever is requested and cancelled, every request is granted in the end, and every byte is released.
        #[test]
        fn every_byte_is_released(requests in proptest::collection::vec((0_usize..3, 1_u64..200, any::<bool>()), 1..60)) {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
            let shared = SharedBudget::new(100, 20);
            let budgets: Vec<_> = (0..3).map(|_| Budget::sharing(150, &shared)).collect();
            runtime.block_on(async {
                let mut tasks = JoinSet::new();
                for (index, bytes, is_dropped) in requests {
                    let budget = budgets[index].clone();
                    tasks.spawn(async move {
                        let priority = if bytes % 2 == 0 { Priority::Reader } else { Priority::Background };
                        let acquire = budget.acquire(bytes, priority);
                        if is_dropped {
                            drop(timeout(Duration::from_micros(bytes), acquire).await);
                        } else {
                            let mut memory = timeout(GUARD, acquire).await.unwrap();
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
            prop_assert_eq!(shared.semaphore.used(), 0);
            for budget in &budgets {
                prop_assert_eq!((budget.used_bytes(), budget.pools.as_ref().unwrap().minimum.used()), (0, 0));
            }
        }
    }
}
