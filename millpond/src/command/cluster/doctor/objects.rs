//! Checks of CachePools, Datasets and DataLoads by their conditions, and of pods' volumes by their Events.

use std::collections::BTreeMap;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use millpond_api::condition::reason;
use millpond_api::names::CSI_DRIVER;
use millpond_api::{CachePool, DataLoad, Dataset, LoadPhase};

use super::super::check_result::{CheckResult, faults};
use super::super::connection::{Cluster, list};

pub(super) async fn check(cluster: &Cluster) -> Result<Vec<CheckResult>> {
    let everything = ListParams::default();
    let failed = ListParams::default().fields("type=Warning,reason=FailedMount");
    let pools: Api<CachePool> = Api::all(cluster.client.clone());
    let datasets: Api<Dataset> = Api::all(cluster.client.clone());
    let loads: Api<DataLoad> = Api::all(cluster.client.clone());
    let events: Api<Event> = Api::all(cluster.client.clone());
    let (pools, datasets, loads, events) = tokio::try_join!(
        list(&pools, &everything),
        list(&datasets, &everything),
        list(&loads, &everything),
        list(&events, &failed)
    )?;
    let mut results = Vec::new();
    if pools.is_empty() {
        results.push(CheckResult::bad(
            "CachePools",
            "none exists: nothing can be cached",
            "create one: deploy/examples/imagenet.yaml has an example",
        ));
    }
    for pool in &pools {
        let conditions = pool
            .status
            .as_ref()
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default();
        results.extend(object(&format!("CachePool {}", pool.name_any()), conditions));
    }
    for dataset in &datasets {
        let conditions = dataset
            .status
            .as_ref()
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default();
        results.extend(object(&format!("Dataset {}", full_name(dataset)), conditions));
    }
    for load in &loads {
        let status = load.status.clone().unwrap_or_default();
        if status.phase != Some(LoadPhase::Failed) {
            continue;
        }
        let subject = format!("DataLoad {}", full_name(load));
        let first = status.failed_paths.first();
        let detail = first.map_or_else(
            || "failed".to_owned(),
            |first| {
                format!(
                    "{} files failed, the first: {}: {}",
                    status.files_failed.unwrap_or(0),
                    first.path,
                    first.reason
                )
            },
        );
        results.push(CheckResult::warning(
            subject,
            detail,
            "see its status, and create a new DataLoad to retry",
        ));
    }
    for (pod, message) in failed_mounts(&events) {
        // A running pod got its volume by a later attempt.
        let api: Api<Pod> = Api::namespaced(cluster.client.clone(), pod.0);
        let found = api.get_opt(pod.1).await?;
        let phase = found.and_then(|pod| pod.status?.phase);
        if phase.as_deref() == Some("Pending") {
            results.push(CheckResult::bad(
                format!("pod {}/{}", pod.0, pod.1),
                format!("waits for a volume: {message}"),
                "the kubelet retries; if it persists, see the Dataset above and the log of the node's driver",
            ));
        }
    }
    Ok(results)
}

fn full_name(object: &impl ResourceExt) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

/// Returns one result for each fault, or one good result.
fn object(subject: &str, conditions: &[Condition]) -> Vec<CheckResult> {
    if conditions.is_empty() {
        return vec![CheckResult::bad(
            subject,
            "the controller has not reconciled it yet",
            "check that the controller is running",
        )];
    }
    let wrong: Vec<_> = faults(conditions)
        .into_iter()
        .map(|fault| {
            let detail = format!(
                "{} is {}: {}: {}",
                fault.type_, fault.status, fault.reason, fault.message
            );
            // Everything works, with less than the configured capacity.
            let is_less = fault.reason == reason::DISK_SHORT;
            let result = if is_less {
                CheckResult::warning
            } else {
                CheckResult::bad
            };
            result(subject.to_owned(), detail, fix(&fault.reason))
        })
        .collect();
    if wrong.is_empty() {
        vec![CheckResult::good(subject, "no problem")]
    } else {
        wrong
    }
}

/// Returns the user's action for a condition's reason; the condition's message names the field.
fn fix(of: &str) -> &'static str {
    match of {
        reason::POOL_NOT_FOUND => {
            "create the CachePool, or name another one in spec.pool; an annotation makes a pool the default"
        }
        reason::SECRET_NOT_FOUND => {
            "make the Secret in the Dataset's namespace; the controller retries by itself"
        }
        reason::SERVICE_ACCOUNT_NOT_FOUND => {
            "create the ServiceAccount in the Dataset's namespace; the controller retries by itself"
        }
        reason::ACCESS_DENIED => {
            "put credentials that can list and read the source into the Secret; the worker retries by itself"
        }
        reason::SOURCE_NOT_FOUND => {
            "check that the bucket and the path of the mountPoint exist; the worker retries by itself"
        }
        reason::SOURCE_UNREACHABLE => {
            "check that the workers' nodes reach the endpoint (DNS, proxy, firewall, private CA)"
        }
        reason::INVALID_GLOB
        | reason::INVALID_SOURCE
        | reason::INVALID_SCHEDULE
        | reason::QUOTA_OVER_CAPACITY => "correct the field named by the message",
        reason::NO_WORKERS | reason::WORKERS_MISSING => {
            "see the pool's nodeSelector and tolerations, and the millpond-worker pods"
        }
        reason::TIER_REFUSED => {
            "see the tiers' paths and sizes in the CachePool, and the log of the node's millpond-csi-driver"
        }
        reason::DISK_SHORT => {
            "free disk space, or lower the tier's capacity; on a dedicated disk minFreePercent can be 0"
        }
        reason::IN_USE => "end the pods named by the message: the Dataset is deleted afterwards",
        reason::NAME_TAKEN => "rename the Dataset, or delete the object that has its name",
        _ => "wait some seconds; if it persists, see kubectl describe",
    }
}

/// Returns pods (namespace and name) for which the kubelet reported that a Millpond volume failed to mount, with its
/// last message. Millpond's own pods have no such volumes.
fn failed_mounts(events: &[Event]) -> BTreeMap<(&str, &str), &str> {
    let mut newest = BTreeMap::new();
    for event in events {
        let message = event.message.as_deref().unwrap_or_default();
        let object = &event.involved_object;
        let pod = (
            object.namespace.as_deref().unwrap_or_default(),
            object.name.as_deref().unwrap_or_default(),
        );
        // The message names the driver if it was unreachable, else the volume, or is the driver's own.
        let is_ours =
            message.contains(CSI_DRIVER) || message.contains("millpond") || message.contains("Dataset");
        if !is_ours || pod.1.starts_with("millpond-") {
            continue;
        }
        let time = event.last_timestamp.as_ref().map(|time| time.0);
        let entry = newest.entry(pod).or_insert((time, message));
        if entry.0 < time {
            *entry = (time, message);
        }
    }
    newest
        .into_iter()
        .map(|(pod, (_, message))| (pod, message))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_event_of_a_pod_is_told_and_only_of_our_volumes() {
        let event = |pod: &str, message: &str, minute: u32| -> Event {
            serde_json::from_value(
                serde_json::json!({"metadata": {}, "involvedObject": {"namespace": "x", "name": pod},
                "message": message, "lastTimestamp": format!("2026-01-01T00:{minute:02}:00Z")}),
            )
            .unwrap()
        };
        let events = [
            event("a", "MountVolume failed for csi.millpond.io: new", 2),
            event("a", "MountVolume failed for csi.millpond.io: old", 1),
            event("b", "MountVolume failed for other.example.com", 3),
        ];
        let found = failed_mounts(&events);
        assert_eq!(found.len(), 1);
        assert!(found[&("x", "a")].ends_with("new"), "{found:?}");
    }
}
