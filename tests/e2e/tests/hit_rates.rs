//! Hit rates, computed from what the origin counted, and compared with what Millpond says of itself.

use e2e::{Bucket, Mount, Scratch, View};
use rand::SeedableRng;
use rand::seq::SliceRandom;

/// Reads everything once in an order of its own.
fn epoch(bucket: &Bucket, mount: &Mount, seed: u64) {
    let mut keys = bucket.keys();
    keys.shuffle(&mut rand::rngs::StdRng::seed_from_u64(seed));
    std::thread::scope(|scope| {
        for part in keys.chunks(keys.len().div_ceil(4)) {
            scope.spawn(move || part.iter().for_each(|key| bucket.check(mount.path(), key)));
        }
    });
}

#[test]
fn three_epochs_fetch_each_byte_once() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let mut bucket = Bucket::with_files(400, 40_000);
        bucket.generate("large", 9, 30 << 20);
        let mount = bucket.mount(&scratch, view).switch("--no-hedging").mount();
        for seed in 0..3 {
            epoch(&bucket, &mount, seed);
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
            epoch(&bucket, &mount, seed);
        }
        let fetched = bucket.counters().bytes_sent;
        let stats = mount.stats();
        assert_eq!(
            stats["origin"]["bytes"].as_u64(),
            Some(fetched),
            "{view:?}: {stats}"
        );
        mount.unmount();
    }
}
