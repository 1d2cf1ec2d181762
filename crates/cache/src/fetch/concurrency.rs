//! How many requests are at the source at once: one more for a round of successes, a third less when the
//! source says that it is too much.
//!
//! Additive increase and multiplicative decrease, as TCP does it: with many clients on one source it settles
//! on a fair share without anybody knowing the others.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Priority;
use super::priority_semaphore::{PriorityPermit, PrioritySemaphore};

/// What is left of the limit when the source throttles.
const DECREASE: f64 = 0.7;

/// Bounds of the number of requests at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConcurrencyOptions {
    /// The limit never sinks below.
    pub min: u32,
    /// The limit never rises above, and starts here.
    pub max: u32,
    /// Throttled answers within this time of a decrease are answers to the same excess.
    pub settle: Duration,
}

impl Default for ConcurrencyOptions {
    /// 96 requests at once (72 of them read-ahead) fill a 10 Gbit/s link with 1 MiB blocks at 60 ms each. What a
    /// burst of them provoked is answered within a second.
    fn default() -> Self {
        Self {
            min: 2,
            max: 96,
            settle: Duration::from_secs(1),
        }
    }
}

/// The number of requests that may be at the source at once.
#[derive(Debug)]
pub struct Concurrency {
    gate: Arc<PrioritySemaphore>,
    options: ConcurrencyOptions,
    adaption: Mutex<Adaption>,
}

#[derive(Debug)]
struct Adaption {
    limit: f64,
    decreased: Option<Instant>,
}

impl Concurrency {
    /// Starts at the highest limit.
    pub fn new(options: ConcurrencyOptions) -> Self {
        let max = options.max.max(options.min).max(1);
        let options = ConcurrencyOptions {
            min: options.min.max(1),
            max,
            ..options
        };
        Self {
            gate: PrioritySemaphore::new(u64::from(max)),
            options,
            adaption: Mutex::new(Adaption {
                limit: f64::from(max),
                decreased: None,
            }),
        }
    }

    /// Waits for a place.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue.
    pub async fn acquire(&self, priority: Priority) -> PriorityPermit {
        self.gate.acquire(1, priority).await
    }

    /// Takes a place if one is free and nobody waits for it.
    pub fn try_acquire(&self, priority: Priority) -> Option<PriorityPermit> {
        self.gate.try_acquire(1, priority)
    }

    /// A request was answered as it should be.
    pub fn succeeded(&self) {
        let max = f64::from(self.options.max);
        let mut adaption = self.adaption.lock();
        if adaption.limit >= max {
            return;
        }
        adaption.limit = (adaption.limit + 1.0 / adaption.limit).min(max);
        let limit = whole(adaption.limit);
        drop(adaption);
        self.gate.resize(limit);
    }

    /// The source asked for fewer requests.
    pub fn throttled(&self) {
        let now = Instant::now();
        let mut adaption = self.adaption.lock();
        if adaption
            .decreased
            .is_some_and(|at| now.duration_since(at) < self.options.settle)
        {
            return;
        }
        adaption.decreased = Some(now);
        adaption.limit = (adaption.limit * DECREASE).max(f64::from(self.options.min));
        let limit = whole(adaption.limit);
        drop(adaption);
        self.gate.resize(limit);
    }

    /// The limit of now.
    pub fn limit(&self) -> u64 {
        self.gate.capacity()
    }

    /// Requests at the source now.
    pub fn in_flight(&self) -> u64 {
        self.gate.used()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the limit lies between two u32 values, both at least one"
)]
fn whole(limit: f64) -> u64 {
    limit as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(max: u32) -> Concurrency {
        Concurrency::new(ConcurrencyOptions {
            min: 2,
            max,
            settle: Duration::from_secs(1),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_throttled_answers_lowers_the_limit_once() {
        let concurrency = limited(10);
        for _ in 0..10 {
            concurrency.throttled();
        }
        assert_eq!(concurrency.limit(), 7);
        tokio::time::advance(Duration::from_secs(2)).await;
        concurrency.throttled();
        assert_eq!(concurrency.limit(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_stays_between_its_bounds() {
        let concurrency = limited(10);
        for _ in 0..50 {
            tokio::time::advance(Duration::from_secs(2)).await;
            concurrency.throttled();
        }
        assert_eq!(concurrency.limit(), 2);
        for _ in 0..1000 {
            concurrency.succeeded();
        }
        assert_eq!(concurrency.limit(), 10);
    }

    #[tokio::test]
    async fn no_more_requests_start_than_the_limit_allows() {
        let concurrency = limited(2);
        let first = concurrency.try_acquire(Priority::Reader);
        let second = concurrency.try_acquire(Priority::Reader);
        assert!(first.is_some() && second.is_some());
        assert!(concurrency.try_acquire(Priority::Reader).is_none());
        drop(first);
        assert!(concurrency.try_acquire(Priority::Reader).is_some());
    }
}
