//! Checks of the nodes: the driver, and a kernel that serves cached files without FUSE.

use std::collections::BTreeSet;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use millpond_api::names::CSI_DRIVER;

use super::super::check_result::CheckResult;
use super::super::connection::{Cluster, list};

/// Linux that overlays data-only layers (6.5), mounts images from files (6.12), and keeps FUSE views across servers (6.9).
const KERNEL: (u32, u32) = (6, 12);

pub(super) async fn check(cluster: &Cluster) -> Result<Vec<CheckResult>> {
    let everything = ListParams::default();
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let registered: Api<CSINode> = Api::all(cluster.client.clone());
    let drivers: Api<CSIDriver> = Api::all(cluster.client.clone());
    let pods: Api<Pod> = Api::all(cluster.client.clone());
    let of_driver = ListParams::default()
        .labels("app.kubernetes.io/name=millpond,app.kubernetes.io/component=csi-driver");
    let (nodes, registered, pods) = tokio::try_join!(
        list(&nodes, &everything),
        list(&registered, &everything),
        list(&pods, &of_driver)
    )?;
    let mut results = Vec::new();
    if drivers.get_opt(CSI_DRIVER).await?.is_none() {
        results.push(CheckResult::bad(
            format!("CSIDriver {CSI_DRIVER}"),
            "does not exist: no pod can mount a Dataset",
            "helm upgrade millpond deploy/chart recreates it",
        ));
    }
    let with_pod: BTreeSet<_> = pods
        .iter()
        .filter_map(|pod| pod.spec.as_ref()?.node_name.clone())
        .collect();
    let with_driver: BTreeSet<_> = registered
        .iter()
        .filter(|node| node.spec.drivers.iter().any(|driver| driver.name == CSI_DRIVER))
        .map(ResourceExt::name_any)
        .collect();
    for node in &nodes {
        let name = node.name_any();
        results.push(driver(
            &name,
            with_pod.contains(&name),
            with_driver.contains(&name),
        ));
        if with_pod.contains(&name) {
            results.extend(kernel(node));
        }
    }
    Ok(results)
}

fn driver(node: &str, has_pod: bool, is_registered: bool) -> CheckResult {
    let subject = format!("node {node}");
    match (has_pod, is_registered) {
        (true, true) => CheckResult::good(subject, "its kubelet knows the CSI driver"),
        (true, false) => CheckResult::bad(
            subject,
            "the CSI driver is not registered with the kubelet: no pod on this node can mount a Dataset",
            "see the log of the node's millpond-csi-driver pod; a kubelet whose directory is not /var/lib/kubelet needs \
             csiDriver.kubeletDirectory in the chart's values",
        ),
        (false, _) => CheckResult::warning(
            subject,
            "no CSI driver: no pod on this node can mount a Dataset",
            "if pods on this node need Datasets, see csiDriver.nodeSelector and tolerations in the chart's values",
        ),
    }
}

fn kernel(node: &Node) -> Option<CheckResult> {
    let release = &node.status.as_ref()?.node_info.as_ref()?.kernel_version;
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return None;
    };
    ((major, minor) < KERNEL).then(|| {
        CheckResult::warning(
            format!("node {}", node.name_any()),
            format!("runs Linux {release}: pods may read through FUSE what newer kernels serve from the cache without it"),
            "use Linux 6.12 or later",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_named() {
        let node = |release: &str| -> Node {
            serde_json::from_value(serde_json::json!({"metadata": {"name": "n"}, "status": {"nodeInfo": {
                "kernelVersion": release, "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kubeProxyVersion": "",
                "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": ""}}}))
            .unwrap()
        };
        assert!(kernel(&node("5.15.0-91-generic")).is_some());
        assert!(kernel(&node("6.8.0")).is_some());
        assert!(kernel(&node("6.12.3+deb")).is_none());
        assert!(kernel(&node("7.0")).is_none());
        assert!(kernel(&node("strange")).is_none());
    }
}
