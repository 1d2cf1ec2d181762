use std::time::Duration;

use futures::FutureExt;
use proptest::prelude::*;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;

/// Longer than any test here takes: a test that reaches it has found a lost wake-up.
const GUARD: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_waiting_reader_is_granted_before_earlier_background_work() {
    let semaphore = PrioritySemaphore::new(4);
    let all = semaphore.acquire(4, Priority::Reader).await;
    let mut ahead = Box::pin(semaphore.acquire(1, Priority::Background));
    let mut reader = Box::pin(semaphore.acquire(4, Priority::Reader));
    assert!(ahead.as_mut().now_or_never().is_none());
    assert!(reader.as_mut().now_or_never().is_none());
    drop(all);
    let granted = reader.as_mut().now_or_never().expect("it is the reader's turn");
    assert!(ahead.as_mut().now_or_never().is_none());
    drop(granted);
    assert!(ahead.as_mut().now_or_never().is_some());
}

#[tokio::test]
async fn background_work_leaves_a_quarter_to_readers() {
    let semaphore = PrioritySemaphore::new(100);
    let ahead = semaphore.try_acquire(75, Priority::Background);
    assert!(ahead.is_some());
    assert!(semaphore.try_acquire(1, Priority::Background).is_none());
    assert!(semaphore.try_acquire(25, Priority::Reader).is_some());
}

#[tokio::test]
async fn more_than_the_capacity_waits_for_all_of_it_and_not_for_ever() {
    let semaphore = PrioritySemaphore::new(10);
    let one = semaphore.acquire(1, Priority::Reader).await;
    let mut much = Box::pin(semaphore.acquire(u64::MAX, Priority::Reader));
    assert!(much.as_mut().now_or_never().is_none());
    drop(one);
    assert_eq!(much.await.amount(), 10);
    let ahead = semaphore.acquire(u64::MAX, Priority::Background).await;
    assert_eq!(ahead.amount(), 8);
}

#[tokio::test]
async fn a_dropped_waiter_lets_those_behind_it_through() {
    let semaphore = PrioritySemaphore::new(10);
    let _held = semaphore.acquire(8, Priority::Reader).await;
    let mut large = Box::pin(semaphore.acquire(5, Priority::Reader));
    assert!(large.as_mut().now_or_never().is_none());
    let mut small = Box::pin(semaphore.acquire(1, Priority::Reader));
    assert!(
        small.as_mut().now_or_never().is_none(),
        "served in order of arrival"
    );
    drop(large);
    assert!(small.as_mut().now_or_never().is_some());
}

#[tokio::test]
async fn a_permit_that_is_never_received_is_released() {
    let semaphore = PrioritySemaphore::new(1);
    let held = semaphore.acquire(1, Priority::Reader).await;
    let mut first = Box::pin(semaphore.acquire(1, Priority::Reader));
    assert!(first.as_mut().now_or_never().is_none());
    drop(held);
    // Granted, and never received.
    drop(first);
    assert_eq!(semaphore.used(), 0);
    assert!(semaphore.try_acquire(1, Priority::Reader).is_some());
}

#[tokio::test]
async fn a_split_permit_is_released_in_parts() {
    let semaphore = PrioritySemaphore::new(10);
    let mut whole = semaphore.acquire(10, Priority::Reader).await;
    let part = whole.split(4);
    assert_eq!((whole.amount(), part.amount()), (6, 4));
    drop(part);
    assert_eq!(semaphore.used(), 6);
    let rest = whole.split(100);
    assert_eq!((whole.amount(), rest.amount()), (0, 6));
    drop((whole, rest));
    assert_eq!(semaphore.used(), 0);
}

#[tokio::test]
async fn a_smaller_semaphore_waits_until_enough_was_released() {
    let semaphore = PrioritySemaphore::new(4);
    let first = semaphore.acquire(2, Priority::Reader).await;
    let second = semaphore.acquire(2, Priority::Reader).await;
    semaphore.resize(2);
    drop(first);
    assert!(semaphore.try_acquire(1, Priority::Reader).is_none());
    drop(second);
    assert!(semaphore.try_acquire(2, Priority::Reader).is_some());
}

#[tokio::test]
async fn a_larger_semaphore_grants_waiters_immediately() {
    let semaphore = PrioritySemaphore::new(1);
    let _held = semaphore.acquire(1, Priority::Reader).await;
    let mut waiting = Box::pin(semaphore.acquire(1, Priority::Reader));
    assert!(waiting.as_mut().now_or_never().is_none());
    semaphore.resize(2);
    assert!(waiting.as_mut().now_or_never().is_some());
}

/// What one of many tasks does.
#[derive(Clone, Debug)]
struct Visit {
    amount: u64,
    priority: Priority,
    /// Dropped after so many polls, granted or not.
    polls_before_drop: Option<u8>,
    holds_for: u8,
}

fn visits() -> impl Strategy<Value = Vec<Visit>> {
    let priority = prop_oneof![Just(Priority::Reader), Just(Priority::Background)];
    let visit = (
        0_u64..40,
        priority,
        proptest::option::weighted(0.3, 0_u8..4),
        0_u8..4,
    )
        .prop_map(|(amount, priority, polls_before_drop, holds_for)| Visit {
            amount,
            priority,
            polls_before_drop,
            holds_for,
        });
    proptest::collection::vec(visit, 1..60)
}

async fn visit(semaphore: Arc<PrioritySemaphore>, visit: Visit) {
    let mut permit = Box::pin(semaphore.acquire(visit.amount, visit.priority));
    let granted = match visit.polls_before_drop {
        None => permit.await,
        Some(polls) => {
            let mut granted = None;
            for _ in 0..polls {
                granted = permit.as_mut().now_or_never();
                if granted.is_some() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            match granted {
                Some(granted) => granted,
                None => return,
            }
        }
    };
    for _ in 0..visit.holds_for {
        assert!(semaphore.used() <= semaphore.capacity());
        tokio::task::yield_now().await;
    }
    drop(granted);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_capacity_is_never_exceeded_and_every_waiter_is_granted(capacity in 1_u64..30, visits in visits()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        runtime.block_on(async {
            let semaphore = PrioritySemaphore::new(capacity);
            let mut tasks = JoinSet::new();
            for one in visits {
                tasks.spawn(visit(Arc::clone(&semaphore), one));
            }
            let all = async {
                while let Some(ended) = tasks.join_next().await {
                    ended.unwrap();
                }
            };
            timeout(GUARD, all).await.expect("no waiter hangs");
            assert_eq!(semaphore.used(), 0);
            assert!(semaphore.try_acquire(capacity, Priority::Reader).is_some());
        });
    }
}
