//! A process that writes, killed again and again at any moment: what it said was whole is whole, what is served is
//! right, and a walk finds what is accounted.
//!
//! The writer is the example `store-writer`. It prints what is done.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use harness::helper;
use millpond_cache::{BlockIndex, Eviction, Store};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::store::disk::{Disk, Kind, MIB};
use crate::store::objects::{OBJECTS, Sample, open_shared};

const KILLS: u64 = 40;

/// What a writer has printed.
#[derive(Default)]
struct Said {
    whole: BTreeSet<u64>,
    blocks: BTreeSet<(u64, u32)>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["#whole", number] => {
                self.whole.insert(number.parse().unwrap());
            }
            ["#block", number, block] => {
                self.blocks
                    .insert((number.parse().unwrap(), block.parse().unwrap()));
            }
            _ => {}
        }
    }
}

/// Runs a writer until it has said so many lines, and kills it.
fn run_and_kill(disk: &Disk, eviction: &str, seed: u64, lines: usize, said: &mut Said) {
    let mut child = helper("store-writer")
        .args([eviction, &seed.to_string()])
        .arg(disk.cache())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in output.by_ref().take(lines) {
        said.hear(&line.unwrap());
    }
    child.kill().unwrap();
    // What it said before it died counts as well; a line that was cut is none.
    for line in output.map_while(Result::ok) {
        said.hear(&line);
    }
    assert!(!child.wait().unwrap().success(), "the writer ended by itself");
}

/// Requires that a store serves only right bytes and accounts for all that is there.
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
    let walk = |place: &str| {
        walkdir::WalkDir::new(disk.cache().join(place))
            .into_iter()
            .map(Result::unwrap)
            .filter(|entry| entry.file_type().is_file())
            .map(|entry| entry.metadata().unwrap().len())
            .collect::<Vec<_>>()
    };
    let objects = walk("objects");
    assert_eq!(
        (usage.objects, usage.object_bytes),
        (objects.len() as u64, objects.iter().sum())
    );
    assert_eq!(walk("temporary"), [0_u64; 0], "what was under way is removed");
    assert!(
        disk.taken().bytes <= usage.used_bytes,
        "{usage:?}, {:?}",
        disk.taken()
    );
    assert!(usage.used_bytes <= usage.capacity_bytes, "{usage:?}");
    assert_eq!(store.counters().corrupt, 0);
}

#[test]
fn what_was_whole_before_a_kill_is_whole_after_it() {
    let disk = Disk::new(Kind::Ext4, 600 * MIB);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut random = StdRng::seed_from_u64(1);
    let mut said = Said::default();
    for round in 0..KILLS {
        // Most lines are blocks and empty ones; the first kills hit the opening of the store.
        let lines = random.random_range(0..60) * usize::try_from(round.min(4)).unwrap() / 4;
        run_and_kill(&disk, "never", round, lines, &mut said);
        runtime.block_on(async {
            let store = open_shared(&disk.cache(), Eviction::Never).await;
            examine(&store, &disk).await;
            for number in &said.whole {
                let sample = Sample::new(*number);
                assert!(sample.check(&store).await.is_some(), "round {round}: {sample:?}");
            }
            for (number, block) in &said.blocks {
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
    assert!(said.whole.len() > 50, "{} were whole", said.whole.len());
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
            &mut Said::default(),
        );
        runtime.block_on(async {
            let store = open_shared(&disk.cache(), Eviction::Lru).await;
            examine(&store, &disk).await;
            store.stop().await;
        });
    }
}
