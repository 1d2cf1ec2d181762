//! CachePools: from a spec to a DaemonSet of workers and their Service; from pods and reports to a status.
//!
//! The steps are those of a Dataset; nothing has to be dereferenced.

mod build;
mod status;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::events::Recorder;
use kube::{Api, Resource, ResourceExt};
use millpond_api::{CachePool, Medium, names};
use millpond_wire::plan;

use crate::cluster::Cluster;
use crate::dataset::Error;
use crate::metrics::Metrics;
use crate::node_reports::NodeReports;
use crate::options::Options;
use crate::plan::PlanIndex;

pub(crate) use build::DATA_PORT;

/// Reports change what is used; nothing else has to be looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What the reconciler works with.
pub(crate) struct Context {
    pub(crate) cluster: Cluster,
    pub(crate) book: Arc<PlanIndex>,
    pub(crate) fleet: Arc<NodeReports>,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Metrics,
    pub(crate) options: Options,
}

/// Makes a pool what it is to be.
pub(crate) async fn reconcile(pool: Arc<CachePool>, context: Arc<Context>) -> Result<Action, Error> {
    let timer = context.metrics.begin("CachePool");
    let uid = pool.uid().ok_or(Error::Incomplete("uid"))?;
    let result = keep(&pool, &context).await;
    context.book.mark_reconciled(&uid);
    timer.end(result.is_ok());
    result
}

async fn keep(pool: &CachePool, context: &Context) -> Result<Action, Error> {
    let name = pool.name_any();
    if pool.metadata.deletion_timestamp.is_some() {
        context.book.remove_pool(&name);
        return Ok(Action::await_change());
    }
    let problems = validate::validate(
        pool,
        &context.options.tier_roots,
        &context.cluster.default_pools(),
    );
    let mut taken = None;
    if problems.is_empty() {
        context.book.put_pool(planned(pool, context));
        let nodes = pool.spec.replicas.map(|replicas| chosen(pool, replicas, context));
        let namespace = &context.cluster.namespace;
        let client = context.cluster.client.clone();
        let sets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
        let services: Api<Service> = Api::namespaced(client, namespace);
        taken = apply(
            &sets,
            &build::daemon_set(pool, nodes.as_deref(), &context.options),
        )
        .await?;
        taken = taken.or(apply(&services, &build::service(pool, &context.options)).await?);
    }
    status::write(pool, &problems, taken, context).await?;
    Ok(Action::requeue(LOOK_AGAIN))
}

/// Applies an object; its name, where it is somebody else's.
async fn apply<K>(api: &Api<K>, object: &K) -> Result<Option<String>, Error>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let name = object.name_any();
    let (managed_by, manager) = names::LABEL_MANAGED_BY;
    let found = api
        .get_opt(&name)
        .await
        .map_err(Error::api("look at an object"))?;
    if let Some(found) = &found {
        if found
            .labels()
            .get(managed_by)
            .is_none_or(|value| value != manager)
        {
            return Ok(Some(format!("{} {name}", K::kind(&()))));
        }
        // What was applied last is written beside it: an unchanged object is not written again.
        if found.annotations().get(build::APPLIED) == object.annotations().get(build::APPLIED) {
            return Ok(None);
        }
    }
    api.patch(
        &name,
        &PatchParams::apply(names::MANAGER).force(),
        &Patch::Apply(object),
    )
    .await
    .map_err(Error::api("apply an object"))?;
    Ok(None)
}

/// The pool as drivers are to know it.
fn planned(pool: &CachePool, context: &Context) -> plan::Pool {
    let name = pool.name_any();
    let tiers = pool.spec.tiers.iter().map(|tier| plan::Tier {
        medium: match tier.medium {
            Medium::Memory => plan::Medium::Memory,
            Medium::Disk => plan::Medium::Disk,
        }
        .into(),
        path: tier.path.clone().unwrap_or_default(),
        capacity_bytes: tier.capacity.0,
    });
    let members = context
        .cluster
        .workers(&name)
        .into_iter()
        .map(|(node, address)| plan::Member {
            node,
            address: address
                .map(|address| format!("{address}:{DATA_PORT}"))
                .unwrap_or_default(),
        });
    plan::Pool {
        tiers: tiers.collect(),
        members: members.collect(),
        name,
    }
}

/// Which of the selected nodes get a worker: those that have one stay, others follow by name.
fn chosen(pool: &CachePool, replicas: i32, context: &Context) -> Vec<String> {
    let selector = &pool.spec.node_selector;
    let nodes = context.cluster.nodes.state();
    let has = |labels: &std::collections::BTreeMap<String, String>| {
        selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    let working: Vec<String> = context
        .cluster
        .workers(&pool.name_any())
        .into_iter()
        .map(|(node, _)| node)
        .collect();
    let mut selected: Vec<String> = nodes
        .iter()
        .filter(|node| has(node.labels()))
        .map(|node| node.name_any())
        .collect();
    selected.sort_by_key(|node| (!working.contains(node), node.clone()));
    selected.truncate(usize::try_from(replicas).unwrap_or(0));
    selected.sort();
    selected
}

/// After an error: again, not too soon.
#[expect(clippy::needless_pass_by_value, reason = "the signature is the runtime's")]
pub(crate) fn after_error(pool: Arc<CachePool>, error: &Error, _context: Arc<Context>) -> Action {
    tracing::warn!(
        name = pool.name_any(),
        error = millpond_process::with_causes(error),
        "failed to reconcile a CachePool"
    );
    Action::requeue(Duration::from_secs(5))
}
