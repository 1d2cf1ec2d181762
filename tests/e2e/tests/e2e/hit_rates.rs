//! Hit rates, computed from what the origin counted, and compared with what Millpond says of itself.

use harness::{Bucket, Scratch, View};

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
        assert_eq!(bucket.counters().bytes_sent, bucket.total_bytes(), "{view:?}");
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
        let (stats, sent) = (mount.stats(), bucket.counters().bytes_sent);
        assert_eq!(stats["origin"]["bytes"].as_u64(), Some(sent), "{view:?}: {stats}");
        assert_eq!(
            stats["read"]["origin_bytes"].as_u64(),
            Some(sent),
            "{view:?}: {stats}"
        );
        mount.unmount();
    }
}
