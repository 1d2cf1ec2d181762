//! The end-to-end cases on a real cluster, one after the other: each has a namespace of its own, and those that disturb
//! the cluster come last.
//!
//! `cargo test -p kubernetes-tests` brings a cluster up, installs Millpond, runs the cases and takes all of it down;
//! with `KUBECONFIG` set it uses that cluster, without the cases that stop or look into machines of it: they are counted as ignored.
//! A word after `--` runs the cases whose names have it.

#![expect(
    clippy::print_stderr,
    reason = "what goes on before the first case, and figures"
)]

mod changes;
mod deletion;
mod disks;
mod failures;
mod loads;
mod many;
mod mounting;
mod plugin;
mod recovery;
mod upgrade;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::Result;
use kubernetes_tests::{World, is_foreign};
use libtest_mimic::{Arguments, Failed, Trial};

type Case = (&'static str, fn(&World) -> Result<()>);

/// Cases that stop or look into nodes and the API server from outside.
const OF_OUR_CLUSTER: [&str; 9] = [
    "a_short_disk_is_spared_and_told",
    "a_dataset_in_use_stays_and_goes_without_a_trace_afterwards",
    "a_killed_driver_is_not_felt",
    "a_killed_mounter_is_not_felt",
    "a_killed_worker_is_not_felt",
    "a_restarted_keeper_is_not_felt",
    "a_restarted_kubelet_is_not_felt",
    "reads_go_on_while_the_api_server_is_away",
    "a_node_that_returns_shows_the_same_generation",
];

fn cases() -> Vec<Case> {
    [
        mounting::CASES,
        failures::CASES,
        loads::CASES,
        disks::CASES,
        changes::CASES,
        plugin::CASES,
        deletion::CASES,
        many::CASES,
        upgrade::CASES,
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
        let is_left_out = is_foreign() && OF_OUR_CLUSTER.contains(&name);
        let trial = Trial::test(name, move || {
            let world = world.get_or_init(|| {
                eprintln!("bringing the cluster up");
                World::start().map_err(|error| format!("{error:#}"))
            });
            match world {
                Ok(world) => case(world).map_err(|error| Failed::from(format!("{error:#}"))),
                Err(error) => Err(Failed::from(format!("the cluster is not up: {error}"))),
            }
        });
        trial.with_ignored_flag(is_left_out)
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // Takes the cluster down, which an exit would not.
    drop(world);
    conclusion.exit_code()
}
