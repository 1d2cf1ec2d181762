//! Computes and writes the status of a pool. Written only when it differs.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, ResourceExt};
use millpond_api::condition::{ConditionUpdate, Status, kind, reason, update};
use millpond_api::{ByteQuantity, CachePool, CachePoolStatus, PoolPhase};

use super::apply::Applied;
use super::build::selector_text;
use super::validate::Problem;
use super::{Context, Error};
use crate::events;

/// Nodes that a message names.
const MAX_NAMED_NODES: usize = 5;

/// What the plan and the workers report of a pool.
struct Reports {
    datasets: usize,
    used_bytes: u64,
    /// Of each node with a short disk: the bytes of the capacity that its worker cannot use.
    withheld: BTreeMap<String, u64>,
}

/// Writes the status, if it differs.
pub(super) async fn write(
    pool: &CachePool,
    problems: &[Problem],
    applied: &Applied,
    context: &Context,
) -> Result<(), Error> {
    let name = pool.name_any();
    let reports = Reports {
        datasets: context.plan.count_datasets(&name),
        used_bytes: context.node_reports.used_bytes(&name),
        withheld: context.node_reports.withheld(&name),
    };
    let before = pool.status.clone().unwrap_or_default();
    let now = Time(k8s_openapi::jiff::Timestamp::now());
    let (after, updates) = status(pool, &before, problems, applied, &reports, &now);
    if after == before {
        return Ok(());
    }
    let api: Api<CachePool> = Api::all(context.cluster.client.clone());
    crate::status::write(&api, pool, &after).await?;
    events::publish_condition_events(&context.recorder, pool, &before.conditions, &updates).await;
    Ok(())
}

fn status(
    pool: &CachePool,
    before: &CachePoolStatus,
    problems: &[Problem],
    applied: &Applied,
    reports: &Reports,
    now: &Time,
) -> (CachePoolStatus, [ConditionUpdate; 2]) {
    let workers = &applied.workers;
    let (desired, ready_workers) = (workers.desired_number_scheduled, workers.number_ready);
    let name_conflict = applied.name_conflict.as_deref();
    let updates = [
        ready(problems, name_conflict, desired, ready_workers),
        capacity_usable(&reports.withheld),
    ];
    let worker_capacity: u64 = pool.spec.tiers.iter().map(|tier| tier.capacity.0).sum();
    let capacity = worker_capacity
        .saturating_mul(u64::try_from(desired).unwrap_or(0))
        .saturating_sub(reports.withheld.values().sum());
    let after = CachePoolStatus {
        observed_generation: pool.metadata.generation,
        phase: Some(phase(problems, desired, ready_workers)),
        workers: desired,
        ready_workers,
        datasets: i32::try_from(reports.datasets).unwrap_or(i32::MAX),
        capacity: Some(ByteQuantity(capacity)),
        used: Some(ByteQuantity(rounded(reports.used_bytes, capacity))),
        selector: Some(selector_text(pool)),
        conditions: update(&before.conditions, &updates, pool.metadata.generation, now),
    };
    (after, updates)
}

fn ready(
    problems: &[Problem],
    name_conflict: Option<&str>,
    desired: i32,
    ready_workers: i32,
) -> ConditionUpdate {
    let condition = |status, reason, message| ConditionUpdate {
        kind: kind::READY,
        status,
        reason,
        message,
    };
    if let Some((reason, message)) = problems.first() {
        return condition(Status::False, reason, message.clone());
    }
    if let Some(object) = name_conflict {
        let message = format!("{object} exists and is not managed by Millpond: delete it or rename the pool");
        return condition(Status::False, reason::NAME_TAKEN, message);
    }
    match (desired, ready_workers) {
        (0, _) => condition(
            Status::False,
            reason::NO_WORKERS,
            "no node matches spec.nodeSelector and spec.tolerations".to_owned(),
        ),
        (desired, ready_workers) if ready_workers < desired => condition(
            Status::False,
            reason::WORKERS_MISSING,
            format!("{ready_workers} of {desired} workers are ready"),
        ),
        (desired, _) => condition(
            Status::True,
            reason::AS_EXPECTED,
            format!("all {desired} workers are ready"),
        ),
    }
}

fn capacity_usable(withheld: &BTreeMap<String, u64>) -> ConditionUpdate {
    let condition = |status, reason, message| ConditionUpdate {
        kind: kind::CAPACITY_USABLE,
        status,
        reason,
        message,
    };
    if withheld.is_empty() {
        return condition(
            Status::True,
            reason::AS_EXPECTED,
            "the disks have space for all of the capacity".to_owned(),
        );
    }
    let mut nodes: Vec<&str> = withheld
        .keys()
        .take(MAX_NAMED_NODES)
        .map(String::as_str)
        .collect();
    if withheld.len() > nodes.len() {
        nodes.push("others");
    }
    condition(
        Status::False,
        reason::DISK_SHORT,
        format!(
            "on {} a part of the capacity is withheld to keep disk space free (spec.tiers[].minFreePercent): free disk space, or \
             lower spec.tiers[].capacity",
            nodes.join(", ")
        ),
    )
}

fn phase(problems: &[Problem], desired: i32, ready_workers: i32) -> PoolPhase {
    match (problems.is_empty(), ready_workers) {
        (false, _) => PoolPhase::Failed,
        (true, 0) => PoolPhase::Pending,
        (true, ready_workers) if ready_workers < desired => PoolPhase::Degraded,
        _ => PoolPhase::Ready,
    }
}

/// Rounds down to a hundredth of the capacity, so that the status changes seldom.
fn rounded(used: u64, capacity: u64) -> u64 {
    let step = (capacity / 100).max(1);
    used / step * step
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::DaemonSetStatus;

    use super::*;

    fn pool() -> CachePool {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "millpond.io/v1alpha1", "kind": "CachePool", "metadata": {"name": "gpu", "generation": 4},
            "spec": {"tiers": [{"medium": "Memory", "capacity": "100"}, {"medium": "Disk", "path": "/mnt/a", "capacity": "900"}]}
        }))
        .unwrap()
    }

    fn applied(desired: i32, ready_workers: i32) -> Applied {
        Applied {
            name_conflict: None,
            workers: DaemonSetStatus {
                desired_number_scheduled: desired,
                number_ready: ready_workers,
                ..DaemonSetStatus::default()
            },
        }
    }

    fn reports(withheld: &[(&str, u64)]) -> Reports {
        Reports {
            datasets: 2,
            used_bytes: 1_234,
            withheld: withheld
                .iter()
                .map(|(node, bytes)| ((*node).to_owned(), *bytes))
                .collect(),
        }
    }

    fn computed(
        problems: &[Problem],
        applied: &Applied,
        reports: &Reports,
    ) -> (CachePoolStatus, [ConditionUpdate; 2]) {
        let now = Time(k8s_openapi::jiff::Timestamp::from_second(1).unwrap());
        status(
            &pool(),
            &CachePoolStatus::default(),
            problems,
            applied,
            reports,
            &now,
        )
    }

    #[test]
    fn a_pool_is_pending_ready_degraded_or_failed() {
        let problem = [("TierRefused", "spec.tiers[0].path: no".to_owned())];
        for (problems, desired, ready_workers, phase, holds, reason) in [
            (
                &problem[..],
                2,
                2,
                PoolPhase::Failed,
                Status::False,
                "TierRefused",
            ),
            (&[], 0, 0, PoolPhase::Pending, Status::False, "NoWorkers"),
            (&[], 2, 0, PoolPhase::Pending, Status::False, "WorkersMissing"),
            (&[], 2, 1, PoolPhase::Degraded, Status::False, "WorkersMissing"),
            (&[], 2, 2, PoolPhase::Ready, Status::True, "AsExpected"),
        ] {
            let (status, [ready, _]) = computed(problems, &applied(desired, ready_workers), &reports(&[]));
            assert_eq!(status.phase, Some(phase), "{reason} {desired} {ready_workers}");
            assert_eq!((ready.status, ready.reason), (holds, reason));
        }
    }

    #[test]
    fn a_taken_name_is_named() {
        let mut applied = applied(2, 2);
        applied.name_conflict = Some("DaemonSet millpond-worker-gpu".to_owned());
        let (_, [ready, _]) = computed(&[], &applied, &reports(&[]));
        assert_eq!(ready.reason, "NameTaken");
        assert!(
            ready
                .message
                .starts_with("DaemonSet millpond-worker-gpu exists and is not managed")
        );
    }

    #[test]
    fn the_capacity_is_that_of_all_workers_without_what_is_withheld() {
        let (status, [_, usable]) = computed(&[], &applied(2, 2), &reports(&[]));
        assert_eq!(status.capacity, Some(ByteQuantity(2_000)));
        assert_eq!(status.used, Some(ByteQuantity(1_220)));
        assert_eq!((usable.status, status.datasets), (Status::True, 2));
        let nodes = ["a", "b", "c", "d", "e", "f"].map(|node| (node, 100));
        let (status, [_, usable]) = computed(&[], &applied(2, 2), &reports(&nodes));
        assert_eq!(status.capacity, Some(ByteQuantity(1_400)));
        assert_eq!((usable.status, usable.reason), (Status::False, "DiskShort"));
        assert!(
            usable.message.starts_with("on a, b, c, d, e, others a part"),
            "{}",
            usable.message
        );
    }
}
