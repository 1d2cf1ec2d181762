//! Taking a cluster down without a trace, also what a killed run left: processes, namespaces, bridge, cgroups, files.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::Name;
use crate::cluster::Cluster;
use crate::ip::{bridges, ip};
use crate::node_name::MAX_NODES;
use crate::number::Number;
use crate::process::kill_unrecorded;
use crate::state::{Shape, State};

/// Processes of the machine: clients before servers, so that none logs its loss; etcd last.
const PROCESSES: [&str; 9] = [
    "prometheus",
    "prometheus-targets",
    "s3",
    "s3-tls",
    "coredns",
    "scheduler",
    "controller-manager",
    "apiserver",
    "etcd",
];

impl Cluster {
    /// Takes down the cluster of a name, if there is one, and copies its logs first if a folder is named.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn down(name: &Name, keep_logs: Option<&Path>) -> Result<()> {
        down(name, keep_logs).with_context(|| format!("failed to take down the cluster {name}"))
    }
}

pub(crate) fn down(name: &Name, keep_logs: Option<&Path>) -> Result<()> {
    let state = State::of(name);
    kill_unrecorded(&state.records())?;
    let number = number(name, &state)?;
    if let Some(number) = number {
        // Of as many nodes as there may be: a killed run did not write how many it wanted.
        let cluster = Cluster::of_shape(name, Shape::new(number, MAX_NODES))?;
        for node in cluster.nodes().filter(|node| node.has_traces()) {
            node.remove()?;
        }
    }
    for process in PROCESSES {
        let signal = if process == "apiserver" {
            Signal::KILL
        } else {
            Signal::TERM
        };
        state.process(process).stop(signal)?;
    }
    if let Some(number) = number {
        // The kernel removes its address and the routes to pods with it. A killed `down` may have deleted it before.
        let _deleted = ip(&["link", "delete", &number.bridge()]);
    }
    if let Some(folder) = keep_logs.filter(|_| state.log_dir().is_dir()) {
        copy_files(&state.log_dir(), folder)
            .with_context(|| format!("failed to copy the logs to {}", folder.display()))?;
    }
    for folder in [state.dir(), &name.etcd_dir()] {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("failed to remove {}", folder.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns the cluster's number; that of a run which was killed before it wrote it is found by its bridge's alias.
fn number(name: &Name, state: &State) -> Result<Option<Number>> {
    let mark = name.mark();
    let mut bridges = bridges()?.into_iter();
    let ours = bridges.find(|bridge| bridge.alias.as_ref() == Some(&mark));
    if let Some(number) = ours.and_then(|bridge| Number::of_bridge(&bridge.name)) {
        return Ok(Some(number));
    }
    // A file that was half written when the run was killed is ignored.
    state.shape().ok().flatten().map(Shape::number).transpose()
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
