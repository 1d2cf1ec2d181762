//! What is watched of the cluster beside the kinds that are reconciled.

use std::fmt;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt};
use millpond_api::{CachePool, Dataset, names};

/// Handles of everything that reconcilers read without asking the API server. Clones are the same.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    /// Where this controller and its workers run.
    pub(crate) namespace: String,
    pub(crate) pools: Store<CachePool>,
    pub(crate) datasets: Store<Dataset>,
    /// The workers' pods.
    pub(crate) pods: Store<Pod>,
    /// Names and labels alone.
    pub(crate) nodes: Store<PartialObjectMeta<Node>>,
    /// Those that we made.
    pub(crate) claims: Store<PersistentVolumeClaim>,
    /// Those that we made.
    pub(crate) volumes: Store<PersistentVolume>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    /// Whether a pool's worker is on a node.
    pub(crate) fn is_worker(&self, pool: &str, node: &str) -> bool {
        self.workers(pool).iter().any(|(name, _)| name == node)
    }

    /// The nodes on which a pool's workers are, and their pods' addresses, as far as they have any; in order.
    pub(crate) fn workers(&self, pool: &str) -> Vec<(String, Option<String>)> {
        let pods = self.pods.state();
        let of_pool = pods.iter().filter(|pod| {
            pod.labels()
                .get(names::LABEL_POOL)
                .is_some_and(|name| name == pool)
                && pod.metadata.deletion_timestamp.is_none()
        });
        let mut workers: Vec<_> = of_pool
            .filter_map(|pod| {
                let node = pod.spec.as_ref()?.node_name.clone()?;
                let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
                Some((node, address))
            })
            .collect();
        workers.sort();
        workers.dedup_by(|one, other| one.0 == other.0);
        workers
    }

    /// The pools that call themselves the default.
    pub(crate) fn default_pools(&self) -> Vec<String> {
        let pools = self.pools.state();
        let is_default = |pool: &CachePool| {
            pool.annotations()
                .get(names::ANNOTATION_DEFAULT_POOL)
                .is_some_and(|value| value == "true")
        };
        pools
            .iter()
            .filter(|pool| is_default(pool))
            .map(|pool| pool.name_any())
            .collect()
    }
}
