//! How containerd, the kubelet, kube-proxy and the pods' network are configured on a node.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use crate::NodeName;
use crate::cluster::Cluster;
use crate::dns;
use crate::tools::kubernetes;

const CONTAINERD: &str = include_str!("containerd.toml");

/// Of the pods' network.
const NETWORK: &str = "/etc/cni/net.d/10-bridge.conflist";

/// Where containerd listens.
pub(super) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// Writes all configurations.
pub(super) fn write_all(cluster: &Cluster, node: NodeName) -> Result<()> {
    fs::write(NETWORK, serde_json::to_vec(&network(cluster, node))?)?;
    fs::write(file(cluster, node, "containerd.toml"), CONTAINERD)?;
    for (name, content) in [
        ("kubelet.yaml", kubelet_configuration(cluster, node)),
        ("proxy.yaml", proxy_configuration(cluster, node)),
    ] {
        fs::write(file(cluster, node, name), serde_saphyr::to_string(&content)?)?;
    }
    Ok(())
}

/// Returns the command that runs containerd.
pub(super) fn containerd(cluster: &Cluster, node: NodeName) -> Command {
    let mut command = Command::new("containerd");
    command
        .arg("--config")
        .arg(file(cluster, node, "containerd.toml"));
    command
}

/// Returns the command that runs the kubelet.
pub(super) fn kubelet(cluster: &Cluster, node: NodeName) -> Command {
    let kubeconfig = cluster.state().kubeconfig(&node.to_string());
    let mut command = kubernetes("kubelet");
    command.args([
        format!("--config={}", file(cluster, node, "kubelet.yaml").display()),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--hostname-override={node}"),
        format!("--node-ip={}", cluster.number().node_address(node)),
        "--root-dir=/var/lib/kubelet".to_owned(),
        "--cert-dir=/var/lib/kubelet/pki".to_owned(),
        format!("--node-labels=topology.kubernetes.io/zone=zone-{}", node.index()),
        "--v=2".to_owned(),
    ]);
    command
}

/// Returns the command that runs kube-proxy.
pub(super) fn proxy(cluster: &Cluster, node: NodeName) -> Command {
    let mut command = kubernetes("proxy");
    command.args([
        format!("--config={}", file(cluster, node, "proxy.yaml").display()),
        format!("--hostname-override={node}"),
        "--v=1".to_owned(),
    ]);
    command
}

fn file(cluster: &Cluster, node: NodeName, name: &str) -> PathBuf {
    cluster.state().disk(node).join(name)
}

fn network(cluster: &Cluster, node: NodeName) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": cluster.number().pod_subnet(node)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn kubelet_configuration(cluster: &Cluster, node: NodeName) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": cluster.number().node_address(node).to_string(),
        "port": 10_250,
        "readOnlyPort": 0,
        "healthzBindAddress": "127.0.0.1",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": cluster.state().pki("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": crate::cgroup::Cgroup::of(cluster.name(), node).path(),
        "failCgroupV1": false,
        "enforceNodeAllocatable": ["pods"],
        "failSwapOn": false,
        // In a container of its own the machine may lack CAP_SYS_RESOURCE.
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": false,
        "resolvConf": "",
        "clusterDNS": [dns::SERVICE_ADDRESS.to_string()],
        "clusterDomain": "cluster.local",
        // A test machine's disk is often nearly full, and its images come from no registry that could give them again.
        // Not in percents: one of a large disk is more than all tests need.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "100Mi",
            "imagefs.available": "100Mi",
            "nodefs.inodesFree": "1000",
        },
        "evictionPressureTransitionPeriod": "10s",
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
        "volumeStatsAggPeriod": "30s",
        "registerNode": true,
    })
}

fn proxy_configuration(cluster: &Cluster, node: NodeName) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "bindAddress": cluster.number().node_address(node).to_string(),
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "clientConnection": {"kubeconfig": cluster.state().kubeconfig("proxy")},
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpCloseWaitTimeout": "0s",
            "tcpEstablishedTimeout": "0s",
        },
    })
}
