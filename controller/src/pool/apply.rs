//! Puts what was built into the plan and the API server. An object of a needed name that Millpond does not manage is left
//! alone and reported.

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use millpond_api::{CachePool, names};

use super::build::{APPLIED, Prepared};
use super::{Context, Error};
use crate::error::ApiError;

/// What has come of [`Prepared`].
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Applied {
    /// The object, as `Kind name`, that has a needed name and is not managed by Millpond.
    pub(super) name_conflict: Option<String>,
    /// The status of the workers' DaemonSet.
    pub(super) workers: DaemonSetStatus,
}

/// Applies everything: the plan first, since a driver prepares the directories that a worker needs. `None`: nothing, since
/// the spec has problems.
pub(super) async fn apply(
    pool: &CachePool,
    prepared: Option<Prepared>,
    context: &Context,
) -> Result<Applied, Error> {
    let namespace = &context.cluster.namespace;
    let client = &context.cluster.client;
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let mut name_conflict = None;
    if let Some(prepared) = prepared {
        let Prepared {
            plan,
            daemon_set,
            service,
        } = prepared;
        context.plan.put_pool(plan);
        name_conflict = apply_object(&sets, &daemon_set).await?;
        let services: Api<Service> = Api::namespaced(client.clone(), namespace);
        let conflict = apply_object(&services, &service).await?;
        name_conflict = name_conflict.or(conflict);
    }
    let set = sets.get_opt(&names::worker(pool)).await;
    let set = set.map_err(ApiError::during("read the DaemonSet of the workers"))?;
    Ok(Applied {
        name_conflict,
        workers: set.and_then(|set| set.status).unwrap_or_default(),
    })
}

/// Applies an object. Returns it, as `Kind name`, if the existing one is not managed by Millpond.
async fn apply_object<K>(api: &Api<K>, object: &K) -> Result<Option<String>, Error>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let name = object.name_any();
    let (managed_by, manager) = names::LABEL_MANAGED_BY;
    let found = api.get_opt(&name).await;
    if let Some(found) = found.map_err(ApiError::during("read an object"))? {
        let label = found.labels().get(managed_by);
        if label.is_none_or(|value| value != manager) {
            return Ok(Some(format!("{} {name}", K::kind(&()))));
        }
        // The hash of what was applied last is in an annotation: an unchanged object is not written again.
        if found.annotations().get(APPLIED) == object.annotations().get(APPLIED) {
            return Ok(None);
        }
    }
    let params = PatchParams::apply(names::MANAGER).force();
    let applied = api.patch(&name, &params, &Patch::Apply(object)).await;
    applied.map_err(ApiError::during("apply an object"))?;
    Ok(None)
}
