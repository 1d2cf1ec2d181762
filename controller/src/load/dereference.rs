//! Reads what a load names: its Dataset, and what the workers of that Dataset's pool report of the load. From memory alone.

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use millpond_api::DataLoad;
use millpond_wire::plan;

use crate::dataset::Context;

/// The Dataset of a load.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    /// There is no Dataset of that name.
    Missing,
    /// It has no catalog, or is not in the plan.
    NotReady,
    /// It can be loaded.
    Ready(ReadyDataset),
}

/// A Dataset that can be loaded.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ReadyDataset {
    pub(super) uid: String,
    pub(super) pool: String,
    /// The state of the load on each connected worker of the pool; `None`: that worker has not reported it.
    pub(super) reports: Vec<Option<plan::LoadState>>,
}

pub(super) fn dereference(load: &DataLoad, uid: &str, namespace: &str, context: &Context) -> Target {
    let dataset = ObjectRef::new(&load.spec.dataset).within(namespace);
    let Some(dataset) = context.cluster.datasets.get(&dataset) else {
        return Target::Missing;
    };
    let status = dataset.status.as_ref();
    if status.is_none_or(|status| status.catalog_generation.is_none()) {
        return Target::NotReady;
    }
    let dataset_uid = dataset.uid().unwrap_or_default();
    let Some(planned) = context.plan.dataset(&dataset_uid) else {
        return Target::NotReady;
    };
    Target::Ready(ReadyDataset {
        uid: dataset_uid,
        pool: planned.pool.clone(),
        reports: context.node_reports.load(uid, &planned.pool),
    })
}
