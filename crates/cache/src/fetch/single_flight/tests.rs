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
    let land = Arc::new(Notify::new());
    let mut waiters = JoinSet::new();
    for _ in 0..50 {
        let (flights, fetches, land) = (Arc::clone(&flights), Arc::clone(&fetches), Arc::clone(&land));
        waiters.spawn(async move {
            flights
                .join(1, || async move {
                    fetches.fetch_add(1, Ordering::SeqCst);
                    land.notified().await;
                    7
                })
                .await
        });
    }
    // Everybody is in before it lands: the test's runtime has one thread, and each task ran to its wait.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    land.notify_one();
    while let Some(result) = waiters.join_next().await {
        assert_eq!(result.unwrap(), Ok(7));
    }
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
    assert!(!flights.is_in_flight(&1));
}

#[tokio::test]
async fn the_first_waiter_may_go() {
    let flights = flights();
    let land = Arc::new(Notify::new());
    let waits = Arc::clone(&land);
    let mut first = Box::pin(flights.join(1, || async move {
        waits.notified().await;
        7
    }));
    assert!(first.as_mut().now_or_never().is_none());
    let mut second = Box::pin(flights.join(1, || async { unreachable!("one is under way") }));
    assert!(second.as_mut().now_or_never().is_none());
    drop(first);
    land.notify_one();
    assert_eq!(timeout(GUARD, second).await.unwrap(), Ok(7));
}

#[tokio::test]
async fn a_flight_that_panics_is_lost_and_the_next_one_starts_anew() {
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
async fn a_launched_flight_lands_without_waiters() {
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

    /// Each waiter asks for a key and may go after some looks.
    #[test]
    fn no_two_flights_of_a_key_are_under_way_and_everybody_lands(
        waiters in proptest::collection::vec((0_u32..4, proptest::option::of(0_u8..4)), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        runtime.block_on(async {
            let flights = Arc::new(flights());
            let under_way: Arc<[AtomicU32; 4]> = Arc::default();
            let mut tasks = JoinSet::new();
            for (key, looks) in waiters {
                let (flights, under_way) = (Arc::clone(&flights), Arc::clone(&under_way));
                tasks.spawn(async move {
                    let mut waiting = Box::pin(flights.join(key, || async move {
                        let slot = &under_way[key as usize];
                        assert_eq!(slot.fetch_add(1, Ordering::SeqCst), 0);
                        tokio::task::yield_now().await;
                        slot.fetch_sub(1, Ordering::SeqCst);
                        key
                    }));
                    match looks {
                        None => assert_eq!(waiting.await, Ok(key)),
                        Some(looks) => {
                            for _ in 0..looks {
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
            timeout(GUARD, all).await.expect("nobody waits for ever");
        });
    }
}
