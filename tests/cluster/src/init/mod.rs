//! The inside of a node.
//!
//! A node is a network, mount, pid, host name and ipc namespace. Its outer process enters and creates them and waits for
//! its first process, which is pid 1 inside: that runs containerd, the kubelet and kube-proxy, each again when it ends,
//! and reaps what they orphan. Kubernetes' own paths are used inside, so that unmodified manifests fit; behind them lie
//! directories of the node's own, which are its disk: they outlive it.

mod configuration;
mod images;
mod mounts;
mod supervisor;

use std::env;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::NodeName;
use crate::cluster::Cluster;
use crate::init::supervisor::Supervisor;

/// On a node's disk: the pid of its pid 1 as the machine sees it.
pub(crate) const INIT_PID: &str = "init.pid";

/// On a node's disk: the pid of its kubelet as the node sees it.
pub(crate) const KUBELET_PID: &str = "kubelet.pid";

/// Files of a node's disk that are stale once it is stopped.
pub(crate) const PID_FILES: [&str; 4] = [INIT_PID, KUBELET_PID, "containerd.pid", "proxy.pid"];

/// Is the outer process of a node. Returns when the node's first process has ended, which is always an error.
///
/// To be called while the calling process has one thread: namespaces are entered by threads, not processes.
///
/// # Errors
/// See above.
pub fn run_outer_process(cluster: &Cluster, node: NodeName) -> Result<()> {
    let network = cluster.node(node)?.link().open()?;
    setns(network, CloneFlags::CLONE_NEWNET).context("failed to enter the node's network")?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWPID,
    )
    .context("failed to create the node's namespaces")?;
    mounts::make_private()?;
    let mut init = Command::new(env::current_exe()?)
        .arg("--name")
        .arg(cluster.name().as_str())
        .arg("node-init")
        .arg(node.to_string())
        .spawn()
        .context("failed to start the node's first process")?;
    let disk = cluster.state().disk(node);
    fs::write(disk.join(INIT_PID), format!("{}\n", init.id()))?;
    let status = init.wait()?;
    bail!("the node's first process ended: {status}");
}

/// Is the first process of a node. Never returns but with an error, which ends the node.
///
/// # Errors
/// A part of the node cannot be made.
pub fn run_first_process(cluster: &Cluster, node: NodeName) -> Result<()> {
    // The kernel kills the node with its outer process.
    set_pdeathsig(Signal::SIGKILL)?;
    rustix::system::sethostname(node.to_string().as_bytes())?;
    mounts::mount_all(&cluster.state().disk(node))?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    configuration::write_all(cluster, node)?;
    let mut supervisor = Supervisor::new(cluster, node);
    supervisor.start("containerd", configuration::containerd(cluster, node))?;
    images::import_all(cluster, node, &mut supervisor)?;
    supervisor.start("kubelet", configuration::kubelet(cluster, node))?;
    supervisor.start("proxy", configuration::proxy(cluster, node))?;
    supervisor.run()
}
