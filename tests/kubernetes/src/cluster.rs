//! The cluster that the cases run on: made by `tests/cluster`, or any other by `KUBECONFIG`.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::{Kubectl, eventually};

/// Two: one has a worker, the other has none.
const NODES: &str = "2";

/// What the controllers of Kubernetes may ask in a second. Their own limit, 20, is what a thousand claims would wait for:
/// the binder of volumes writes twice for each.
const CONTROLLER_QPS: &str = "200";

/// A fresh node's taint goes within a second.
const NODES_GUARD: Duration = Duration::from_secs(15);

/// A cluster. One that was made here is taken down when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    kubectl: Kubectl,
    /// The name of one that `tests/cluster` has made; `None`: somebody else's.
    name: Option<String>,
    /// Whether it was made for this run.
    is_new: bool,
}

impl Cluster {
    /// Brings one up, or takes the one that `MILLPOND_CLUSTER` names (of `tests/cluster/up`), or any by `KUBECONFIG`.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start() -> Result<Self> {
        let up = given("MILLPOND_CLUSTER");
        if let (None, Some(kubeconfig)) = (&up, given("KUBECONFIG")) {
            let kubectl = Kubectl::new(vec!["kubectl".into()], kubeconfig.into());
            kubectl.run(&["version"])?;
            return Ok(Self {
                kubectl,
                name: None,
                is_new: false,
            });
        }
        let is_new = up.is_none();
        let name = up.unwrap_or_else(|| format!("tests-{}", std::process::id()));
        if is_new {
            let words = ["--nodes", NODES, "--controller-qps", CONTROLLER_QPS, "--replace"];
            script(&[["tests/cluster/up", "--name", &name].as_slice(), &words].concat())?;
        }
        let kubeconfig = Path::new("/tmp").join(format!("millpond-cluster-{name}/kubeconfig/admin.yaml"));
        let kubectl = Kubectl::new(vec![tool("kube"), "kubectl".into()], kubeconfig);
        Ok(Self {
            kubectl,
            name: Some(name),
            is_new,
        })
    }

    /// Speaks to it.
    pub const fn kubectl(&self) -> &Kubectl {
        &self.kubectl
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

    /// Runs one of the scripts in `tests/cluster`.
    ///
    /// # Errors
    /// It fails, or the cluster is somebody else's.
    pub fn script(&self, words: &[&str]) -> Result<String> {
        let name = self
            .name
            .as_ref()
            .context("this cluster is not ours to disturb")?;
        let program = format!("tests/cluster/{}", words.first().context("a script has a name")?);
        let output = in_workspace(&program)
            .args(words.get(1..).unwrap_or_default())
            .env("MILLPOND_CLUSTER", name)
            .output()?;
        ensure!(
            output.status.success(),
            "{} failed: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Makes an image archive known to all nodes. Somebody else's cluster is to know the images already.
    ///
    /// # Errors
    /// A node does not take it.
    pub fn load(&self, archive: &Path) -> Result<()> {
        if self.name.is_none() {
            return Ok(());
        }
        let archive = archive.to_str().context("a path of ours is UTF-8")?;
        self.script(&["load", archive]).map(drop)
    }

    /// The address at which pods reach this machine: of somebody else's cluster as `MILLPOND_TESTS_HOST` says.
    ///
    /// # Errors
    /// Nobody says it.
    pub fn host_address(&self) -> Result<Ipv4Addr> {
        let Some(name) = &self.name else {
            let host = given("MILLPOND_TESTS_HOST");
            let host =
                host.context("set MILLPOND_TESTS_HOST to the IPv4 address at which pods reach this machine")?;
            return host
                .parse()
                .with_context(|| format!("MILLPOND_TESTS_HOST={host} is no IPv4 address"));
        };
        let number = Path::new("/tmp").join(format!("millpond-cluster-{name}/number"));
        let number: u8 = std::fs::read_to_string(&number)?.trim().parse()?;
        Ok(Ipv4Addr::new(10, 200 + number, 0, 254))
    }

    /// Runs a command inside a node.
    ///
    /// # Errors
    /// It fails.
    pub fn on_node(&self, node: &str, words: &[&str]) -> Result<String> {
        let mut all = vec!["node", node];
        all.extend_from_slice(words);
        self.script(&all)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Some(name) = self.name.as_ref().filter(|_| self.is_new) else {
            return;
        };
        let mut words = vec!["tests/cluster/down", "--name", name];
        let logs = std::env::var("MILLPOND_TESTS_LOGS").unwrap_or_default();
        if !logs.is_empty() {
            words.extend(["--keep-logs", &logs]);
        }
        if let Err(error) = script(&words) {
            eprintln!("the cluster {name} is not down: {error:#}");
        }
    }
}

/// A variable of the environment that says something.
pub(crate) fn given(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether the cases run on a cluster that was not made by `tests/cluster`, of which not all can be stopped from here.
pub fn is_foreign() -> bool {
    given("MILLPOND_CLUSTER").is_none() && given("KUBECONFIG").is_some()
}

/// A program that `scripts/deps` has built.
pub(crate) fn tool(name: &str) -> PathBuf {
    let tools = std::env::var_os("MILLPOND_TOOLS").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/millpond/tools"));
    tools.or_else(home).unwrap_or_default().join("bin").join(name)
}

/// The root of the repository.
pub fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

/// A program, run at the root of the repository.
pub(crate) fn in_workspace(program: &str) -> Command {
    let mut command = Command::new(workspace().join(program));
    command.current_dir(workspace());
    command
}

/// Runs a script of the repository, its output shown.
pub(crate) fn script(words: &[&str]) -> Result<()> {
    let (program, rest) = words.split_first().context("a script has a name")?;
    let status = in_workspace(program)
        .args(rest)
        .status()
        .with_context(|| format!("failed to run {program}"))?;
    if !status.success() {
        bail!("{} failed: {status}", words.join(" "));
    }
    Ok(())
}
