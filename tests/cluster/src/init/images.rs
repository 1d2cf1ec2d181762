//! The images that every node has.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::NodeName;
use crate::cluster::Cluster;
use crate::init::configuration::CONTAINERD_SOCKET;
use crate::init::supervisor::Supervisor;
use crate::tools::tools_dir;
use crate::wait::{POLL_INTERVAL, poll};

/// containerd listens in less than a second.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(60);

/// Waits for containerd, and imports what the node does not have: one that returns has them on its disk.
pub(super) fn import_all(cluster: &Cluster, node: NodeName, supervisor: &mut Supervisor<'_>) -> Result<()> {
    poll("containerd", LISTEN_TIMEOUT, POLL_INTERVAL, || {
        supervisor.restart_ended()?;
        Ok(UnixStream::connect(CONTAINERD_SOCKET).ok())
    })?;
    for archive in archives()? {
        let name = archive.file_name().context("an archive has a name")?.display();
        let mark = cluster.state().disk(node).join(format!("imported-{name}"));
        if mark.exists() {
            continue;
        }
        let mut import = Command::new("ctr");
        import
            .args(["--namespace", "k8s.io", "images", "import"])
            .arg(&archive);
        let status = import.status()?;
        ensure!(
            status.success(),
            "failed to import {}: {status}",
            archive.display()
        );
        File::create(mark)?;
    }
    Ok(())
}

fn archives() -> Result<Vec<PathBuf>> {
    let folder = tools_dir().join("images");
    let entries = fs::read_dir(&folder);
    let entries =
        entries.with_context(|| format!("{} is missing: scripts/deps cluster", folder.display()))?;
    let mut archives = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tar") {
            archives.push(path);
        }
    }
    archives.sort();
    Ok(archives)
}
