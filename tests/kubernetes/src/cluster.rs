//! The cluster that the cases run on: made by `millpond-cluster`, or any other by `KUBECONFIG`.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use test_cluster::{Kubectl, UpOptions, eventually};

/// Two: one has a worker, the other has none.
const NODES: u8 = 2;

/// What the controllers of Kubernetes may ask in a second. Their own limit, 20, is what a thousand claims would wait for:
/// the binder of volumes writes twice for each.
const CONTROLLER_QPS: u32 = 200;

/// A fresh node's taint goes within a second.
const NODES_GUARD: Duration = Duration::from_secs(15);

/// A cluster. One that was made here is taken down when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    kubectl: Kubectl,
    origin: Origin,
}

/// Where a cluster comes from.
#[derive(Debug)]
enum Origin {
    /// Brought up for this run.
    New(test_cluster::Cluster),
    /// Brought up by `millpond-cluster up`.
    Named(test_cluster::Cluster),
    /// Not made by `millpond-cluster`: its machines cannot be stopped or looked into.
    Foreign,
}

impl Cluster {
    /// Brings one up, or takes the one that `MILLPOND_CLUSTER` names (of `millpond-cluster up`), or any by `KUBECONFIG`.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start() -> Result<Self> {
        let (name, kubeconfig) = (given("MILLPOND_CLUSTER"), given("KUBECONFIG"));
        let origin = match (name, kubeconfig) {
            (Some(name), _) => Origin::Named(test_cluster::Cluster::open(&name.parse()?)?),
            (None, Some(kubeconfig)) => {
                let kubectl = Kubectl::new(vec!["kubectl".into()], kubeconfig.into());
                kubectl.run(&["version"])?;
                return Ok(Self {
                    kubectl,
                    origin: Origin::Foreign,
                });
            }
            (None, None) => Origin::New(Self::bring_up()?),
        };
        let cluster = match &origin {
            Origin::New(cluster) | Origin::Named(cluster) => Some(cluster),
            Origin::Foreign => None,
        };
        let kubectl = cluster
            .context("a foreign cluster has its own kubectl")?
            .kubectl();
        Ok(Self { kubectl, origin })
    }

    fn bring_up() -> Result<test_cluster::Cluster> {
        ensure!(
            given("NEXTEST").is_none(),
            "cases in processes of their own share a cluster: millpond-cluster up --nodes {NODES} --controller-qps \
             {CONTROLLER_QPS}, and set MILLPOND_CLUSTER"
        );
        let name = format!("tests-{}", std::process::id()).parse()?;
        let options = UpOptions {
            nodes: NODES,
            controller_qps: CONTROLLER_QPS,
            replace: true,
            ..UpOptions::new(name)
        };
        test_cluster::Cluster::up(&options, |time, step| {
            eprintln!("{:>5} ms  {step}", time.as_millis());
        })
    }

    /// Speaks to it.
    pub const fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// What can be stopped and looked into.
    ///
    /// # Errors
    /// The cluster was not made by `millpond-cluster`.
    pub fn own(&self) -> Result<&test_cluster::Cluster> {
        match &self.origin {
            Origin::New(cluster) | Origin::Named(cluster) => Ok(cluster),
            Origin::Foreign => Err(anyhow!("this cluster is not ours to disturb")),
        }
    }

    /// A node by its name.
    ///
    /// # Errors
    /// There is none, or the cluster was not made by `millpond-cluster`.
    pub fn node(&self, name: &str) -> Result<test_cluster::Node<'_>> {
        self.own()?.node(name.parse()?)
    }

    /// The names of two of its nodes that pods can run on. A node that was just made loses its taint in a moment.
    ///
    /// # Errors
    /// There are fewer, after some seconds too.
    pub fn nodes(&self) -> Result<[String; 2]> {
        eventually("two nodes", NODES_GUARD, || self.free_nodes().map(Some))
    }

    fn free_nodes(&self) -> Result<[String; 2]> {
        let nodes = self.kubectl.json(&["nodes"])?;
        let is_free = |node: &&Value| {
            let taints = node.pointer("/spec/taints").and_then(Value::as_array);
            taints.is_none_or(Vec::is_empty)
        };
        let nodes = nodes.get("items").and_then(Value::as_array).into_iter().flatten();
        let names = nodes
            .filter(is_free)
            .filter_map(|node| node.pointer("/metadata/name")?.as_str());
        let names: Vec<_> = names.take(2).map(str::to_owned).collect();
        <[String; 2]>::try_from(names)
            .map_err(|few| anyhow!("two nodes without taints are needed, and there are {few:?}"))
    }

    /// Makes image archives known to all nodes. A foreign cluster is to know the images already.
    ///
    /// # Errors
    /// A node does not take one.
    pub fn load(&self, archives: &[PathBuf]) -> Result<()> {
        match &self.origin {
            Origin::New(cluster) | Origin::Named(cluster) => cluster.load(archives),
            Origin::Foreign => Ok(()),
        }
    }

    /// The address at which pods reach this machine: of a foreign cluster that of `MILLPOND_TESTS_HOST`.
    ///
    /// # Errors
    /// `MILLPOND_TESTS_HOST` is not set.
    pub fn host_address(&self) -> Result<Ipv4Addr> {
        if let Ok(cluster) = self.own() {
            return Ok(cluster.host_address());
        }
        let host = given("MILLPOND_TESTS_HOST");
        let host =
            host.context("set MILLPOND_TESTS_HOST to the IPv4 address at which pods reach this machine")?;
        host.parse()
            .with_context(|| format!("MILLPOND_TESTS_HOST={host} is no IPv4 address"))
    }

    /// A file that all runs on this cluster share; it is removed with the cluster.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn shared_file(&self, name: &str) -> Result<File> {
        let folder = match &self.origin {
            Origin::New(cluster) | Origin::Named(cluster) => cluster.state_dir().to_owned(),
            Origin::Foreign => std::env::temp_dir(),
        };
        let file = folder.join(format!("millpond-{name}"));
        let opened = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&file);
        opened.with_context(|| format!("failed to open {}", file.display()))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Origin::New(cluster) = &self.origin else {
            return;
        };
        let logs = given("MILLPOND_TESTS_LOGS").map(PathBuf::from);
        if let Err(error) = test_cluster::Cluster::down(cluster.name(), logs.as_deref()) {
            eprintln!("{error:#}");
        }
    }
}

/// A variable of the environment that is set and not empty.
pub(crate) fn given(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether the cases run on a cluster that was not made by `millpond-cluster`, of which not all can be stopped from here.
pub fn is_foreign() -> bool {
    given("MILLPOND_CLUSTER").is_none() && given("KUBECONFIG").is_some()
}

/// A program, run at the root of the repository.
pub(crate) fn in_workspace(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(test_cluster::workspace());
    command
}
