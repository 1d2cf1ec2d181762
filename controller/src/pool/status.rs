//! How a pool is. Written only when it differs.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use millpond_api::condition::{ConditionUpdate, Status, kind, reason, update};
use millpond_api::{ByteQuantity, CachePool, CachePoolStatus, PoolPhase, names};

use super::Context;
use super::build::selector_text;
use super::validate::Problem;
use crate::dataset::Error;
use crate::events;

/// Nodes that a message names.
const NODES_NAMED: usize = 5;

pub(super) async fn write(
    pool: &CachePool,
    problems: &[Problem],
    taken: Option<String>,
    context: &Context,
) -> Result<(), Error> {
    let sets: Api<DaemonSet> = Api::namespaced(context.cluster.client.clone(), &context.cluster.namespace);
    let set = sets
        .get_opt(&names::worker(pool))
        .await
        .map_err(Error::api("look at the workers"))?;
    let set = set.and_then(|set| set.status).unwrap_or_default();
    let (wanted, serving) = (set.desired_number_scheduled, set.number_ready);
    let before = pool.status.clone().unwrap_or_default();
    let withheld = context.fleet.withheld(&pool.name_any());
    let found = [ready(problems, taken, wanted, serving), usable(&withheld)];
    let now = Time(k8s_openapi::jiff::Timestamp::now());
    let each: u64 = pool.spec.tiers.iter().map(|tier| tier.capacity.0).sum();
    let capacity = each
        .saturating_mul(u64::try_from(wanted).unwrap_or(0))
        .saturating_sub(withheld.values().sum());
    let after = CachePoolStatus {
        observed_generation: pool.metadata.generation,
        phase: Some(phase(problems, wanted, serving)),
        workers: wanted,
        ready_workers: serving,
        datasets: i32::try_from(context.book.datasets_of(&pool.name_any())).unwrap_or(i32::MAX),
        capacity: Some(ByteQuantity(capacity)),
        used: Some(ByteQuantity(rounded(
            context.fleet.used_bytes(&pool.name_any()),
            capacity,
        ))),
        selector: Some(selector_text(pool)),
        conditions: update(&before.conditions, &found, pool.metadata.generation, &now),
    };
    if after == before {
        return Ok(());
    }
    let api: Api<CachePool> = Api::all(context.cluster.client.clone());
    let patch = serde_json::json!({
        "apiVersion": "millpond.io/v1alpha1", "kind": "CachePool", "metadata": {"name": pool.name_any()}, "status": after
    });
    api.patch_status(
        &pool.name_any(),
        &PatchParams::apply(names::MANAGER).force(),
        &Patch::Apply(patch),
    )
    .await
    .map_err(Error::api("write the status"))?;
    events::publish_condition_events(&context.recorder, pool, &before.conditions, &found).await;
    Ok(())
}

fn ready(problems: &[Problem], taken: Option<String>, wanted: i32, serving: i32) -> ConditionUpdate {
    let finding = |status, reason, message| ConditionUpdate {
        kind: kind::READY,
        status,
        reason,
        message,
    };
    if let Some((reason, message)) = problems.first() {
        return finding(Status::False, reason, message.clone());
    }
    if let Some(taken) = taken {
        let message = format!("{taken} belongs to somebody else: delete it, or give the pool another name");
        return finding(Status::False, reason::NAME_TAKEN, message);
    }
    match (wanted, serving) {
        (0, _) => finding(
            Status::False,
            reason::NO_WORKERS,
            "no node matches spec.nodeSelector and spec.tolerations".to_owned(),
        ),
        (wanted, serving) if serving < wanted => finding(
            Status::False,
            reason::WORKERS_MISSING,
            format!("{serving} of {wanted} workers serve"),
        ),
        (wanted, _) => finding(
            Status::True,
            reason::AS_EXPECTED,
            format!("all {wanted} workers serve"),
        ),
    }
}

/// By `withheld`: what the workers of these nodes cannot use of their capacity.
fn usable(withheld: &BTreeMap<String, u64>) -> ConditionUpdate {
    let finding = |status, reason, message| ConditionUpdate {
        kind: kind::CAPACITY_USABLE,
        status,
        reason,
        message,
    };
    if withheld.is_empty() {
        return finding(
            Status::True,
            reason::AS_EXPECTED,
            "the disks have room for the whole capacity".to_owned(),
        );
    }
    let mut nodes: Vec<&str> = withheld.keys().take(NODES_NAMED).map(String::as_str).collect();
    if withheld.len() > nodes.len() {
        nodes.push("others");
    }
    finding(
        Status::False,
        reason::DISK_SHORT,
        format!(
            "on {} a part of the capacity is not used, so that room on the disk stays free (spec.tiers[].minFreePercent): make \
             room there, or lower spec.tiers[].capacity",
            nodes.join(", ")
        ),
    )
}

fn phase(problems: &[Problem], wanted: i32, serving: i32) -> PoolPhase {
    match (problems.is_empty(), serving) {
        (false, _) => PoolPhase::Failed,
        (true, 0) => PoolPhase::Pending,
        (true, serving) if serving < wanted => PoolPhase::Degraded,
        _ => PoolPhase::Ready,
    }
}

/// To the hundredth part of the capacity, so that it changes seldom.
fn rounded(used: u64, capacity: u64) -> u64 {
    let step = (capacity / 100).max(1);
    used / step * step
}
