//! Computes everything that a pool needs: its plan entry, and the DaemonSet and Service of its workers. Pure.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Service;
use kube::{Resource, ResourceExt};
use millpond_api::{CachePool, Medium, names};
use millpond_wire::plan;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::dereference::ResolvedRefs;
use super::validate::Problem;
use crate::options::Options;

/// The port for drivers of nodes without a worker.
const DATA_PORT: u16 = 7401;
const METRICS_PORT: u16 = 9402;
const PLAN_PORT: u16 = 7400;

/// The unprivileged user of the workers, who owns the directories that the driver prepares.
const USER: i64 = 65_532;

/// Annotation with the hash of the spec that was applied last.
pub(super) const APPLIED: &str = "millpond.io/applied";

/// What [`super::apply`] has to bring about, and has not yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prepared {
    /// What drivers receive of the pool.
    pub(super) plan: plan::Pool,
    pub(super) daemon_set: DaemonSet,
    pub(super) service: Service,
}

/// Returns everything that follows from a pool's spec and its refs; `None` where the spec has problems.
pub(super) fn build(
    pool: &CachePool,
    problems: &[Problem],
    refs: &ResolvedRefs,
    options: &Options,
) -> Option<Prepared> {
    let nodes = pool.spec.replicas.map(|replicas| chosen_nodes(replicas, refs));
    problems.is_empty().then(|| Prepared {
        plan: planned(pool, refs),
        daemon_set: daemon_set(pool, nodes.as_deref(), options),
        service: service(pool),
    })
}

fn planned(pool: &CachePool, refs: &ResolvedRefs) -> plan::Pool {
    let tiers = pool.spec.tiers.iter().map(|tier| plan::Tier {
        medium: match tier.medium {
            Medium::Memory => plan::Medium::Memory,
            Medium::Disk => plan::Medium::Disk,
        }
        .into(),
        path: tier.path.clone().unwrap_or_default(),
        capacity_bytes: tier.capacity.0,
    });
    let members = refs.workers.iter().map(|(node, address)| {
        let address = address.as_ref();
        plan::Member {
            node: node.clone(),
            address: address
                .map(|address| format!("{address}:{DATA_PORT}"))
                .unwrap_or_default(),
        }
    });
    plan::Pool {
        name: pool.name_any(),
        tiers: tiers.collect(),
        members: members.collect(),
    }
}

/// Returns which of the selected nodes get a worker: first those that have one, then others by name.
fn chosen_nodes(replicas: i32, refs: &ResolvedRefs) -> Vec<String> {
    let has_worker = |name: &String| refs.workers.iter().any(|(node, _)| node == name);
    let mut nodes = refs.selected_nodes.clone();
    nodes.sort_by_key(|node| (!has_worker(node), node.clone()));
    nodes.truncate(usize::try_from(replicas).unwrap_or(0));
    nodes.sort();
    nodes
}

/// Returns the workers of a pool; on `nodes` alone, where the pool has a number of replicas.
fn daemon_set(pool: &CachePool, nodes: Option<&[String]>, options: &Options) -> DaemonSet {
    let name = names::worker(pool);
    let pool_name = pool.name_any();
    let (mut volumes, mut mounts, mut tiers) = (Vec::new(), Vec::new(), Vec::new());
    let mut host_directory = |name: &str, path: String| {
        // Created by the driver: root would own a directory that the kubelet creates.
        volumes.push(json!({"name": name, "hostPath": {"path": path, "type": "Directory"}}));
        mounts.push(json!({"name": name, "mountPath": path, "mountPropagation": "HostToContainer"}));
    };
    let own = |below: &str| options.host_directory.join(below).join(&pool_name);
    let socket_directory = own("workers").display().to_string();
    host_directory("socket", socket_directory.clone());
    for tier in &pool.spec.tiers {
        let (medium, path) = match (tier.medium, &tier.path) {
            (Medium::Disk, Some(path)) => ("disk", Path::new(path).join(&pool_name).display().to_string()),
            // In the driver's tmpfs: after a reboot the pod waits until the driver has mounted it.
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
        // A list of names cannot be empty; no node has the empty name.
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

/// Returns the Service by which the workers' metrics are discovered.
fn service(pool: &CachePool) -> Service {
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

/// Returns an object with that spec that the pool owns.
fn object<K: DeserializeOwned + Default + Resource<DynamicType = ()>>(
    pool: &CachePool,
    name: &str,
    spec: Value,
) -> K {
    let mut hasher = DefaultHasher::new();
    spec.to_string().hash(&mut hasher);
    let object = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {
            "name": name,
            "labels": labels(pool),
            "annotations": {APPLIED: format!("{:x}", hasher.finish())},
            "ownerReferences": pool.controller_owner_ref(&()).into_iter().collect::<Vec<_>>(),
        },
        "spec": spec,
    });
    // Written above, so it has the form of its kind.
    serde_json::from_value(object).unwrap_or_default()
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
    // Selected by NetworkPolicies and PodMonitors.
    labels.insert("app.kubernetes.io/part-of".to_owned(), "millpond".to_owned());
    labels.insert("app.kubernetes.io/name".to_owned(), "millpond".to_owned());
    labels.insert(managed_by.to_owned(), manager.to_owned());
    labels
}

/// Returns the labels of a pool's worker pods as a selector.
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

    fn refs(workers: &[(&str, Option<&str>)], selected: &[&str]) -> ResolvedRefs {
        let own = |text: &&str| (*text).to_owned();
        let workers = workers.iter();
        ResolvedRefs {
            default_pools: Vec::new(),
            workers: workers
                .map(|(node, address)| (own(node), address.as_ref().map(own)))
                .collect(),
            selected_nodes: selected.iter().map(own).collect(),
        }
    }

    #[test]
    fn a_pool_with_problems_makes_nothing() {
        let problem = ("TierRefused", String::new());
        assert_eq!(build(&pool(), &[problem], &refs(&[], &[]), &options()), None);
        assert!(build(&pool(), &[], &refs(&[], &[]), &options()).is_some());
    }

    #[test]
    fn workers_stay_where_they_are_and_others_follow_by_name() {
        for (replicas, workers, expected) in [
            (0, &[][..], &[][..]),
            (2, &[][..], &["a", "b"][..]),
            (2, &[("c", None)][..], &["a", "c"][..]),
            (1, &[("b", None), ("c", None)][..], &["b"][..]),
            // A worker on a node that is not selected any more does not keep it.
            (1, &[("x", None)][..], &["a"][..]),
            (9, &[][..], &["a", "b", "c"][..]),
        ] {
            let chosen = chosen_nodes(replicas, &refs(workers, &["c", "a", "b"]));
            assert_eq!(chosen, expected, "{replicas} {workers:?}");
        }
    }

    #[test]
    fn drivers_receive_the_tiers_and_the_addresses_of_workers() {
        let planned = planned(&pool(), &refs(&[("a", Some("10.0.0.1")), ("b", None)], &[]));
        let members: Vec<_> = planned
            .members
            .iter()
            .map(|member| member.address.as_str())
            .collect();
        assert_eq!(members, ["10.0.0.1:7401", ""]);
        let tiers: Vec<_> = planned
            .tiers
            .iter()
            .map(|tier| (tier.medium(), tier.path.as_str()))
            .collect();
        assert_eq!(
            tiers,
            [(plan::Medium::Memory, ""), (plan::Medium::Disk, "/mnt/a")]
        );
    }
}
