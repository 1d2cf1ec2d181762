//! A node's cgroup, one in every hierarchy, whether the machine has the unified one, those of version 1, or both: two
//! kubelets below one root would take each other's pods for their own.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{Name, NodeName};

const ROOT: &str = "/sys/fs/cgroup";

/// Where a machine of version 1 has its unified hierarchy; systemd and runc make groups there as well.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    name: String,
}

impl Cgroup {
    pub(crate) fn of(cluster: &Name, node: NodeName) -> Self {
        Self {
            name: format!("millpond-{cluster}-{node}"),
        }
    }

    /// Returns its path below the root of each hierarchy.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.name)
    }

    pub(crate) fn create(&self) -> Result<()> {
        for hierarchy in hierarchies()? {
            let group = hierarchy.join(&self.name);
            fs::create_dir_all(&group).with_context(|| format!("failed to create {}", group.display()))?;
            let controllers = hierarchy.join("cgroup.controllers");
            if controllers.exists() {
                let enabled: Vec<_> = fs::read_to_string(controllers)?
                    .split_whitespace()
                    .map(|controller| format!("+{controller}"))
                    .collect();
                fs::write(hierarchy.join("cgroup.subtree_control"), enabled.join(" "))?;
            } else if hierarchy.join("cpuset.cpus").exists() {
                // Version 1: nothing can run in a new cpuset until it has its processors and memory.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    fs::write(group.join(file), fs::read(hierarchy.join(file))?)?;
                }
            }
        }
        Ok(())
    }

    /// Removes it and all groups below; `false`: a process is still in one.
    pub(crate) fn remove(&self) -> Result<bool> {
        let mut is_removed = true;
        for hierarchy in hierarchies()?.into_iter().chain([PathBuf::from(UNIFIED)]) {
            is_removed &= remove_tree(&hierarchy.join(&self.name))?;
        }
        Ok(is_removed)
    }
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    if Path::new(ROOT).join("cgroup.controllers").exists() {
        return Ok(vec![ROOT.into()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(ROOT)? {
        let entry = entry?;
        // Links lead to hierarchies of several controllers.
        if entry.file_type()?.is_dir() && entry.path() != Path::new(UNIFIED) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Removes the group and those below it, deepest first.
fn remove_tree(group: &Path) -> Result<bool> {
    let entries = match fs::read_dir(group) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error.into()),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(group) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(_busy) => Ok(false),
    }
}
