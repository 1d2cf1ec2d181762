//! Millpond's own workloads: controller, keepers, drivers, workers.

use anyhow::Result;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::super::check_result::CheckResult;
use super::super::connection::{Cluster, list};

/// Label of all objects of the chart and the controller.
const SELECTOR: &str = "app.kubernetes.io/name=millpond";

/// Name of the controller's Deployment and of its Lease.
const CONTROLLER: &str = "millpond-controller";

/// A Lease is stale when its last renewal is older than this many lease durations.
const STALE_LEASE_FACTOR: i64 = 2;

pub(super) async fn check(cluster: &Cluster) -> Result<Vec<CheckResult>> {
    let ours = ListParams::default().labels(SELECTOR);
    let deployments: Api<Deployment> = Api::all(cluster.client.clone());
    let sets: Api<DaemonSet> = Api::all(cluster.client.clone());
    let pods: Api<Pod> = Api::all(cluster.client.clone());
    let (deployments, sets, pods) =
        tokio::try_join!(list(&deployments, &ours), list(&sets, &ours), list(&pods, &ours))?;
    let mut results = Vec::new();
    if deployments.is_empty() && sets.is_empty() {
        return Ok(vec![CheckResult::bad(
            "Millpond",
            "no workloads in this cluster",
            "helm install millpond deploy/chart --namespace millpond-system --create-namespace",
        )]);
    }
    for deployment in &deployments {
        let wanted = deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1);
        let ready = deployment
            .status
            .as_ref()
            .and_then(|status| status.ready_replicas)
            .unwrap_or(0);
        results.push(workload("Deployment", &deployment.name_any(), ready, wanted));
    }
    for set in &sets {
        let (wanted, ready) = set.status.as_ref().map_or((0, 0), |status| {
            (status.desired_number_scheduled, status.number_ready)
        });
        results.push(if wanted == 0 {
            CheckResult::warning(
                format!("DaemonSet {}", set.name_any()),
                "no node matches",
                "see the nodeSelector and tolerations of the CachePool, or of the chart's values",
            )
        } else {
            workload("DaemonSet", &set.name_any(), ready, wanted)
        });
    }
    let stay = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none());
    results.extend(stay.filter_map(pod));
    for deployment in deployments
        .iter()
        .filter(|deployment| deployment.name_any() == CONTROLLER)
    {
        let leases: Api<Lease> = Api::namespaced(
            cluster.client.clone(),
            &deployment.namespace().unwrap_or_default(),
        );
        results.push(leader(
            leases.get_opt(CONTROLLER).await?.as_ref(),
            Timestamp::now(),
        ));
    }
    Ok(results)
}

fn workload(kind: &str, name: &str, ready: i32, wanted: i32) -> CheckResult {
    let subject = format!("{kind} {name}");
    let detail = format!("{ready} of {wanted} pods are ready");
    if ready >= wanted {
        CheckResult::good(subject, detail)
    } else {
        CheckResult::bad(
            subject,
            detail,
            "see the pods below, and kubectl describe of the workload",
        )
    }
}

/// Returns the problem of a pod; `None`: it is healthy.
fn pod(pod: &Pod) -> Option<CheckResult> {
    let status = pod.status.as_ref()?;
    let subject = format!("pod {}", pod.name_any());
    let logs = format!(
        "kubectl logs -n {} {}",
        pod.namespace().unwrap_or_default(),
        pod.name_any()
    );
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unscheduled {
        let why = condition.message.clone().unwrap_or_default();
        return Some(CheckResult::bad(
            subject,
            format!("is not scheduled: {why}"),
            "free resources on the nodes, or change the requests in the chart's values",
        ));
    }
    let containers = status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .flatten();
    containers
        .filter_map(container)
        .next()
        .map(|detail| CheckResult::bad(subject, detail, &logs))
}

/// Returns why a container is waiting or not ready; `None`: it is ready.
fn container(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref();
    if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
        return Some(format!(
            "{} waits: {} {}",
            container.name,
            waiting.reason.as_deref().unwrap_or_default(),
            waiting.message.as_deref().unwrap_or_default()
        ));
    }
    let last = container
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    if container.ready {
        return None;
    }
    let before = last.map(|last| {
        format!(
            "; it exited with {} ({}) before",
            last.exit_code,
            last.reason.as_deref().unwrap_or("no reason")
        )
    });
    Some(format!(
        "{} is not ready{}",
        container.name,
        before.unwrap_or_default()
    ))
}

fn leader(lease: Option<&Lease>, now: Timestamp) -> CheckResult {
    let subject = "the controller's leader";
    let fix = "see kubectl logs of the millpond-controller pods: without a leader no Dataset is bound, running pods keep reading";
    let spec = lease.and_then(|lease| lease.spec.as_ref());
    let Some((holder, renewed)) =
        spec.and_then(|spec| Some((spec.holder_identity.as_ref()?, spec.renew_time.as_ref()?)))
    else {
        return CheckResult::bad(subject, "no replica is leader", fix);
    };
    let age = now.as_second() - renewed.0.as_second();
    let max_age =
        i64::from(spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or(15)) * STALE_LEASE_FACTOR;
    if age > max_age {
        CheckResult::bad(subject, format!("{holder} renewed its Lease {age} s ago"), fix)
    } else {
        CheckResult::good(subject, holder.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::cluster::check_result::Verdict;

    fn parse<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_pod_that_waits_says_why() {
        let waiting = serde_json::json!({"metadata": {"name": "w", "namespace": "s"}, "status": {"containerStatuses": [{
            "name": "worker", "ready": false, "restartCount": 3, "image": "", "imageID": "",
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}}]}});
        let found = pod(&parse(waiting)).unwrap();
        assert_eq!(found.verdict, Verdict::Bad);
        assert_eq!(found.detail, "worker waits: CrashLoopBackOff back-off");
        assert_eq!(found.fix.as_deref(), Some("kubectl logs -n s w"));
        let well = serde_json::json!({"metadata": {"name": "w"}, "status": {"containerStatuses": [{
            "name": "worker", "ready": true, "restartCount": 3, "image": "", "imageID": "", "state": {"running": {}}}]}});
        assert_eq!(pod(&parse(well)), None);
    }

    #[test]
    fn a_leader_that_says_nothing_is_none() {
        let lease = |seconds: i64| -> Lease {
            let time = Timestamp::from_second(seconds).unwrap().to_string();
            let time = time.replace('Z', ".000000Z");
            parse(
                serde_json::json!({"metadata": {}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": time}}),
            )
        };
        let now = Timestamp::from_second(1_000).unwrap();
        assert_eq!(leader(Some(&lease(990)), now).verdict, Verdict::Good);
        assert_eq!(leader(Some(&lease(900)), now).verdict, Verdict::Bad);
        assert_eq!(leader(None, now).verdict, Verdict::Bad);
    }
}
