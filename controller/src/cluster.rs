//! The watch caches: the objects that reconcilers read from memory.

use std::fmt;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt};
use millpond_api::{CachePool, Dataset, names};

/// The stores of the watches. Clones share them.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    /// The namespace of this controller and its workers.
    pub(crate) namespace: String,
    pub(crate) pools: Store<CachePool>,
    pub(crate) datasets: Store<Dataset>,
    /// The workers' pods.
    pub(crate) pods: Store<Pod>,
    /// Metadata only.
    pub(crate) nodes: Store<PartialObjectMeta<Node>>,
    /// Those that Millpond manages.
    pub(crate) claims: Store<PersistentVolumeClaim>,
    /// Those that Millpond manages.
    pub(crate) volumes: Store<PersistentVolume>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    /// Returns whether a worker of a pool is on a node.
    pub(crate) fn is_worker(&self, pool: &str, node: &str) -> bool {
        self.workers(pool).iter().any(|(name, _)| name == node)
    }

    /// Returns the nodes with a worker of a pool, in order, and the address of each worker's pod, if it has one yet.
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

    /// Returns the pools that are annotated as the default.
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
