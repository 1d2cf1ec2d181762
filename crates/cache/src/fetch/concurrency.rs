//! The number of requests in flight at the source: one more for a round of successes, a third less when the source
//! throttles.
//!
//! Additive increase and multiplicative decrease, as in TCP: many clients of one source converge on a fair share
//! without knowing each other.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Priority;
use super::priority_semaphore::{PriorityPermit, PrioritySemaphore};

/// The factor of the limit after a throttled response.
const DECREASE: f64 = 0.7;

/// Bounds of the number of requests in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConcurrencyOptions {
    /// The limit never falls below.
    pub min: u32,
    /// The limit never exceeds this, and starts here.
    pub max: u32,
    /// Throttled responses within this time after a decrease belong to the same overload.
    pub decrease_interval: Duration,
}

impl Default for ConcurrencyOptions {
    /// 96 requests in flight (72 of them background) fill a 10 Gbit/s link with 1 MiB blocks at 60 ms each. The
    /// responses to one burst arrive within a second.
    fn default() -> Self {
        Self {
            min: 2,
            max: 96,
            decrease_interval: Duration::from_secs(1),
        }
    }
}

/// The adaptive limit of requests in flight.
#[derive(Debug)]
pub struct Concurrency {
    semaphore: Arc<PrioritySemaphore>,
    options: ConcurrencyOptions,
    adaptation: Mutex<Adaptation>,
}

#[derive(Debug)]
struct Adaptation {
    limit: f64,
    decreased: Option<Instant>,
}

impl Concurrency {
    /// Returns a limit that starts at its maximum.
    pub fn new(options: ConcurrencyOptions) -> Self {
        let max = options.max.max(options.min).max(1);
        let options = ConcurrencyOptions {
            min: options.min.max(1),
            max,
            ..options
        };
        Self {
            semaphore: PrioritySemaphore::new(u64::from(max)),
            options,
            adaptation: Mutex::new(Adaptation {
                limit: f64::from(max),
                decreased: None,
            }),
        }
    }

    /// Waits for a permit.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the queue.
    pub async fn acquire(&self, priority: Priority) -> PriorityPermit {
        self.semaphore.acquire(1, priority).await
    }

    /// Takes a permit if one is free and no earlier request waits.
    pub fn try_acquire(&self, priority: Priority) -> Option<PriorityPermit> {
        self.semaphore.try_acquire(1, priority)
    }

    /// Records a good response.
    pub fn record_success(&self) {
        let max = f64::from(self.options.max);
        let mut adaptation = self.adaptation.lock();
        if adaptation.limit >= max {
            return;
        }
        adaptation.limit = (adaptation.limit + 1.0 / adaptation.limit).min(max);
        let limit = floor(adaptation.limit);
        drop(adaptation);
        self.semaphore.resize(limit);
    }

    /// Records a throttled response.
    pub fn record_throttle(&self) {
        let now = Instant::now();
        let mut adaptation = self.adaptation.lock();
        if adaptation
            .decreased
            .is_some_and(|at| now.duration_since(at) < self.options.decrease_interval)
        {
            return;
        }
        adaptation.decreased = Some(now);
        adaptation.limit = (adaptation.limit * DECREASE).max(f64::from(self.options.min));
        let limit = floor(adaptation.limit);
        drop(adaptation);
        self.semaphore.resize(limit);
    }

    /// Returns the current limit.
    pub fn limit(&self) -> u64 {
        self.semaphore.capacity()
    }

    /// Returns the requests in flight.
    pub fn in_flight(&self) -> u64 {
        self.semaphore.used()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the limit lies between two u32 values, both at least one"
)]
fn floor(limit: f64) -> u64 {
    limit as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(max: u32) -> Concurrency {
        Concurrency::new(ConcurrencyOptions {
            min: 2,
            max,
            decrease_interval: Duration::from_secs(1),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_throttled_answers_lowers_the_limit_once() {
        let concurrency = limited(10);
        for _ in 0..10 {
            concurrency.record_throttle();
        }
        assert_eq!(concurrency.limit(), 7);
        tokio::time::advance(Duration::from_secs(2)).await;
        concurrency.record_throttle();
        assert_eq!(concurrency.limit(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_stays_between_its_bounds() {
        let concurrency = limited(10);
        for _ in 0..50 {
            tokio::time::advance(Duration::from_secs(2)).await;
            concurrency.record_throttle();
        }
        assert_eq!(concurrency.limit(), 2);
        for _ in 0..1000 {
            concurrency.record_success();
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
