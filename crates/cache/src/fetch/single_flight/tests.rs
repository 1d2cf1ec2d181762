use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt;
use proptest::prelude::*;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;

const GUARD: Duration = Duration::from_secs(60);

fn flights() -> SingleFlight<u32, u32> {
    SingleFlight::new(TaskTracker::new())
}

#[tokio::test]
async fn many_who_want_the_same_cause_one_fetch() {
    let flights = Arc::new(flights());
    let fetches = Arc::new(AtomicU32::new(0));
    let complete = Arc::new(Notify::new());
    let mut waiters = JoinSet::new();
    for _ in 0..50 {
        let (flights, fetches, complete) =
            (Arc::clone(&flights), Arc::clone(&fetches), Arc::clone(&complete));
        waiters.spawn(async move {
            flights
                .join(1, || async move {
                    fetches.fetch_add(1, Ordering::SeqCst);
                    complete.notified().await;
                    7
                })
                .await
        });
    }
    // All have joined before it completes: the test's runtime has one thread, and each task ran to its wait.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    complete.notify_one();
    while let Some(result) = waiters.join_next().await {
        assert_eq!(result.unwrap(), Ok(7));
    }
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
    assert!(!flights.is_in_flight(&1));
}

#[tokio::test]
async fn the_first_waiter_may_be_dropped() {
    let flights = flights();
    let complete = Arc::new(Notify::new());
    let waits = Arc::clone(&complete);
    let mut first = Box::pin(flights.join(1, || async move {
        waits.notified().await;
        7
    }));
    assert!(first.as_mut().now_or_never().is_none());
    let mut second = Box::pin(flights.join(1, || async { unreachable!("one is in flight") }));
    assert!(second.as_mut().now_or_never().is_none());
    drop(first);
    complete.notify_one();
    assert_eq!(timeout(GUARD, second).await.unwrap(), Ok(7));
}

#[tokio::test]
async fn a_flight_that_panics_is_lost_and_the_next_one_starts_again() {
    let flights = flights();
    let lost = flights.join(1, || async { panic!("a test's panic") }).await;
    assert_eq!(lost, Err(FlightLost));
    assert_eq!(flights.join(1, || async { 8 }).await, Ok(8));
}

#[tokio::test]
async fn different_keys_fly_apart() {
    let flights = flights();
    let (one, two) = tokio::join!(flights.join(1, || async { 1 }), flights.join(2, || async { 2 }));
    assert_eq!((one, two), (Ok(1), Ok(2)));
}

#[tokio::test]
async fn a_launched_flight_completes_without_waiters() {
    let tasks = TaskTracker::new();
    let flights: SingleFlight<u32, u32> = SingleFlight::new(tasks.clone());
    let landed = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&landed);
    flights.launch(1, || async move { count.fetch_add(1, Ordering::SeqCst) });
    tasks.close();
    timeout(GUARD, tasks.wait()).await.unwrap();
    assert_eq!(landed.load(Ordering::SeqCst), 1);
    assert!(!flights.is_in_flight(&1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Each waiter joins a key and may be dropped after some polls.
    #[test]
    fn no_two_flights_of_a_key_run_concurrently_and_every_waiter_gets_a_result(
        waiters in proptest::collection::vec((0_u32..4, proptest::option::of(0_u8..4)), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        runtime.block_on(async {
            let flights = Arc::new(flights());
            let in_flight: Arc<[AtomicU32; 4]> = Arc::default();
            let mut tasks = JoinSet::new();
            for (key, polls) in waiters {
                let (flights, in_flight) = (Arc::clone(&flights), Arc::clone(&in_flight));
                tasks.spawn(async move {
                    let mut waiting = Box::pin(flights.join(key, || async move {
                        let slot = &in_flight[key as usize];
                        assert_eq!(slot.fetch_add(1, Ordering::SeqCst), 0);
                        tokio::task::yield_now().await;
                        slot.fetch_sub(1, Ordering::SeqCst);
                        key
                    }));
                    match polls {
                        None => assert_eq!(waiting.await, Ok(key)),
                        Some(polls) => {
                            for _ in 0..polls {
                                if waiting.as_mut().now_or_never().is_some() {
                                    break;
                                }
                                tokio::task::yield_now().await;
                            }
                        }
                    }
                });
            }
            let all = async {
                while let Some(ended) = tasks.join_next().await {
                    ended.unwrap();
                }
            };
            timeout(GUARD, all).await.expect("no waiter hangs");
        });
    }
}
