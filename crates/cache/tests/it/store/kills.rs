//! A process that writes, killed again and again at any moment: objects that it reported complete are complete, served bytes
//! are right, and a scan finds what is accounted.
//!
//! The writer is the example `store-writer`. It prints what is written.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use harness::helper;
use millpond_cache::{BlockIndex, Eviction, Store};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::store::disk::{Disk, Kind, MIB};
use crate::store::objects::{OBJECTS, Sample, open_shared};

const KILLS: u64 = 40;

/// What writers have printed.
#[derive(Default)]
struct Reported {
    complete: BTreeSet<u64>,
    blocks: BTreeSet<(u64, u32)>,
}

impl Reported {
    fn add(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["#complete", number] => {
                self.complete.insert(number.parse().unwrap());
            }
            ["#block", number, block] => {
                self.blocks
                    .insert((number.parse().unwrap(), block.parse().unwrap()));
            }
            _ => {}
        }
    }
}

/// Runs a writer until it has printed so many lines, and kills it.
fn run_and_kill(disk: &Disk, eviction: &str, seed: u64, lines: usize, reported: &mut Reported) {
    let mut child = helper("store-writer")
        .args([eviction, &seed.to_string()])
        .arg(disk.cache())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in output.by_ref().take(lines) {
        reported.add(&line.unwrap());
    }
    child.kill().unwrap();
    // What it reported before it was killed counts as well; a line that was cut does not.
    for line in output.map_while(Result::ok) {
        reported.add(&line);
    }
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "the writer ended by itself: {status}");
}

/// Requires that a store serves only right bytes and accounts for all of its files.
async fn examine(store: &Store, disk: &Disk) {
    store.scanned().await;
    for sample in (0..OBJECTS).map(Sample::new) {
        sample.check(store).await;
        if let Some(partial) = store.existing_partial(sample.id(), sample.size_bytes).await {
            for index in (0..sample.blocks()).map(BlockIndex) {
                let (start, expected) = (u64::from(index.0) * MIB, sample.block(index));
                if let Some(found) = partial.map(start..start + expected.len() as u64) {
                    assert!(found[..] == expected[..], "{sample:?}, {index:?}");
                }
            }
        }
    }
    let usage = store.usage()[0];
    let scan = |place: &str| {
        walkdir::WalkDir::new(disk.cache().join(place))
            .into_iter()
            .map(Result::unwrap)
            .filter(|entry| entry.file_type().is_file())
            .map(|entry| entry.metadata().unwrap().len())
            .collect::<Vec<_>>()
    };
    let objects = scan("objects");
    assert_eq!(
        (usage.objects, usage.object_bytes),
        (objects.len() as u64, objects.iter().sum())
    );
    assert_eq!(scan("temporary"), [0_u64; 0], "unfinished files are removed");
    assert!(
        disk.taken().bytes <= usage.used_bytes,
        "{usage:?}, {:?}",
        disk.taken()
    );
    assert!(usage.used_bytes <= usage.capacity_bytes, "{usage:?}");
    assert_eq!(store.counters().corrupt, 0);
}

#[test]
fn what_was_complete_before_a_kill_is_complete_after_it() {
    let disk = Disk::new(Kind::Ext4, 600 * MIB);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut random = StdRng::seed_from_u64(1);
    let mut reported = Reported::default();
    for round in 0..KILLS {
        // Most lines are blocks and empty ones; the first kills hit the opening of the store.
        let lines = random.random_range(0..60) * usize::try_from(round.min(4)).unwrap() / 4;
        run_and_kill(&disk, "never", round, lines, &mut reported);
        runtime.block_on(async {
            let store = open_shared(&disk.cache(), Eviction::Never).await;
            examine(&store, &disk).await;
            for number in &reported.complete {
                let sample = Sample::new(*number);
                assert!(sample.check(&store).await.is_some(), "round {round}: {sample:?}");
            }
            for (number, block) in &reported.blocks {
                let sample = Sample::new(*number);
                let partial = store
                    .existing_partial(sample.id(), sample.size_bytes)
                    .await
                    .unwrap();
                let start = u64::from(*block) * MIB;
                let missing = partial.missing(start..start + 1).await;
                assert_eq!(missing, [], "round {round}: {sample:?}, block {block}");
            }
            store.stop().await;
        });
    }
    assert!(
        reported.complete.len() > 50,
        "{} were complete",
        reported.complete.len()
    );
}

#[test]
fn a_store_that_was_killed_while_it_evicts_is_right() {
    let disk = Disk::new(Kind::Ext4, 160 * MIB);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut random = StdRng::seed_from_u64(2);
    for round in 0..KILLS / 2 {
        run_and_kill(
            &disk,
            "lru",
            round,
            random.random_range(50..400),
            &mut Reported::default(),
        );
        runtime.block_on(async {
            let store = open_shared(&disk.cache(), Eviction::Lru).await;
            examine(&store, &disk).await;
            store.stop().await;
        });
    }
}
