//! A cache of half the data, by what the origin counted. It runs alone: it keeps the machine busy enough for others to see
//! requests hedged.

use harness::{Bucket, Scratch, View};

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
        bucket.check_epoch(mount.path(), 0);
        for number in 1..3 {
            let before = bucket.counters().bytes_sent;
            bucket.check_epoch(mount.path(), number);
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
