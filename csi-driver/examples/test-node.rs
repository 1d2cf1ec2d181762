//! A program of a node, started and killed by tests: a driver whose workers have no sources, its keeper, its mounter.
//!
//! `test-node driver OPTIONS | keeper SOCKET | mounter SOCKET`; the options are JSON.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use csi_driver::node::testing;
use millpond_fs::keeper::{self, KeeperOptions};
use millpond_fs::mounter::{self, MounterOptions};
use millpond_process::telemetry;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Signal, set_parent_process_death_signal};

/// How long a keeper waits for a driver.
const SERVER_ABSENCE_TIMEOUT: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("failed to follow the test's end")?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [role, word] = words.as_slice() else {
        bail!("test-node driver OPTIONS | keeper SOCKET | mounter SOCKET");
    };
    match role.as_str() {
        "driver" => drive(word),
        "keeper" => keeper::listen(&KeeperOptions {
            socket: word.into(),
            limit: SERVER_ABSENCE_TIMEOUT,
        })
        .context("the keeper failed"),
        "mounter" => {
            enter_namespace()?;
            mounter::listen(&MounterOptions { socket: word.into() }).context("the mounter failed")
        }
        other => bail!("no role {other}"),
    }
}

fn drive(options: &str) -> Result<()> {
    let options = serde_json::from_str(options).context("the options are no JSON")?;
    let _telemetry = telemetry::init(&telemetry::TelemetryOptions::default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("failed to start")?;
    let ended = runtime.block_on(testing::run(options));
    // Without waiting for threads that read what does not answer.
    std::process::exit(i32::from(ended.is_err()));
}

/// Enters a mount namespace of its own that follows the node's, as in a pod.
fn enter_namespace() -> Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).context("failed to make a mount namespace")?;
    let follows = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", follows).context("failed to follow the node's mounts")
}
