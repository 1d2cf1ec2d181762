//! Hit rates, computed from what the origin counted, and compared with what Millpond says of itself.

use e2e::{Bucket, Scratch, View};

/// Requires that nothing was fetched again, except by hedges: on a busy machine a request that is slow is sent a second time,
/// and one of the two answers dropped. Says whether there was any.
fn fetched_once(bucket: &Bucket, origin: &serde_json::Value) -> bool {
    let hedges = origin["hedges"].as_u64().expect("the number of hedges");
    let counters = bucket.counters();
    if hedges == 0 {
        assert_eq!(counters.bytes_sent, bucket.total_bytes(), "{origin}");
    }
    // Small objects take one request each.
    let small = bucket.objects().iter().filter(|(_, bytes)| bytes.len() < 1 << 20);
    let again: u64 = small.map(|(key, _)| counters.key("data", key).gets - 1).sum();
    assert!(again <= hedges, "{again} requests too many, {origin}");
    hedges > 0
}

#[test]
fn three_epochs_fetch_each_byte_once() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let mut bucket = Bucket::with_files(400, 40_000);
        bucket.generate("large", 9, 30 << 20);
        let mount = bucket.mount(&scratch, view).switch("--no-hedging").mount();
        for seed in 0..3 {
            bucket.check_epoch(mount.path(), seed);
        }
        fetched_once(&bucket, &mount.stats()["origin"]);
        mount.unmount();
    }
}

#[test]
fn stats_agree_with_the_origin() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let bucket = Bucket::with_files(300, 40_000);
        let mount = bucket.mount(&scratch, view).switch("--no-hedging").mount();
        for seed in 0..2 {
            bucket.check_epoch(mount.path(), seed);
        }
        let stats = mount.stats();
        let hedged = fetched_once(&bucket, &stats["origin"]);
        let (said, sent) = (stats["origin"]["bytes"].as_u64(), bucket.counters().bytes_sent);
        // Of an answer that was dropped the origin may have sent more than was taken.
        assert!(
            said == Some(sent)
                || hedged && said.is_some_and(|said| said >= bucket.total_bytes() && said < sent),
            "{view:?}: {sent} sent, {stats}"
        );
        mount.unmount();
    }
}
