//! The workers' DaemonSet and Service. Pure.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Service;
use kube::{Resource, ResourceExt};
use millpond_api::{CachePool, Medium, names};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::options::Options;

/// Where drivers of nodes without a worker speak with one.
pub(crate) const DATA_PORT: u16 = 7401;
const METRICS_PORT: u16 = 9402;
const PLAN_PORT: u16 = 7400;

/// Nobody in particular: what the directories that the driver prepares belong to.
const USER: i64 = 65_532;

/// What was applied last, as a number: an object is written again only when it is another.
pub(super) const APPLIED: &str = "millpond.io/applied";

/// The workers of a pool; on `nodes` alone, where the pool says how many.
pub(super) fn daemon_set(pool: &CachePool, nodes: Option<&[String]>, options: &Options) -> DaemonSet {
    let name = names::worker(pool);
    let pool_name = pool.name_any();
    let (mut volumes, mut mounts, mut tiers) = (Vec::new(), Vec::new(), Vec::new());
    let mut host_directory = |name: &str, path: String| {
        // Made by the driver: a directory that the kubelet makes would be root's.
        volumes.push(json!({"name": name, "hostPath": {"path": path, "type": "Directory"}}));
        mounts.push(json!({"name": name, "mountPath": path, "mountPropagation": "HostToContainer"}));
    };
    let own = |below: &str| options.host_directory.join(below).join(&pool_name);
    let socket_directory = own("workers").display().to_string();
    host_directory("socket", socket_directory.clone());
    for tier in &pool.spec.tiers {
        let (medium, path) = match (tier.medium, &tier.path) {
            (Medium::Disk, Some(path)) => ("disk", Path::new(path).join(&pool_name).display().to_string()),
            // In the driver's tmpfs: after a reboot it is not there before that is mounted, and the pod waits.
            _ => ("memory", own("memory").join("tier").display().to_string()),
        };
        tiers.push(format!("--tier={medium}:{path}:{}", tier.capacity.0));
        tiers.extend(
            tier.min_free_percent
                .map(|percent| format!("--min-free-percent={percent}")),
        );
        host_directory(medium, path);
    }
    volumes.push(json!({"name": "ca", "configMap": {"name": "millpond-ca"}}));
    mounts.push(json!({"name": "ca", "mountPath": "/etc/millpond/ca", "readOnly": true}));
    let token = json!({"serviceAccountToken": {
        "path": "token", "audience": millpond_cluster::TOKEN_AUDIENCE, "expirationSeconds": 3_600
    }});
    volumes.push(json!({"name": "token", "projected": {"sources": [token]}}));
    mounts.push(json!({"name": "token", "mountPath": "/var/run/secrets/millpond", "readOnly": true}));
    let controller = format!("millpond-controller.{}.svc:{PLAN_PORT}", options.namespace);
    let mut arguments = vec![
        format!("--pool={pool_name}"),
        format!("--controller={controller}"),
        format!("--socket={socket_directory}/worker.sock"),
        format!("--data-address=0.0.0.0:{DATA_PORT}"),
        format!("--metrics-address=0.0.0.0:{METRICS_PORT}"),
    ];
    arguments.extend(tiers);
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": "metrics"}, "timeoutSeconds": 5});
    let container = json!({
        "name": "worker",
        "image": options.image,
        "imagePullPolicy": options.image_pull_policy,
        "command": ["/bin/millpond-worker"],
        "args": arguments,
        "env": [
            {"name": "MILLPOND_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "ports": [
            {"name": "data", "containerPort": DATA_PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
        ],
        "livenessProbe": probe("/healthz"),
        "readinessProbe": probe("/readyz"),
        "resources": pool.spec.resources.clone().map_or_else(
            || json!({"requests": {"cpu": "100m", "memory": "256Mi"}}), |resources| json!(resources)
        ),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    });
    let mut pod = json!({
        "serviceAccountName": "millpond-worker",
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
        "nodeSelector": pool.spec.node_selector,
        "tolerations": pool.spec.tolerations,
    });
    if let (Some(pod), Some(class)) = (pod.as_object_mut(), &options.worker_priority_class) {
        pod.insert("priorityClassName".to_owned(), json!(class));
    }
    if let (Some(pod), Some(nodes)) = (pod.as_object_mut(), nodes) {
        // No node at all cannot be said by a list of names.
        let names = if nodes.is_empty() {
            vec![String::new()]
        } else {
            nodes.to_vec()
        };
        let term = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": names}]});
        let required = json!({"nodeSelectorTerms": [term]});
        pod.insert(
            "affinity".to_owned(),
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}),
        );
    }
    object(
        pool,
        &name,
        json!({
            "selector": {"matchLabels": selector(pool)},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {"metadata": {"labels": labels(pool)}, "spec": pod},
        }),
    )
}

/// The Service by which metrics are found.
pub(super) fn service(pool: &CachePool, _options: &Options) -> Service {
    object(
        pool,
        &names::worker(pool),
        json!({
            "clusterIP": "None",
            "selector": selector(pool),
            "ports": [
                {"name": "data", "port": DATA_PORT, "targetPort": "data"},
                {"name": "metrics", "port": METRICS_PORT, "targetPort": "metrics"},
            ],
        }),
    )
}

/// An object of ours with that spec.
fn object<K: DeserializeOwned + Default + Resource<DynamicType = ()>>(
    pool: &CachePool,
    name: &str,
    spec: Value,
) -> K {
    let mut hasher = DefaultHasher::new();
    spec.to_string().hash(&mut hasher);
    let whole = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {
            "name": name,
            "labels": labels(pool),
            "annotations": {APPLIED: format!("{:x}", hasher.finish())},
            "ownerReferences": pool.controller_owner_ref(&()),
        },
        "spec": spec,
    });
    let mut whole = whole;
    if let Some(owner) = whole.pointer_mut("/metadata/ownerReferences") {
        *owner = match owner.take() {
            Value::Null => json!([]),
            owner => json!([owner]),
        };
    }
    // Written here, so it is of that kind.
    serde_json::from_value(whole).unwrap_or_default()
}

fn selector(pool: &CachePool) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/component".to_owned(), "worker".to_owned()),
        (names::LABEL_POOL.to_owned(), pool.name_any()),
    ])
}

fn labels(pool: &CachePool) -> BTreeMap<String, String> {
    let (managed_by, manager) = names::LABEL_MANAGED_BY;
    let mut labels = selector(pool);
    // What NetworkPolicies and PodMonitors select.
    labels.insert("app.kubernetes.io/part-of".to_owned(), "millpond".to_owned());
    labels.insert("app.kubernetes.io/name".to_owned(), "millpond".to_owned());
    labels.insert(managed_by.to_owned(), manager.to_owned());
    labels
}

/// The labels of a pool's worker pods, as a selector.
pub(super) fn selector_text(pool: &CachePool) -> String {
    let labels = selector(pool);
    labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn options() -> Options {
        Options::parse_from([
            "controller",
            "--namespace=pond",
            "--pod-name=c-1",
            "--image=millpond:1",
        ])
    }

    fn pool() -> CachePool {
        serde_json::from_value(json!({
            "apiVersion": "millpond.io/v1alpha1", "kind": "CachePool", "metadata": {"name": "gpu", "uid": "u"},
            "spec": {"tiers": [{"medium": "Memory", "capacity": "1Gi"}, {"medium": "Disk", "path": "/mnt/a", "capacity": "1Ti"}]}
        }))
        .unwrap()
    }

    #[test]
    fn workers_have_no_privileges_and_their_tiers() {
        let set = serde_json::to_value(daemon_set(&pool(), None, &options())).unwrap();
        let pod = &set["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(
            pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"],
            true
        );
        assert_eq!(pod["automountServiceAccountToken"], false);
        let arguments = pod["containers"][0]["args"].to_string();
        assert!(
            arguments.contains("--tier=memory:/var/lib/millpond/memory/gpu/tier:1073741824"),
            "{arguments}"
        );
        assert!(
            arguments.contains("--tier=disk:/mnt/a/gpu:1099511627776"),
            "{arguments}"
        );
        assert!(
            arguments.contains("--controller=millpond-controller.pond.svc:7400"),
            "{arguments}"
        );
        assert_eq!(set["metadata"]["ownerReferences"][0]["uid"], "u");
        assert!(pod.get("affinity").is_none());
    }

    #[test]
    fn with_replicas_the_nodes_are_named() {
        let nodes = ["a".to_owned()];
        let set = serde_json::to_value(daemon_set(&pool(), Some(&nodes), &options())).unwrap();
        assert!(
            set["spec"]["template"]["spec"]["affinity"]
                .to_string()
                .contains("\"values\":[\"a\"]")
        );
    }

    #[test]
    fn an_unchanged_pool_makes_an_unchanged_object() {
        assert_eq!(
            daemon_set(&pool(), None, &options()),
            daemon_set(&pool(), None, &options())
        );
    }
}
