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
        let mount = bucket.mount(&scratch, view).mount();
        for seed in 0..3 {
            epoch(&bucket, &mount, seed);
        }
        assert_eq!(bucket.counters().bytes_sent, bucket.total_bytes(), "{view:?}");
        mount.unmount();
    }
}

#[test]
fn half_a_cache_that_never_evicts_hits_half_the_time() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let bucket = Bucket::with_files(1_000, 100_000);
        // A file takes 25 blocks of 4 KiB; the directories of the cache and its state take theirs besides.
        let room = 500 * 25 * 4_096 + overhead();
        let mount = bucket
            .mount(&scratch, view)
            .with("--cache-size", room.to_string())
            .mount();
        epoch(&bucket, &mount, 1);
        for seed in 2..4 {
            let before = bucket.counters().bytes_sent;
            epoch(&bucket, &mount, seed);
            let missed = (bucket.counters().bytes_sent - before) as f64 / bucket.total_bytes() as f64;
            assert!(
                (0.49..=0.51).contains(&(1.0 - missed)),
                "{view:?}: hit rate {}",
                1.0 - missed
            );
        }
        mount.unmount();
    }
}

/// What an empty cache takes on the disk: asked of a mount, since it is part of the limit.
fn overhead() -> u64 {
    let scratch = Scratch::new();
    let bucket = Bucket::with_files(1_000, 100_000);
    let mount = bucket
        .mount(&scratch, View::Kernel)
        .with("--cache-size", "1Gi")
        .mount();
    let used = used_bytes(&mount);
    mount.unmount();
    used
}

fn used_bytes(mount: &Mount) -> u64 {
    let stats = mount.stats();
    let tiers = stats["tiers"].as_array().expect("stats name the tiers");
    tiers
        .iter()
        .map(|tier| tier["used_bytes"].as_u64().expect("a tier's used bytes"))
        .sum()
}

#[test]
fn stats_agree_with_the_origin() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let bucket = Bucket::with_files(300, 40_000);
        let mount = bucket.mount(&scratch, view).mount();
        for seed in 0..2 {
            epoch(&bucket, &mount, seed);
        }
        let fetched = bucket.counters().bytes_sent;
        e2e::wait_until("the opens that the kernel served to be counted", || {
            let read = &mount.stats()["read"];
            let origin = read["origin_bytes"].as_u64().expect("bytes from the origin");
            let local = read["local_bytes"].as_u64().expect("bytes from here");
            assert_eq!(origin, fetched, "{view:?}");
            assert!(
                local <= fetched + fetched / 100,
                "{view:?}: {local} local bytes, more than were read"
            );
            local >= fetched - fetched / 100
        });
        mount.unmount();
    }
}
