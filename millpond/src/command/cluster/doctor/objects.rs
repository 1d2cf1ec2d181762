//! CachePools, Datasets and DataLoads by their conditions, and volumes of pods by their events.

use std::collections::BTreeMap;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use millpond_api::condition::reason;
use millpond_api::names::CSI_DRIVER;
use millpond_api::{CachePool, DataLoad, Dataset, LoadPhase};

use super::super::check_result::{Finding, faults};
use super::super::connection::{Cluster, list};

pub(super) async fn look(cluster: &Cluster) -> Result<Vec<Finding>> {
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
    let mut findings = Vec::new();
    if pools.is_empty() {
        findings.push(Finding::bad(
            "CachePools",
            "there is none, so nothing can be cached",
            "kubectl apply one: deploy/examples/imagenet.yaml has an example",
        ));
    }
    for pool in &pools {
        let conditions = pool
            .status
            .as_ref()
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default();
        findings.extend(object(&format!("CachePool {}", pool.name_any()), conditions));
    }
    for dataset in &datasets {
        let conditions = dataset
            .status
            .as_ref()
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default();
        findings.extend(object(&format!("Dataset {}", full_name(dataset)), conditions));
    }
    for load in &loads {
        let status = load.status.clone().unwrap_or_default();
        if status.phase != Some(LoadPhase::Failed) {
            continue;
        }
        let subject = format!("DataLoad {}", full_name(load));
        let first = status.failed_paths.first();
        let detail = first.map_or_else(
            || "has failed".to_owned(),
            |first| {
                format!(
                    "{} files failed, the first: {}: {}",
                    status.files_failed.unwrap_or(0),
                    first.path,
                    first.reason
                )
            },
        );
        findings.push(Finding::warning(
            subject,
            detail,
            "see its status; a new DataLoad tries again",
        ));
    }
    for (pod, message) in failed_mounts(&events) {
        // One that runs has got over it.
        let api: Api<Pod> = Api::namespaced(cluster.client.clone(), pod.0);
        let found = api.get_opt(pod.1).await?;
        let phase = found.and_then(|pod| pod.status?.phase);
        if phase.as_deref() == Some("Pending") {
            findings.push(Finding::bad(
                format!("pod {}/{}", pod.0, pod.1),
                format!("waits for a volume: {message}"),
                "the kubelet tries again by itself; where it stays, see the Dataset above and the node's driver",
            ));
        }
    }
    Ok(findings)
}

fn full_name(object: &impl ResourceExt) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

/// One finding for each fault; one that is good where there is none.
fn object(subject: &str, conditions: &[Condition]) -> Vec<Finding> {
    if conditions.is_empty() {
        return vec![Finding::bad(
            subject,
            "nobody has looked at it yet",
            "see whether the controller runs",
        )];
    }
    let wrong: Vec<_> = faults(conditions)
        .into_iter()
        .map(|fault| {
            let detail = format!(
                "{} is {}: {}: {}",
                fault.type_, fault.status, fault.reason, fault.message
            );
            // Everything works, only not with all that it was given.
            let is_less = fault.reason == reason::DISK_SHORT;
            let finding = if is_less { Finding::warning } else { Finding::bad };
            finding(subject.to_owned(), detail, fix(&fault.reason))
        })
        .collect();
    if wrong.is_empty() {
        vec![Finding::good(subject, "is as it should be")]
    } else {
        wrong
    }
}

/// What helps, by a condition's reason; the message names the field.
fn fix(of: &str) -> &'static str {
    match of {
        reason::POOL_NOT_FOUND => {
            "make the CachePool, or name another one in spec.pool; a pool becomes the default by its annotation"
        }
        reason::SECRET_NOT_FOUND => "make the Secret in the Dataset's namespace: it heals by itself",
        reason::SERVICE_ACCOUNT_NOT_FOUND => {
            "make the ServiceAccount in the Dataset's namespace: it heals by itself"
        }
        reason::ACCESS_DENIED => {
            "put credentials into the Secret that may list and read the source: it heals by itself"
        }
        reason::SOURCE_NOT_FOUND => {
            "see whether the bucket and the path in the mount's URL exist: it heals by itself"
        }
        reason::SOURCE_UNREACHABLE => {
            "see whether the workers' nodes reach the endpoint (DNS, proxy, firewall, private CA)"
        }
        reason::INVALID_GLOB
        | reason::INVALID_SOURCE
        | reason::INVALID_SCHEDULE
        | reason::QUOTA_OVER_CAPACITY => "change the field that the message names",
        reason::NO_WORKERS | reason::WORKERS_MISSING => {
            "see the pool's nodeSelector and tolerations, and the millpond-worker pods"
        }
        reason::TIER_REFUSED => {
            "see the tiers' paths and sizes in the CachePool, and the log of the node's millpond-csi-driver"
        }
        reason::DISK_SHORT => {
            "make room on the disk, or lower the tier's capacity; on a disk of its own minFreePercent can be 0"
        }
        reason::IN_USE => "end the pods that the message names: it is deleted afterwards",
        reason::NAME_TAKEN => "give the Dataset another name, or remove the object that has it",
        _ => "wait some seconds; where it stays, see kubectl describe",
    }
}

/// Pods (namespace and name) of which the kubelet has said that a volume of ours could not be mounted, and its last words. Our own
/// pods have no such volumes.
fn failed_mounts(events: &[Event]) -> BTreeMap<(&str, &str), &str> {
    let mut newest = BTreeMap::new();
    for event in events {
        let message = event.message.as_deref().unwrap_or_default();
        let object = &event.involved_object;
        let pod = (
            object.namespace.as_deref().unwrap_or_default(),
            object.name.as_deref().unwrap_or_default(),
        );
        // The driver's name where it could not be reached; the volume's; or our own words.
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
