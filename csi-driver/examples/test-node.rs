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

/// How long the keeper waits for a driver.
const SERVER_ABSENCE_TIMEOUT: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("failed to set the parent death signal")?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [role, argument] = arguments.as_slice() else {
        bail!("test-node driver OPTIONS | keeper SOCKET | mounter SOCKET");
    };
    match role.as_str() {
        "driver" => drive(argument),
        "keeper" => keeper::listen(&KeeperOptions {
            socket: argument.into(),
            server_absence_timeout: SERVER_ABSENCE_TIMEOUT,
        })
        .context("the keeper failed"),
        "mounter" => {
            enter_namespace()?;
            mounter::listen(&MounterOptions {
                socket: argument.into(),
            })
            .context("the mounter failed")
        }
        other => bail!("no role {other}"),
    }
}

fn drive(options: &str) -> Result<()> {
    let options = serde_json::from_str(options).context("the options are not JSON")?;
    let _telemetry = telemetry::init(&telemetry::TelemetryOptions::default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("failed to start")?;
    let ended = runtime.block_on(testing::run(options));
    // Without waiting for threads that are blocked in reads.
    std::process::exit(i32::from(ended.is_err()));
}

/// Enters a new mount namespace that receives the node's mounts, as in a pod.
fn enter_namespace() -> Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).context("failed to create a mount namespace")?;
    let follows = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", follows).context("failed to receive the node's mounts")
}
