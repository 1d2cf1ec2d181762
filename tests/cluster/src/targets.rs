//! Which pods Prometheus scrapes.
//!
//! Debian's Prometheus is built without the discovery of Kubernetes. So this watches the pods of Millpond, as that would,
//! and writes those with a port named `metrics` into a file, which Prometheus watches (`file_sd`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::{WatchStreamExt, watcher};
use serde::Serialize;

use crate::api::client;
use crate::cluster::Cluster;

const SELECTOR: &str = "app.kubernetes.io/part-of=millpond";
const COMPONENT: &str = "app.kubernetes.io/component";

/// Before the next request to an API server that is unavailable.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// An entry of the file, in the form of Prometheus.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Target {
    targets: [String; 1],
    labels: BTreeMap<&'static str, String>,
}

impl Target {
    /// Returns the entry of a pod; `None`: there is nothing to scrape.
    fn of(pod: &Pod) -> Option<Self> {
        let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
        if status.phase.as_deref() != Some("Running") {
            return None;
        }
        let address = status.pod_ip.as_ref()?;
        let mut ports = spec
            .containers
            .iter()
            .flat_map(|container| container.ports.iter().flatten());
        let port = ports.find(|port| port.name.as_deref() == Some("metrics"))?;
        let component = pod.labels().get(COMPONENT).cloned().unwrap_or_default();
        let labels = [
            ("component", component),
            ("node", spec.node_name.clone().unwrap_or_default()),
            ("pod", pod.name_any()),
        ];
        Some(Self {
            targets: [format!("{address}:{}", port.container_port)],
            labels: labels.into(),
        })
    }
}

/// Keeps the file of a cluster current until it is killed.
///
/// # Errors
/// The file cannot be written.
pub fn follow_targets(cluster: &Cluster) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let file = cluster.prometheus().targets_file();
    runtime.block_on(async {
        let pods = kube::Api::<Pod>::all(client(&cluster.kubeconfig()).await?);
        let config = watcher::Config::default().labels(SELECTOR);
        let mut events = watcher(pods, config).default_backoff().boxed();
        let mut targets = Targets::default();
        loop {
            match events.next().await.context("the watch ended")? {
                Ok(event) => {
                    if targets.apply(event) {
                        targets.write(&file)?;
                    }
                }
                // The API server is unavailable: the last targets stay until it is back.
                Err(_unavailable) => tokio::time::sleep(RETRY_DELAY).await,
            }
        }
    })
}

/// By the uid of the pod.
#[derive(Debug, Default)]
struct Targets {
    current: BTreeMap<String, Target>,
    /// Those of a list that is not complete yet.
    next: BTreeMap<String, Target>,
}

impl Targets {
    /// Takes an event in; `true`: the targets may be others.
    fn apply(&mut self, event: watcher::Event<Pod>) -> bool {
        let key = |pod: &Pod| pod.uid().unwrap_or_default();
        match event {
            watcher::Event::Init => {
                self.next.clear();
                return false;
            }
            watcher::Event::InitApply(pod) => {
                self.next
                    .extend(Target::of(&pod).map(|target| (key(&pod), target)));
                return false;
            }
            watcher::Event::InitDone => self.current = std::mem::take(&mut self.next),
            watcher::Event::Apply(pod) => {
                self.current.remove(&key(&pod));
                self.current
                    .extend(Target::of(&pod).map(|target| (key(&pod), target)));
            }
            watcher::Event::Delete(pod) => {
                self.current.remove(&key(&pod));
            }
        }
        true
    }

    /// Writes the file in one step, so that no half is read.
    fn write(&self, file: &Path) -> Result<()> {
        let targets: Vec<_> = self.current.values().collect();
        let new = file.with_extension("json.new");
        fs::write(&new, serde_json::to_vec(&targets)?)?;
        Ok(fs::rename(new, file)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, phase: &str, port: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": uid, "labels": {COMPONENT: "csi-driver"}},
            "spec": {"nodeName": "n1", "containers": [
                {"name": "a"},
                {"name": "b", "ports": [{"name": "grpc", "containerPort": 1}, {"name": port, "containerPort": 9401}]},
            ]},
            "status": {"phase": phase, "podIP": "10.200.1.7"},
        }))
        .unwrap()
    }

    #[test]
    fn are_the_running_pods_with_a_port_for_metrics() {
        let target = Target::of(&pod("1", "Running", "metrics")).unwrap();
        let json = serde_json::to_value(target).unwrap();
        let labels = json!({"component": "csi-driver", "node": "n1", "pod": "p"});
        assert_eq!(json, json!({"targets": ["10.200.1.7:9401"], "labels": labels}));
        assert!(Target::of(&pod("1", "Pending", "metrics")).is_none());
        assert!(Target::of(&pod("1", "Running", "other")).is_none());
        assert!(Target::of(&Pod::default()).is_none());
    }

    #[test]
    fn follow_what_the_watch_says() {
        let mut targets = Targets::default();
        let running = |uid: &str| pod(uid, "Running", "metrics");
        assert!(targets.apply(watcher::Event::Apply(running("1"))));
        assert!(targets.apply(watcher::Event::Apply(running("2"))));
        assert!(targets.apply(watcher::Event::Delete(running("1"))));
        assert!(targets.current.keys().eq(["2"]));
        // A new list replaces all, at its end.
        assert!(!targets.apply(watcher::Event::Init));
        assert!(!targets.apply(watcher::Event::InitApply(running("3"))));
        assert!(targets.current.keys().eq(["2"]));
        assert!(targets.apply(watcher::Event::InitDone));
        assert!(targets.current.keys().eq(["3"]));
        assert!(targets.apply(watcher::Event::Apply(pod("3", "Succeeded", "metrics"))));
        assert!(targets.current.is_empty());
    }
}
