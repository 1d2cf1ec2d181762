//! The end-to-end cases on a real cluster. Each has a namespace and buckets of its own. Those of `side_by_side::` share the
//! pool, workers, drivers and controller and disturb none of them; those of `alone::` kill or replace them, or measure the
//! whole of them, and come last, one after the other.
//!
//! `cargo test -p kubernetes-tests` brings a cluster up, installs Millpond, runs the cases and takes all of it down; with
//! `MILLPOND_CLUSTER` set it uses that one of `millpond-cluster up`, as a runner with a process for each case must; with
//! `KUBECONFIG` set it uses that cluster, without the cases that stop or look into machines of it: they are counted as ignored.
//! A word after `--` runs the cases whose names have it.

#![expect(clippy::print_stderr, reason = "figures")]

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

use anyhow::{Result, anyhow};
use kubernetes_tests::{Cluster, Turn, World, is_foreign};
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

/// Cases at once, which wait most of the time.
const THREADS: usize = 4;

const SIDE_BY_SIDE: [&[Case]; 7] = [
    mounting::CASES,
    failures::CASES,
    loads::CASES,
    disks::CASES,
    changes::CASES,
    plugin::CASES,
    deletion::CASES,
];

const ALONE: [&[Case]; 5] = [
    loads::ALONE,
    plugin::ALONE,
    many::ALONE,
    upgrade::ALONE,
    recovery::ALONE,
];

/// What the cases of this process have in common; each part is made by the first case that needs it.
#[derive(Default)]
struct Shared {
    cluster: OnceLock<Result<Arc<Cluster>, String>>,
    world: OnceLock<Result<World, String>>,
}

impl Shared {
    fn run(&self, case: fn(&World) -> Result<()>, turn: fn(&Cluster) -> Result<Turn>) -> Result<()> {
        let cluster = self.cluster.get_or_init(|| {
            Cluster::start()
                .map(Arc::new)
                .map_err(|error| format!("{error:#}"))
        });
        let cluster = cluster
            .as_ref()
            .map_err(|error| anyhow!("the cluster is not up: {error}"))?;
        let _turn = turn(cluster)?;
        let world = self
            .world
            .get_or_init(|| World::on(Arc::clone(cluster)).map_err(|error| format!("{error:#}")));
        let world = world
            .as_ref()
            .map_err(|error| anyhow!("Millpond is not up: {error}"))?;
        case(world)
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let shared = Arc::new(Shared::default());
    let trial = |group: &str, (name, case): Case, turn: fn(&Cluster) -> Result<Turn>| {
        let shared = Arc::clone(&shared);
        let is_left_out = is_foreign() && OF_OUR_CLUSTER.contains(&name);
        Trial::test(format!("{group}::{name}"), move || {
            let outcome = shared.run(case, turn);
            outcome.map_err(|error| Failed::from(format!("{error:#}")))
        })
        .with_ignored_flag(is_left_out)
    };
    let side_by_side = SIDE_BY_SIDE.concat().into_iter();
    let mut trials: Vec<_> = side_by_side
        .map(|case| trial("side_by_side", case, Turn::side_by_side))
        .collect();
    let alone = ALONE.concat().into_iter();
    trials.extend(alone.map(|case| trial("alone", case, Turn::alone)));
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Takes the cluster down, which an exit would not.
    drop(shared);
    conclusion.exit_code()
}
