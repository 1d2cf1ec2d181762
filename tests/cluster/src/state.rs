//! The folder of a cluster: what a cluster keeps outlives the program that brought it up.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::number::Number;
use crate::process::Process;
use crate::{Name, NodeName};

/// What is fixed for a cluster's life.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Shape {
    number: u8,
    pub(crate) nodes: u8,
}

impl Shape {
    pub(crate) const fn new(number: Number, nodes: u8) -> Self {
        Self {
            number: number.get(),
            nodes,
        }
    }

    pub(crate) fn number(self) -> Result<Number> {
        Number::new(self.number)
    }
}

/// The folder of the cluster of a name, whether it is there or not.
#[derive(Clone, Debug)]
pub(crate) struct State {
    dir: PathBuf,
}

impl State {
    pub(crate) fn of(name: &Name) -> Self {
        Self {
            dir: name.state_dir(),
        }
    }

    #[cfg(test)]
    pub(crate) fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Creates the folders, those of keys for root alone.
    pub(crate) fn create(&self) -> Result<()> {
        for folder in ["log", "pids", "nodes", "pki", "kubeconfig"] {
            let folder = self.dir.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        }
        for folder in ["pki", "kubeconfig"] {
            fs::set_permissions(self.dir.join(folder), fs::Permissions::from_mode(0o700))?;
        }
        Ok(())
    }

    /// Returns the shape of the cluster; `None`: no cluster of the name got so far.
    pub(crate) fn shape(&self) -> Result<Option<Shape>> {
        match fs::read(self.shape_file()) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .with_context(|| format!("{} is damaged", self.shape_file().display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => bail!("failed to read {}: {error}", self.shape_file().display()),
        }
    }

    pub(crate) fn write_shape(&self, shape: Shape) -> Result<()> {
        fs::write(self.shape_file(), serde_json::to_vec(&shape)?)?;
        Ok(())
    }

    fn shape_file(&self) -> PathBuf {
        self.dir.join("cluster.json")
    }

    /// Returns the process that is recorded, or will be, under this name.
    pub(crate) fn process(&self, name: &str) -> Process {
        Process::new(name, self.records().join(name), self.log(name))
    }

    /// Returns the folder of the records of processes.
    pub(crate) fn records(&self) -> PathBuf {
        self.dir.join("pids")
    }

    pub(crate) fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Returns the log of a process.
    pub(crate) fn log(&self, process: &str) -> PathBuf {
        self.log_dir().join(format!("{process}.log"))
    }

    /// Returns a file of keys and certificates.
    pub(crate) fn pki(&self, file: &str) -> PathBuf {
        self.dir.join("pki").join(file)
    }

    /// Returns the kubeconfig of a client.
    pub(crate) fn kubeconfig(&self, client: &str) -> PathBuf {
        self.dir.join("kubeconfig").join(format!("{client}.yaml"))
    }

    /// Returns the directories of a node that are its disk: they outlive the node's processes.
    pub(crate) fn disk(&self, node: NodeName) -> PathBuf {
        self.dir.join("nodes").join(node.to_string())
    }
}
