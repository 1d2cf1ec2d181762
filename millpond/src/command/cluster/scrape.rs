//! Metrics of the workers, read through the API server's proxy: only its address has to be reachable.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use prometheus_parse::{Scrape, Value};
use serde::Serialize;

use super::connection::{Cluster, list};

/// Figures of one Dataset on one node's worker.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeDataset {
    pub(super) node: String,
    pub(super) namespace: String,
    pub(super) dataset: String,
    /// Bytes in the catalog.
    pub(super) total_bytes: u64,
    /// Space in the worker's tiers, in file system blocks: may exceed the files' bytes a little.
    pub(super) used_bytes: u64,
    /// Bytes read since the worker started: from this node's cache, from another's, from the source.
    pub(super) read_local_bytes: u64,
    pub(super) read_peer_bytes: u64,
    pub(super) read_origin_bytes: u64,
}

impl NodeDataset {
    pub(super) fn cached(&self) -> Option<f64> {
        part(self.used_bytes.min(self.total_bytes), self.total_bytes)
    }

    /// Returns the fraction of read bytes that came from a cache; `None`: nothing was read.
    pub(super) fn hit_ratio(&self) -> Option<f64> {
        let hits = self.read_local_bytes + self.read_peer_bytes;
        part(hits, hits + self.read_origin_bytes)
    }
}

#[expect(clippy::cast_precision_loss, reason = "for display")]
fn part(some: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| some as f64 / all as f64)
}

/// Figures of all workers, and the pods whose metrics could not be read.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    pub(super) datasets: Vec<NodeDataset>,
    pub(super) unread: Vec<String>,
}

/// Reads the metrics of every worker.
pub(super) async fn workers(cluster: &Cluster) -> Result<Nodes> {
    let pods: Api<Pod> = Api::all(cluster.client.clone());
    let workers =
        ListParams::default().labels("app.kubernetes.io/component=worker,app.kubernetes.io/name=millpond");
    let pods = list(&pods, &workers).await?;
    let responses = futures::future::join_all(pods.iter().map(|pod| metrics(cluster, pod))).await;
    let mut nodes = Nodes::default();
    for (pod, response) in pods.iter().zip(responses) {
        match response {
            Ok(text) => nodes.datasets.extend(datasets(node(pod), &text)),
            Err(error) => nodes.unread.push(format!("{}: {error:#}", pod.name_any())),
        }
    }
    nodes.datasets.sort_by(|one, other| {
        let key = |found: &NodeDataset| (found.namespace.clone(), found.dataset.clone(), found.node.clone());
        key(one).cmp(&key(other))
    });
    Ok(nodes)
}

fn node(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or("-")
}

async fn metrics(cluster: &Cluster, pod: &Pod) -> Result<String> {
    let ports = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .flat_map(|container| container.ports.iter().flatten());
    let port = ports
        .into_iter()
        .find(|port| port.name.as_deref() == Some("metrics"));
    let port = port.context("the pod has no port named metrics")?.container_port;
    let path = format!(
        "/api/v1/namespaces/{}/pods/{}:{port}/proxy/metrics",
        pod.namespace().unwrap_or_default(),
        pod.name_any()
    );
    let request = http_get(&path)?;
    Ok(cluster.client.request_text(request).await?)
}

fn http_get(path: &str) -> Result<hyper::Request<Vec<u8>>> {
    hyper::Request::get(path)
        .body(Vec::new())
        .context("failed to read the metrics")
}

/// Parses a worker's metrics; invalid lines are skipped.
fn datasets(node: &str, text: &str) -> Vec<NodeDataset> {
    // Reading from memory cannot fail; an invalid line is not an error.
    let Ok(scrape) = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))) else {
        return Vec::new();
    };
    let mut found = BTreeMap::<(String, String), NodeDataset>::new();
    for sample in scrape.samples {
        let (Some(namespace), Some(dataset)) = (sample.labels.get("namespace"), sample.labels.get("dataset"))
        else {
            continue;
        };
        let value = match sample.value {
            Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => value,
            Value::Histogram(_) | Value::Summary(_) => continue,
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "byte counts are integral and not negative"
        )]
        let bytes = value.max(0.0) as u64;
        let entry = found
            .entry((namespace.to_owned(), dataset.to_owned()))
            .or_insert_with(|| NodeDataset {
                node: node.to_owned(),
                namespace: namespace.to_owned(),
                dataset: dataset.to_owned(),
                ..NodeDataset::default()
            });
        match (sample.metric.as_str(), sample.labels.get("served_from")) {
            ("millpond_catalog_bytes", _) => entry.total_bytes = bytes,
            ("millpond_tier_used_bytes", _) => entry.used_bytes += bytes,
            ("millpond_read_bytes_total", Some("local")) => entry.read_local_bytes = bytes,
            ("millpond_read_bytes_total", Some("peer")) => entry.read_peer_bytes = bytes,
            ("millpond_read_bytes_total", Some(_)) => entry.read_origin_bytes += bytes,
            _ => {}
        }
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_s_metrics_become_a_line_for_each_dataset() {
        let text = r#"# HELP millpond_catalog_bytes Bytes of the files in the newest catalog
# TYPE millpond_catalog_bytes gauge
millpond_catalog_bytes{dataset="a",namespace="x"} 1000
millpond_catalog_bytes{dataset="b",namespace="x"} 0
# TYPE millpond_tier_used_bytes gauge
millpond_tier_used_bytes{dataset="a",medium="disk",namespace="x"} 300
millpond_tier_used_bytes{dataset="a",medium="memory",namespace="x"} 200
# TYPE millpond_read_bytes_total counter
millpond_read_bytes_total{dataset="a",namespace="x",served_from="local"} 750
millpond_read_bytes_total{dataset="a",namespace="x",served_from="origin"} 250
# TYPE other histogram
other_bucket{dataset="a",namespace="x",le="+Inf"} 3
other_sum{dataset="a",namespace="x"} 3
other_count{dataset="a",namespace="x"} 3
nonsense
"#;
        let found = datasets("n1", text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].cached(), Some(0.5));
        assert_eq!(found[0].hit_ratio(), Some(0.75));
        assert_eq!((found[1].cached(), found[1].hit_ratio()), (None, None));
    }
}
