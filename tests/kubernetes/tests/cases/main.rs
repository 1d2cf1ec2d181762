//! The end-to-end cases on a real cluster, one after the other: each has a namespace of its own, and those that disturb
//! the cluster come last.
//!
//! `cargo test -p kubernetes-tests` brings a cluster up, installs Millpond, runs the cases and takes all of it down;
//! with `KUBECONFIG` set it uses that cluster. A word after `--` runs the cases whose names have it.

#![expect(clippy::print_stderr, reason = "what goes on before the first case")]

mod changes;
mod deletion;
mod failures;
mod loads;
mod mounting;
mod plugin;
mod recovery;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::Result;
use kubernetes_tests::World;
use libtest_mimic::{Arguments, Failed, Trial};

type Case = (&'static str, fn(&World) -> Result<()>);

fn cases() -> Vec<Case> {
    [
        mounting::CASES,
        failures::CASES,
        loads::CASES,
        changes::CASES,
        plugin::CASES,
        deletion::CASES,
        recovery::CASES,
    ]
    .concat()
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One cluster, and some cases take parts of it away.
    arguments.test_threads = Some(1);
    let world = Arc::new(OnceLock::<Result<World, String>>::new());
    let trials = cases().into_iter().map(|(name, case)| {
        let world = Arc::clone(&world);
        Trial::test(name, move || {
            let world = world.get_or_init(|| {
                eprintln!("bringing the cluster up");
                World::start().map_err(|error| format!("{error:#}"))
            });
            match world {
                Ok(world) => case(world).map_err(|error| Failed::from(format!("{error:#}"))),
                Err(error) => Err(Failed::from(format!("the cluster is not up: {error}"))),
            }
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // Takes the cluster down, which an exit would not.
    drop(world);
    conclusion.exit_code()
}
