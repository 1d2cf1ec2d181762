use std::time::Duration;

use futures::FutureExt;
use proptest::prelude::*;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;

/// Longer than anything here takes: a test that needs it has found a lost wake-up.
const GUARD: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_waiting_reader_goes_before_read_ahead_that_came_first() {
    let gate = PrioritySemaphore::new(4);
    let all = gate.acquire(4, Priority::Reader).await;
    let mut ahead = Box::pin(gate.acquire(1, Priority::Background));
    let mut reader = Box::pin(gate.acquire(4, Priority::Reader));
    assert!(ahead.as_mut().now_or_never().is_none());
    assert!(reader.as_mut().now_or_never().is_none());
    drop(all);
    let granted = reader.as_mut().now_or_never().expect("it is the reader's turn");
    assert!(ahead.as_mut().now_or_never().is_none());
    drop(granted);
    assert!(ahead.as_mut().now_or_never().is_some());
}

#[tokio::test]
async fn read_ahead_leaves_a_quarter_to_readers() {
    let gate = PrioritySemaphore::new(100);
    let ahead = gate.try_acquire(75, Priority::Background);
    assert!(ahead.is_some());
    assert!(gate.try_acquire(1, Priority::Background).is_none());
    assert!(gate.try_acquire(25, Priority::Reader).is_some());
}

#[tokio::test]
async fn more_than_there_is_waits_for_all_of_it_and_not_for_ever() {
    let gate = PrioritySemaphore::new(10);
    let one = gate.acquire(1, Priority::Reader).await;
    let mut much = Box::pin(gate.acquire(u64::MAX, Priority::Reader));
    assert!(much.as_mut().now_or_never().is_none());
    drop(one);
    assert_eq!(much.await.amount(), 10);
    let ahead = gate.acquire(u64::MAX, Priority::Background).await;
    assert_eq!(ahead.amount(), 8);
}

#[tokio::test]
async fn a_waiter_that_goes_lets_those_behind_it_through() {
    let gate = PrioritySemaphore::new(10);
    let _held = gate.acquire(8, Priority::Reader).await;
    let mut large = Box::pin(gate.acquire(5, Priority::Reader));
    assert!(large.as_mut().now_or_never().is_none());
    let mut small = Box::pin(gate.acquire(1, Priority::Reader));
    assert!(
        small.as_mut().now_or_never().is_none(),
        "the order of coming holds"
    );
    drop(large);
    assert!(small.as_mut().now_or_never().is_some());
}

#[tokio::test]
async fn a_grant_that_nobody_takes_any_more_comes_back() {
    let gate = PrioritySemaphore::new(1);
    let held = gate.acquire(1, Priority::Reader).await;
    let mut first = Box::pin(gate.acquire(1, Priority::Reader));
    assert!(first.as_mut().now_or_never().is_none());
    drop(held);
    // Granted, and never looked at.
    drop(first);
    assert_eq!(gate.used(), 0);
    assert!(gate.try_acquire(1, Priority::Reader).is_some());
}

#[tokio::test]
async fn a_split_grant_is_given_back_in_parts() {
    let gate = PrioritySemaphore::new(10);
    let mut whole = gate.acquire(10, Priority::Reader).await;
    let part = whole.split(4);
    assert_eq!((whole.amount(), part.amount()), (6, 4));
    drop(part);
    assert_eq!(gate.used(), 6);
    let rest = whole.split(100);
    assert_eq!((whole.amount(), rest.amount()), (0, 6));
    drop((whole, rest));
    assert_eq!(gate.used(), 0);
}

#[tokio::test]
async fn a_smaller_gate_waits_until_enough_came_back() {
    let gate = PrioritySemaphore::new(4);
    let first = gate.acquire(2, Priority::Reader).await;
    let second = gate.acquire(2, Priority::Reader).await;
    gate.resize(2);
    drop(first);
    assert!(gate.try_acquire(1, Priority::Reader).is_none());
    drop(second);
    assert!(gate.try_acquire(2, Priority::Reader).is_some());
}

#[tokio::test]
async fn a_larger_gate_lets_waiters_through_at_once() {
    let gate = PrioritySemaphore::new(1);
    let _held = gate.acquire(1, Priority::Reader).await;
    let mut waiting = Box::pin(gate.acquire(1, Priority::Reader));
    assert!(waiting.as_mut().now_or_never().is_none());
    gate.resize(2);
    assert!(waiting.as_mut().now_or_never().is_some());
}

/// What one of many tasks does.
#[derive(Clone, Debug)]
struct Visit {
    amount: u64,
    priority: Priority,
    /// Goes away after so many looks, granted or not.
    patience: Option<u8>,
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
        .prop_map(|(amount, priority, patience, holds_for)| Visit {
            amount,
            priority,
            patience,
            holds_for,
        });
    proptest::collection::vec(visit, 1..60)
}

async fn visit(gate: Arc<PrioritySemaphore>, visit: Visit) {
    let mut grant = Box::pin(gate.acquire(visit.amount, visit.priority));
    let granted = match visit.patience {
        None => grant.await,
        Some(looks) => {
            let mut granted = None;
            for _ in 0..looks {
                granted = grant.as_mut().now_or_never();
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
        assert!(gate.used() <= gate.capacity());
        tokio::task::yield_now().await;
    }
    drop(granted);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn it_is_never_exceeded_and_everybody_gets_through(capacity in 1_u64..30, visits in visits()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        runtime.block_on(async {
            let gate = PrioritySemaphore::new(capacity);
            let mut tasks = JoinSet::new();
            for one in visits {
                tasks.spawn(visit(Arc::clone(&gate), one));
            }
            let all = async {
                while let Some(ended) = tasks.join_next().await {
                    ended.unwrap();
                }
            };
            timeout(GUARD, all).await.expect("nobody waits for ever");
            assert_eq!(gate.used(), 0);
            assert!(gate.try_acquire(capacity, Priority::Reader).is_some());
        });
    }
}
