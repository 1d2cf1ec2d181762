//! Reads what a Dataset's spec names: its pool, and for each mount a Secret or a ServiceAccount's token.

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use millpond_api::Dataset;

use super::credentials::Credentials;
use super::{Context, Error};

/// Everything that a spec names.
#[derive(Clone, Debug)]
pub(super) struct ResolvedRefs {
    /// The pool's name, where there is such a pool.
    pub(super) pool: Pool,
    /// Of each mount, in their order.
    pub(super) credentials: Vec<Credentials>,
}

/// The pool of a Dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    /// It is there, and so large.
    Found { name: String, capacity_bytes: u64 },
    /// There is none of that name.
    Missing(String),
    /// The spec names none, and there is no default.
    NoDefault,
    /// The spec names none, and there are several defaults.
    SeveralDefaults(Vec<String>),
}

pub(super) async fn dereference(dataset: &Dataset, context: &Context) -> Result<ResolvedRefs, Error> {
    let namespace = dataset.namespace().ok_or(Error::Incomplete("namespace"))?;
    let mut credentials = Vec::with_capacity(dataset.spec.mounts.len());
    for mount in &dataset.spec.mounts {
        credentials.push(context.keyring.of(mount, &namespace).await?);
    }
    Ok(ResolvedRefs {
        pool: pool(dataset, context),
        credentials,
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
