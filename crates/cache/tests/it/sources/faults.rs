//! Fetching from a faulty source.

use std::sync::Arc;

use millpond_cache::fetch::{FetchError, Origin, Priority};
use origin::{Fault, Kind, Rule};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::sources::rig::{BUCKET, content, hedging, long_timeouts, open, rig, short_deadline, short_idle};

const SIZE: usize = 1_000_000;

fn gets(fault: Fault) -> Rule {
    Rule::new(fault).on(&[Kind::Get])
}

fn is_unavailable<T: std::fmt::Debug>(result: Result<T, FetchError>) {
    assert!(
        matches!(result, Err(FetchError::Unavailable { .. })),
        "{result:?}"
    );
}

#[tokio::test]
async fn every_range_is_exact() {
    let rig = rig(long_timeouts());
    let stored = rig.put("d/a b+c%41?x#y", 1, SIZE);
    for range in [0..SIZE, 0..1, SIZE - 1..SIZE, 17..400_000, 5..5] {
        assert_eq!(
            rig.fetch(&stored, range.clone()).await.unwrap(),
            stored.content[range]
        );
    }
    assert_eq!(rig.server.counters().gets, 4);
}

#[tokio::test]
async fn an_empty_object_needs_no_request() {
    let rig = rig(long_timeouts());
    let stored = rig.put("empty", 1, 0);
    assert_eq!(rig.fetch_all(&stored).await.unwrap(), b"");
    assert_eq!(rig.server.counters().gets, 0);
}

#[tokio::test]
async fn a_storm_of_503_lowers_concurrency_and_no_reader_sees_an_error() {
    let rig = rig(long_timeouts());
    let most = rig.origin.concurrency_limit();
    let stored: Vec<_> = (0..40).map(|n| rig.put(&format!("{n}"), n, 20_000)).collect();
    let storm = rig.server.faults().add(gets(Fault::SlowDown).times(30));
    let mut fetches = JoinSet::new();
    for one in stored {
        let origin = Arc::clone(&rig.origin);
        fetches.spawn(async move {
            let fetched = origin.fetch(one.request(0..20_000)).await.unwrap().concat();
            assert_eq!(fetched, one.content);
        });
    }
    while let Some(ended) = fetches.join_next().await {
        ended.unwrap();
    }
    assert_eq!(rig.server.faults().applied(storm), 30);
    assert!(rig.metrics.throttles.get() >= 30);
    assert!(rig.origin.concurrency_limit() < most);
}

#[tokio::test]
async fn a_source_that_always_answers_503_is_unavailable_at_the_deadline() {
    let rig = rig(short_deadline());
    let stored = rig.put("a", 1, 1000);
    rig.server.faults().add(gets(Fault::SlowDown));
    let error = rig.fetch_all(&stored).await.unwrap_err();
    assert!(error.to_string().contains("SlowDown"), "{error}");
    is_unavailable::<()>(Err(error));
}

#[tokio::test]
async fn internal_errors_are_tried_again() {
    let rig = rig(long_timeouts());
    let stored = rig.put("a", 1, SIZE);
    rig.server.faults().add(gets(Fault::Gone).times(3));
    assert_eq!(rig.fetch_all(&stored).await.unwrap(), stored.content);
    assert!(rig.metrics.retries.get() >= 3);
}

#[tokio::test]
async fn a_truncated_body_is_continued_where_it_broke_off() {
    let rig = rig(long_timeouts());
    let stored = rig.put("a", 1, SIZE);
    rig.server.faults().add(gets(Fault::Truncate { after: 300_000 }));
    assert_eq!(rig.fetch_all(&stored).await.unwrap(), stored.content);
    assert!(rig.server.counters().gets >= 4);
    assert_eq!(
        rig.fetch(&stored, 10..700_010).await.unwrap(),
        stored.content[10..700_010]
    );
}

#[tokio::test]
async fn a_reset_connection_is_no_error_to_a_reader() {
    let rig = rig(long_timeouts());
    let stored = rig.put("a", 1, SIZE);
    rig.server
        .faults()
        .add(gets(Fault::Reset { after: 100_000 }).times(4));
    assert_eq!(rig.fetch_all(&stored).await.unwrap(), stored.content);
}

#[tokio::test]
async fn a_stalled_body_is_abandoned_and_continued() {
    let rig = rig(short_idle());
    let stored = rig.put("a", 1, SIZE);
    rig.server
        .faults()
        .add(gets(Fault::Stall { after: 400_000 }).times(1));
    assert_eq!(rig.fetch_all(&stored).await.unwrap(), stored.content);
    rig.server.faults().clear();
}

#[tokio::test]
async fn a_source_that_always_stalls_is_unavailable_at_the_deadline() {
    let rig = rig(short_deadline());
    let stored = rig.put("a", 1, SIZE);
    rig.server.faults().add(gets(Fault::Stall { after: 0 }));
    is_unavailable(rig.fetch_all(&stored).await);
    rig.server.faults().clear();
}

#[tokio::test]
async fn a_hedge_gets_past_a_stall() {
    let rig = rig(hedging());
    let stored = rig.put("a", 1, SIZE);
    for after in [0, 400_000] {
        rig.server.faults().add(gets(Fault::Stall { after }).times(1));
        assert_eq!(rig.fetch_all(&stored).await.unwrap(), stored.content);
        rig.server.faults().clear();
        // Earns credit for the next hedge.
        for _ in 0..200 {
            rig.fetch(&stored, 0..10).await.unwrap();
        }
    }
    assert!(rig.metrics.hedges.get() >= 1);
}

#[tokio::test]
async fn a_trickle_is_cut_and_its_bytes_are_used() {
    let rig = rig(short_idle());
    let stored = rig.put("a", 1, 300_000);
    rig.server.faults().add(
        gets(Fault::Trickle {
            bytes_per_second: 2_000,
        })
        .times(1),
    );
    assert_eq!(rig.fetch_all(&stored).await.unwrap(), stored.content);
    rig.server.faults().clear();
}

#[tokio::test]
async fn a_source_that_only_trickles_is_unavailable_at_the_deadline() {
    let rig = rig(short_deadline());
    let stored = rig.put("a", 1, 300_000);
    rig.server.faults().add(gets(Fault::Trickle {
        bytes_per_second: 1_000,
    }));
    is_unavailable(rig.fetch_all(&stored).await);
    rig.server.faults().clear();
}

#[tokio::test]
async fn another_etag_is_a_change_whatever_the_server_does_with_if_match() {
    let rig = rig(long_timeouts());
    let stored = rig.put("a", 1, SIZE);
    rig.server.faults().add(gets(Fault::WrongEtag));
    let changed = Err(FetchError::Changed { key: "a".to_owned() });
    assert_eq!(rig.fetch_all(&stored).await, changed);
    assert_eq!(rig.fetch(&stored, 5..10).await, changed);
}

#[tokio::test]
async fn a_body_of_the_wrong_length_gives_no_wrong_byte() {
    for by in [-10, 10, -999_999] {
        let rig = rig(short_deadline());
        let stored = rig.put("a", 1, SIZE);
        let fault = rig.server.faults().add(gets(Fault::WrongLength { by }));
        for range in [0..SIZE, 100..200_000] {
            match rig.fetch(&stored, range.clone()).await {
                Ok(fetched) => assert_eq!(fetched, stored.content[range]),
                Err(error) => is_unavailable::<()>(Err(error)),
            }
        }
        rig.server.faults().remove(fault);
        let fetched = rig
            .with(long_timeouts())
            .fetch(stored.request(0..SIZE))
            .await
            .unwrap();
        assert_eq!(fetched.concat(), stored.content);
    }
}

#[tokio::test]
async fn two_versions_are_never_mixed() {
    let rig = rig(long_timeouts());
    let stored = rig.put("a", 1, SIZE);
    rig.server.faults().add(gets(Fault::Truncate { after: 500_000 }));
    rig.server.faults().add(gets(Fault::ChangeBetween).times(1));
    let (send, mut receive) = mpsc::channel(100);
    let result = rig
        .origin
        .fetch_blocks(stored.request(0..SIZE), 100_000, send)
        .await;
    assert_eq!(result, Err(FetchError::Changed { key: "a".to_owned() }));
    let mut blocks = 0;
    while let Some(block) = receive.recv().await {
        let start = usize::try_from(block.index).unwrap() * 100_000;
        assert_eq!(block.content.concat(), stored.content[start..start + 100_000]);
        blocks += 1;
    }
    assert!(blocks <= 5);
}

#[tokio::test]
async fn what_was_deleted_or_replaced_has_changed() {
    let rig = rig(long_timeouts());
    let stored = rig.put("a", 1, 1000);
    let changed = Err(FetchError::Changed { key: "a".to_owned() });
    assert!(rig.server.change(BUCKET, "a", content(2, 500)));
    assert_eq!(rig.fetch_all(&stored).await, changed);
    assert!(rig.server.delete(BUCKET, "a"));
    assert_eq!(rig.fetch(&stored, 5..10).await, changed);
    assert_eq!(rig.server.counters().gets, 2, "a retry cannot help");
}

#[tokio::test]
async fn a_key_that_cannot_be_requested_is_not_requested() {
    let rig = rig(long_timeouts());
    for key in ["a//b", "/a", "a/", "../a", "a/./b", "a\nb"] {
        let mut stored = rig.put("a", 1, 1000);
        stored.key = key.to_owned();
        is_unavailable(rig.fetch_all(&stored).await);
    }
    assert_eq!(rig.server.counters().gets, 0);
}

#[tokio::test]
async fn wrong_credentials_are_denied_without_a_retry() {
    let rig = rig(long_timeouts());
    let stored = rig.put("a", 1, 1000);
    let source = open(&rig.server, "", "wrong");
    let origin = Origin::new(source, long_timeouts(), rig.metrics.clone());
    let error = origin.fetch(stored.request(0..1000)).await.unwrap_err();
    assert!(matches!(&error, FetchError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("SignatureDoesNotMatch"), "{error}");
    assert_eq!(rig.server.counters().gets, 1);
}

#[tokio::test]
async fn an_unreachable_source_is_retried_until_the_deadline() {
    let rig = rig(short_deadline());
    let stored = rig.put("a", 1, 1000);
    rig.server.disconnect();
    is_unavailable(rig.fetch_all(&stored).await);
    rig.server.reconnect();
    let fetched = rig
        .with(long_timeouts())
        .fetch(stored.request(0..1000))
        .await
        .unwrap();
    assert_eq!(fetched.concat(), stored.content);
}

#[tokio::test]
async fn a_source_that_recovers_within_the_deadline_causes_no_error() {
    let rig = rig(long_timeouts());
    let stored = rig.put("a", 1, 1000);
    rig.server.disconnect();
    let mut fetches = JoinSet::new();
    let (origin, request) = (Arc::clone(&rig.origin), stored.request(0..1000));
    fetches.spawn(async move { origin.fetch(request).await });
    // Until it was refused at least once.
    while rig.metrics.retries.get() == 0 {
        tokio::task::yield_now().await;
    }
    rig.server.reconnect();
    let fetched = fetches.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(fetched.concat(), stored.content);
}

#[tokio::test]
async fn many_small_objects_share_a_few_connections() {
    let rig = rig(long_timeouts());
    let stored: Vec<_> = (0..500).map(|n| rig.put(&format!("{n}"), n, 3_000)).collect();
    let mut fetches = JoinSet::new();
    for one in stored {
        let origin = Arc::clone(&rig.origin);
        fetches.spawn(async move {
            let mut request = one.request(0..3_000);
            request.priority = Priority::Background;
            assert_eq!(origin.fetch(request).await.unwrap().concat(), one.content);
        });
    }
    while let Some(ended) = fetches.join_next().await {
        ended.unwrap();
    }
    let counters = rig.server.counters();
    assert_eq!(counters.gets, 500);
    // The limit of requests in flight, and a few that were opened while another became free.
    assert!(counters.connections <= 150, "{}", counters.connections);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_faults_at_once_give_no_wrong_byte() {
    let rig = rig(long_timeouts());
    let faults = [
        (Fault::SlowDown, 0.07),
        (Fault::Gone, 0.05),
        (Fault::Truncate { after: 70_000 }, 0.2),
        (Fault::Reset { after: 30_000 }, 0.1),
        (Fault::WrongLength { by: -7 }, 0.06),
        (Fault::WrongLength { by: 9 }, 0.05),
    ];
    let stored: Vec<_> = (0..60).map(|n| rig.put(&format!("{n}"), n, 150_000)).collect();
    for (fault, fraction) in faults {
        rig.server.faults().add(gets(fault).fraction(fraction));
    }
    let mut fetches = JoinSet::new();
    for (index, one) in stored.into_iter().enumerate() {
        let origin = Arc::clone(&rig.origin);
        fetches.spawn(async move {
            let start = index * 2_000;
            let fetched = origin.fetch(one.request(start..150_000)).await.unwrap();
            assert_eq!(fetched.concat(), one.content[start..]);
        });
    }
    while let Some(ended) = fetches.join_next().await {
        ended.unwrap();
    }
}
