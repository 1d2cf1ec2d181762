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

/// What the cache takes beside the bytes of the bucket when it holds all of them: directories and the catalog.
fn overhead_bytes(bucket: &Bucket) -> u64 {
    let scratch = Scratch::new();
    let mount = bucket.mount(&scratch, View::Fuse).mount();
    mount.succeed(&["warmup"]);
    let stats = mount.stats();
    let used = stats["tiers"][0]["used_bytes"].as_u64().expect("the disk's use");
    mount.unmount();
    used - bucket.total_bytes()
}

/// Half of the data finds room, whichever half comes first, and stays: so half of the bytes are read from here in each later
/// epoch. Two things would shift that: what files take beyond their bytes (a part of a block each, 8 MiB of directories),
/// so the cache is that much larger; and the blocks without room that are kept in memory for a moment. The last T bytes of
/// those in one epoch are hits for who comes within the first T of the next, which is a share of (T / U)^2 / 4 where U bytes
/// have no room: nothing where the data are large, and here 0.003, with 16 of 144 MiB.
#[test]
fn a_cache_of_half_the_data_that_never_evicts_hits_half_of_the_time() {
    // Whole blocks of the file system.
    let bucket = Bucket::with_files(3_000, 24 * 4_096);
    let limit = overhead_bytes(&bucket) + bucket.total_bytes() / 2;
    for view in View::BOTH {
        let scratch = Scratch::new();
        let mount = bucket
            .mount(&scratch, view)
            .with("--cache-size", limit.to_string())
            .with("--eviction", "never")
            .with("--memory-budget", "64Mi")
            .mount();
        epoch(&bucket, &mount, 0);
        for number in 1..3 {
            let before = bucket.counters().bytes_sent;
            epoch(&bucket, &mount, number);
            let fetched = bucket.counters().bytes_sent - before;
            // Exact in a double: below 2^53.
            let hit_rate = 1.0 - fetched as f64 / bucket.total_bytes() as f64;
            assert!(
                (0.49..=0.51).contains(&hit_rate),
                "{view:?}, epoch {}: {hit_rate:.4}",
                number + 1
            );
        }
        mount.unmount();
    }
}
