//! A cluster that is up, or was: it outlives the program that brought it up, and is found by its name.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::api::Api;
use crate::control_plane::ApiServer;
use crate::number::Number;
use crate::prometheus::Prometheus;
use crate::s3::S3;
use crate::state::{Shape, State};
use crate::tools::{architecture, tool};
use crate::{Kubectl, Name, Node, NodeName};

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Cluster {
    name: Name,
    state: State,
    number: Number,
    nodes: u8,
}

impl Cluster {
    /// Finds the cluster of a name.
    ///
    /// # Errors
    /// None of that name is up.
    pub fn open(name: &Name) -> Result<Self> {
        let shape = State::of(name).shape()?;
        let shape =
            shape.with_context(|| format!("cluster {name} is not up (millpond-cluster up --name {name})"))?;
        Self::of_shape(name, shape)
    }

    pub(crate) fn of_shape(name: &Name, shape: Shape) -> Result<Self> {
        Ok(Self {
            state: State::of(name),
            number: shape.number()?,
            nodes: shape.nodes,
            name: name.clone(),
        })
    }

    /// Returns its name.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// Returns the kubeconfig of a user who may do everything.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.kubeconfig("admin")
    }

    /// Returns its `kubectl`.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(vec![tool("kube"), "kubectl".into()], self.kubeconfig())
    }

    /// Returns the folder of everything it stores, which `down` removes.
    pub fn state_dir(&self) -> &Path {
        self.state.dir()
    }

    /// Returns the folder of its logs.
    pub fn log_dir(&self) -> PathBuf {
        self.state.log_dir()
    }

    /// Returns the machine's address as nodes and pods see it.
    pub const fn host_address(&self) -> Ipv4Addr {
        self.number.host_address()
    }

    /// Returns how many nodes it has, running or not.
    pub const fn node_count(&self) -> u8 {
        self.nodes
    }

    /// Returns the names of its nodes.
    pub fn node_names(&self) -> impl Iterator<Item = NodeName> + use<> {
        NodeName::first(self.nodes)
    }

    /// Returns its nodes.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        self.node_names().map(|name| Node::new(self, name))
    }

    /// Returns a node.
    ///
    /// # Errors
    /// It has none of that name.
    pub fn node(&self, name: NodeName) -> Result<Node<'_>> {
        ensure!(
            name.index() <= self.nodes,
            "cluster {} has no node '{name}': its nodes are n1 to n{}",
            self.name,
            self.nodes
        );
        Ok(Node::new(self, name))
    }

    /// Returns its API server.
    pub const fn api_server(&self) -> ApiServer<'_> {
        ApiServer::of(self)
    }

    /// Returns its S3 server.
    pub const fn s3(&self) -> S3<'_> {
        S3::of(self)
    }

    /// Returns its Prometheus.
    pub const fn prometheus(&self) -> Prometheus<'_> {
        Prometheus::of(self)
    }

    /// Imports image archives into every running node.
    ///
    /// # Errors
    /// A node does not take one.
    pub fn load(&self, archives: &[PathBuf]) -> Result<()> {
        let platform = format!("linux/{}", architecture());
        let import = |node: Node<'_>| -> Result<()> {
            for archive in archives {
                let opened = File::open(archive);
                // By its standard input: the node has its own /mnt, and others may hide more.
                let output = node
                    .command("ctr")?
                    .args([
                        "--namespace",
                        "k8s.io",
                        "images",
                        "import",
                        "--platform",
                        &platform,
                        "-",
                    ])
                    .stdin(opened.with_context(|| format!("failed to open {}", archive.display()))?)
                    .output()?;
                if !output.status.success() {
                    let stderr = String::from_utf8_lossy(&output.stderr);
                    bail!(
                        "{} does not take {}: {}",
                        node.name(),
                        archive.display(),
                        stderr.trim()
                    );
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let running: Vec<_> = self.nodes().filter(|node| node.is_running()).collect();
            let imports: Vec<_> = running
                .into_iter()
                .map(|node| scope.spawn(move || import(node)))
                .collect();
            imports
                .into_iter()
                .try_for_each(|import| import.join().map_err(|_panic| anyhow!("an import panicked"))?)
        })
    }

    pub(crate) const fn state(&self) -> &State {
        &self.state
    }

    pub(crate) const fn number(&self) -> Number {
        self.number
    }

    pub(crate) fn api(&self) -> Result<Api> {
        Api::new(&self.kubeconfig())
    }
}
