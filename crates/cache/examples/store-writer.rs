//! A process that writes objects into a store until it is killed, and prints what is written: a helper of the tests.
//!
//! `store-writer never|lru SEED CACHE`

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use millpond_cache::{Eviction, Progress, ReservePolicy, Store};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::{Signal, set_parent_process_death_signal};

use self::objects::{OBJECTS, Sample, open_shared};

#[path = "../tests/it/store/objects.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "the tests use the rest")]
mod objects;

const WRITERS: u64 = 4;

fn main() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("failed to follow the test's end")?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [eviction, seed, cache] = words.as_slice() else {
        bail!("store-writer never|lru SEED CACHE");
    };
    let eviction = match eviction.as_str() {
        "never" => Eviction::Never,
        "lru" => Eviction::Lru,
        other => bail!("no eviction {other}"),
    };
    let seed: u64 = seed.parse().context("a seed")?;
    let runtime = tokio::runtime::Runtime::new().context("failed to start")?;
    runtime.block_on(async {
        let store = open_shared(Path::new(cache), eviction).await;
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let random = StdRng::seed_from_u64(seed * WRITERS + writer);
            writers.spawn(write(Arc::clone(&store), random));
        }
        writers.join_all().await;
    });
    Ok(())
}

async fn write(store: Arc<Store>, mut random: StdRng) {
    loop {
        let sample = Sample::new(random.random_range(0..OBJECTS));
        if !sample.is_large() {
            if sample.put(&store).await.is_ok() {
                print(&format!("complete {}", sample.number));
            }
            continue;
        }
        let Ok(partial) = store
            .partial(sample.id(), sample.size_bytes, ReservePolicy::MayEvict)
            .await
        else {
            continue;
        };
        for block in partial.missing(0..sample.size_bytes).await {
            match partial.write(block, vec![sample.block(block)]).await {
                Ok(Progress::Complete(_)) => print(&format!("complete {}", sample.number)),
                Ok(Progress::Incomplete) => print(&format!("block {} {}", sample.number, block.0)),
                Err(_) => {}
            }
        }
    }
}

/// Prints a line in one write, so that it is complete or missing.
fn print(line: &str) {
    let mut output = std::io::stdout();
    let printed = output
        .write_all(format!("\n#{line}\n").as_bytes())
        .and_then(|()| output.flush());
    printed.expect("the test reads what is printed");
}
