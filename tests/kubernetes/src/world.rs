//! Everything that the cases have in common, up before the first of them.

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use test_cluster::{tool, tools_dir};

use crate::cluster::{given, in_workspace};
use crate::namespace::GUARD;
use crate::{Answer, Bucket, Cluster, Kubectl, Namespace, S3, eventually, is_foreign, plugin, workspace};

/// Where Millpond is installed.
pub const SYSTEM: &str = "millpond-system";

/// The pool of the cases: its worker is on the first node alone.
pub const POOL: &str = "pond";

/// The image that `tests/run` builds.
const DEFAULT_IMAGE: &str = "millpond.test/millpond:test";

/// What the cases call the nodes, by a label; the first one has the worker.
const NODES: [&str; 2] = ["n1", "n2"];

/// See [`NODES`].
pub(crate) const NODE_LABEL: &str = "millpond.test/node";

/// See the module's documentation.
#[derive(Debug)]
pub struct World {
    /// The source.
    pub s3: S3,
    /// Another one, with other credentials.
    pub other: S3,
    nodes: [String; 2],
    /// Dropped last: everything runs on it.
    pub cluster: Arc<Cluster>,
}

impl World {
    /// Brings everything up, on a cluster of [`Cluster::start`].
    ///
    /// # Errors
    /// Something does not come up.
    pub fn start() -> Result<Self> {
        Self::on(Arc::new(Cluster::start()?))
    }

    /// Brings everything up on a cluster.
    ///
    /// # Errors
    /// Something does not come up.
    pub fn on(cluster: Arc<Cluster>) -> Result<Self> {
        let address = cluster.host_address()?;
        let world = Self {
            s3: S3::start(address, "pond-key", "pond-secret-of-many-letters")?,
            other: S3::start(address, "other-key", "other-secret-of-many-letters")?,
            nodes: cluster.nodes()?,
            cluster,
        };
        world.install()?;
        Ok(world)
    }

    /// Speaks to the cluster.
    pub fn kubectl(&self) -> &Kubectl {
        self.cluster.kubectl()
    }

    /// A namespace for a case.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        Namespace::make(self.kubectl(), name)
    }

    /// The name of a node that the cases call `n1` or `n2`.
    ///
    /// # Errors
    /// It is neither.
    pub fn node(&self, node: &str) -> Result<&str> {
        let place = NODES.iter().position(|name| *name == node);
        let name = place.and_then(|place| self.nodes.get(place));
        name.map(String::as_str)
            .with_context(|| format!("there is no node {node}"))
    }

    /// A namespace for a case, an empty bucket of its name, and the bucket's keys in the Secret `source`.
    ///
    /// # Errors
    /// One of them cannot be made.
    pub fn source(&self, name: &str) -> Result<(Namespace, Bucket<'_>)> {
        let namespace = self.namespace(name)?;
        let bucket = self.s3.bucket(name)?;
        namespace.apply(&self.s3.secret("source"))?;
        Ok((namespace, bucket))
    }

    /// Installs Millpond and the pool of the cases; the image and chart only if no earlier run on this cluster has.
    fn install(&self) -> Result<()> {
        let archive = workspace().join("target/image/millpond.tar");
        let image = given("MILLPOND_TESTS_IMAGE").unwrap_or_else(|| DEFAULT_IMAGE.to_owned());
        let wanted = format!(
            "{image} {:?}\n",
            archive.metadata().and_then(|file| file.modified()).ok()
        );
        let mut installed = self.cluster.shared_file("installed")?;
        installed
            .lock()
            .context("failed to wait for another run's install")?;
        let mut found = String::new();
        installed.read_to_string(&mut found)?;
        // What is in a foreign cluster, its own file does not say.
        if found != wanted || is_foreign() {
            self.cluster
                .load(&[archive, tools_dir().join("images/busybox.tar")])?;
            self.install_chart(&image)?;
            if !found.is_empty() {
                // Pods that run do not see a new image of the same name.
                self.kubectl()
                    .run(&["--namespace", SYSTEM, "delete", "pods", "--all"])?;
            }
            installed.set_len(0)?;
            installed.write_all_at(wanted.as_bytes(), 0)?;
        }
        self.kubectl().apply(&format!(
            "apiVersion: millpond.io/v1alpha1\nkind: CachePool\nmetadata: {{name: {POOL}, annotations: \
             {{millpond.io/is-default-pool: \"true\"}}}}\nspec:\n  nodeSelector: {{{NODE_LABEL}: n1}}\n  tiers:\n  \
             - {{medium: Memory, capacity: 64Mi}}\n  - {{medium: Disk, path: /mnt/millpond, capacity: 1Gi, minFreePercent: 0}}\n"
        ))?;
        self.wait_ready()
    }

    fn install_chart(&self, image: &str) -> Result<()> {
        for (name, node) in NODES.iter().zip(&self.nodes) {
            let label = format!("{NODE_LABEL}={name}");
            self.kubectl()
                .run(&["label", "node", node, &label, "--overwrite"])?;
        }
        let (repository, tag) = image
            .rsplit_once(':')
            .context("MILLPOND_TESTS_IMAGE has no tag")?;
        self.helm(&[
            "upgrade",
            "--install",
            "millpond",
            "deploy/chart",
            "--namespace",
            SYSTEM,
            "--create-namespace",
            "--set-string",
            &format!("image.repository={repository},image.tag={tag},image.pullPolicy=IfNotPresent"),
        ])
        .map(drop)
    }

    /// Waits until every component runs.
    ///
    /// # Errors
    /// One does not.
    pub fn wait_ready(&self) -> Result<()> {
        for workload in [
            "deployment/millpond-controller",
            "daemonset/millpond-csi-driver",
            "daemonset/millpond-keeper",
            &format!("daemonset/millpond-worker-{POOL}"),
        ] {
            eventually(&format!("{workload} to run"), GUARD, || {
                let found = self.kubectl().json(&["--namespace", SYSTEM, workload])?;
                let number = |path: &str| found.pointer(path).and_then(serde_json::Value::as_i64);
                let wanted = number("/status/desiredNumberScheduled").or(number("/spec/replicas"));
                let ready = number("/status/numberReady")
                    .or(number("/status/readyReplicas"))
                    .unwrap_or(0);
                let is_current = number("/status/observedGeneration") >= number("/metadata/generation");
                ensure!(
                    is_current && wanted == Some(ready),
                    "{ready} of {wanted:?} are ready"
                );
                Ok(Some(()))
            })
            .with_context(|| self.troubles())?;
        }
        Ok(())
    }

    /// Why Millpond's pods do not run, as far as they say.
    fn troubles(&self) -> String {
        let found = self.kubectl().json(&["--namespace", SYSTEM, "pods"]);
        let Ok(found) = found else {
            return "the API server does not say how the pods are".to_owned();
        };
        let text = |value: &serde_json::Value, path: &str| {
            let text = value.pointer(path).and_then(serde_json::Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let list = |value: &serde_json::Value, path: &str| {
            let list = value.pointer(path).and_then(serde_json::Value::as_array);
            list.cloned().unwrap_or_default()
        };
        // Of many pods that say the same, one line.
        let mut said = std::collections::BTreeSet::new();
        for pod in list(&found, "/items") {
            let owner = text(&pod, "/metadata/ownerReferences/0/name");
            let phase = text(&pod, "/status/phase");
            said.insert(format!("{owner} {phase} {}", text(&pod, "/status/message")));
            for container in list(&pod, "/status/containerStatuses") {
                for state in ["/state/waiting", "/state/terminated", "/lastState/terminated"] {
                    let [reason, message] =
                        ["reason", "message"].map(|field| text(&container, &format!("{state}/{field}")));
                    if !reason.is_empty() {
                        said.insert(format!("{owner}: {reason} {message}"));
                    }
                }
            }
        }
        said.into_iter().take(20).collect::<Vec<_>>().join("\n")
    }

    /// Runs helm at the root of the repository.
    ///
    /// # Errors
    /// It fails.
    pub fn helm(&self, words: &[&str]) -> Result<String> {
        let output = in_workspace(&tool("helm"))
            .args(words)
            .arg("--kubeconfig")
            .arg(self.kubectl().kubeconfig())
            .output()
            .context("failed to run helm: scripts/deps")?;
        ensure!(
            output.status.success(),
            "helm {} failed: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `kubectl millpond`.
    ///
    /// # Errors
    /// It cannot be run; what it says itself is in its answer.
    pub fn plugin(&self, words: &[&str]) -> Result<Answer> {
        plugin::run(self.kubectl(), words)
    }

    /// The pods of a component, by its label `app.kubernetes.io/component`.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn pods(&self, component: &str, node: &str) -> Result<Vec<String>> {
        let label = format!("app.kubernetes.io/component={component}");
        let field = if node.is_empty() {
            String::new()
        } else {
            format!("spec.nodeName={}", self.node(node)?)
        };
        let mut words = vec!["--namespace", SYSTEM, "get", "pods", "-l", &label, "-o", "name"];
        if !node.is_empty() {
            words.extend(["--field-selector", &field]);
        }
        Ok(self.kubectl().run(&words)?.lines().map(str::to_owned).collect())
    }

    /// Requests that the kernel has sent to the driver of a node so far, of all Datasets.
    ///
    /// # Errors
    /// Its metrics cannot be read.
    pub fn fuse_requests(&self, node: &str) -> Result<f64> {
        let pods = self.pods("csi-driver", node)?;
        let pod = pods.first().context("the node has no driver")?;
        let name = pod.trim_start_matches("pod/");
        let path = format!("/api/v1/namespaces/{SYSTEM}/pods/{name}:9401/proxy/metrics");
        let metrics = self.kubectl().run(&["get", "--raw", &path])?;
        let counters = metrics
            .lines()
            .filter(|line| line.starts_with("millpond_fuse_operations_total{"));
        counters
            .map(|line| {
                let (_, value) = line.rsplit_once(' ').context("a metric has a value")?;
                Ok(value.parse::<f64>()?)
            })
            .sum()
    }

    /// Deletes the pods of a component on a node, and waits until others run.
    ///
    /// # Errors
    /// No others come.
    pub fn replace_pods(&self, component: &str, node: &str) -> Result<()> {
        let pods = self.pods(component, node)?;
        ensure!(!pods.is_empty(), "there is no {component} on {node}");
        for pod in &pods {
            self.kubectl()
                .run(&["--namespace", SYSTEM, "delete", pod, "--wait=true"])?;
        }
        eventually(
            &format!("another {component} on {node}"),
            Duration::from_secs(60),
            || {
                let now = self.pods(component, node)?;
                Ok((!now.is_empty() && now.iter().all(|pod| !pods.contains(pod))).then_some(()))
            },
        )?;
        self.wait_ready()
    }

    /// Kills every process of a name on a node.
    ///
    /// # Errors
    /// There is none.
    pub fn kill(&self, node: &str, program: &str) -> Result<()> {
        self.cluster
            .node(self.node(node)?)?
            .run(&["pkill", "-KILL", "-x", &program[..program.len().min(15)]])
            .map(drop)
    }
}
