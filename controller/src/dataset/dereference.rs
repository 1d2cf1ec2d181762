//! Reads what a Dataset's spec names (its pool, and for each mount a Secret or a ServiceAccount's token), and what the
//! workers report of it.

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use millpond_api::Dataset;
use millpond_wire::plan;

use super::credentials::Credentials;
use super::{Context, Error};

/// Everything that the later steps need besides the Dataset itself.
#[derive(Clone, Debug)]
pub(super) struct ResolvedRefs {
    pub(super) pool: Pool,
    /// Of each mount, in the order of the mounts.
    pub(super) credentials: Vec<Credentials>,
    /// The state that each connected worker reports, with the name of its node.
    pub(super) reports: Vec<(String, plan::DatasetState)>,
}

/// The pool of a Dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    /// It exists. The capacity is that of one worker, all tiers together.
    Found { name: String, capacity_bytes: u64 },
    /// There is no pool of that name.
    Missing(String),
    /// The spec names none, and there is no default.
    NoDefault,
    /// The spec names none, and there are several defaults.
    SeveralDefaults(Vec<String>),
}

/// Reads the refs: credentials from the API server, the rest from memory.
pub(super) async fn dereference(
    dataset: &Dataset,
    uid: &str,
    context: &Context,
) -> Result<ResolvedRefs, Error> {
    let namespace = dataset.namespace().ok_or(Error::Incomplete("namespace"))?;
    let mut credentials = Vec::with_capacity(dataset.spec.mounts.len());
    for mount in &dataset.spec.mounts {
        credentials.push(context.credentials.read(mount, &namespace).await?);
    }
    Ok(ResolvedRefs {
        pool: pool(dataset, context),
        credentials,
        reports: context.node_reports.dataset(uid),
    })
}

fn pool(dataset: &Dataset, context: &Context) -> Pool {
    let name = match &dataset.spec.pool {
        Some(name) => name.clone(),
        None => {
            let mut defaults = context.cluster.default_pools();
            defaults.sort();
            match defaults.as_slice() {
                [] => return Pool::NoDefault,
                [name] => name.clone(),
                _ => return Pool::SeveralDefaults(defaults),
            }
        }
    };
    match context.cluster.pools.get(&ObjectRef::new(&name)) {
        Some(pool) => Pool::Found {
            name,
            capacity_bytes: pool.spec.tiers.iter().map(|tier| tier.capacity.0).sum(),
        },
        None => Pool::Missing(name),
    }
}
