//! A reference model: random operations on a mounted tree, in both views, while the source changes underneath and the
//! cache evicts. Every answer is compared with what a model in memory allows, every byte with what its version holds.
//!
//! What the model allows is in `pond`. Each case is a mount of its own. `MILLPOND_MODEL_CASES` says how many cases
//! each view gets, `MILLPOND_MODEL_SEED` repeats a run; how a run went that failed is shown with the shortest
//! sequence of operations that fails too.

#![expect(clippy::print_stdout, reason = "the seed of a run repeats it")]

mod exerciser;
mod io;
mod listing;
mod modifying;
mod operation;
mod pond;
mod reading;
mod source;
mod tree;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use harness::View;
use proptest::test_runner::{Config, FileFailurePersistence, RngSeed, TestCaseError, TestError, TestRunner};

use operation::{Operation, Setting};
use pond::Pond;

/// Cases for each view: about half a minute.
const CASES: u32 = 20;

/// Runs of a failed case in search of a shorter one.
const MAX_SHRINK_ITERATIONS: u32 = 300;

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_bad| panic!("{name}={value} is no number")),
    )
}

/// Runs one case.
fn run(view: View, setting: Setting, puts: &[Operation], operations: &[Operation]) -> anyhow::Result<()> {
    let mut pond = Pond::new(view, setting, puts)?;
    for (number, operation) in operations.iter().enumerate() {
        if let Err(error) = pond.apply(operation) {
            let log = pond.log();
            return Err(error.context(format!("operation {number}, {operation:?}; the log ends:\n{log}")));
        }
    }
    pond.end()
}

fn follows_the_model(view: View) {
    let seed = from_environment("MILLPOND_MODEL_SEED").unwrap_or_else(rand::random::<u64>);
    let cases = from_environment("MILLPOND_MODEL_CASES").unwrap_or(CASES);
    println!("{view:?}: {cases} cases, MILLPOND_MODEL_SEED={seed}");
    let began = Instant::now();
    let operations_done = AtomicUsize::new(0);
    let mut runner = TestRunner::new(Config {
        cases,
        max_shrink_iters: MAX_SHRINK_ITERATIONS,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    });
    let result = runner.run(&operation::run(), |(setting, puts, operations)| {
        operations_done.fetch_add(operations.len(), Ordering::Relaxed);
        run(view, setting, &puts, &operations).map_err(|error| TestCaseError::fail(format!("{error:?}")))
    });
    println!(
        "{view:?}: {} operations in {:?}",
        operations_done.load(Ordering::Relaxed),
        began.elapsed()
    );
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, (setting, puts, operations))) => {
            let lines = |operations: &[Operation]| -> String {
                operations
                    .iter()
                    .map(|operation| format!("\n    {operation:?}"))
                    .collect()
            };
            panic!(
                "{view:?}, MILLPOND_MODEL_SEED={seed}: {reason}\nthe shortest case found: {setting:?}\n  \
                 with{}\n  then{}",
                lines(&puts),
                lines(&operations)
            );
        }
        Err(failure) => panic!("{view:?}, MILLPOND_MODEL_SEED={seed}: {failure}"),
    }
}

#[test]
fn the_kernel_view_follows_the_model() {
    follows_the_model(View::Kernel);
}

#[test]
fn the_fuse_view_follows_the_model() {
    follows_the_model(View::Fuse);
}
