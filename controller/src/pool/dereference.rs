//! Reads what a pool depends on: the other pools, its workers and the nodes. From memory alone.

use kube::ResourceExt;
use millpond_api::CachePool;

use super::Context;

/// Everything that the later steps need besides the pool itself.
#[derive(Clone, Debug, Default)]
pub(super) struct ResolvedRefs {
    /// The pools that are annotated as the default.
    pub(super) default_pools: Vec<String>,
    /// The nodes with a worker of the pool, in order, and the address of each worker's pod, if it has one yet.
    pub(super) workers: Vec<(String, Option<String>)>,
    /// The nodes that the pool's selector matches.
    pub(super) selected_nodes: Vec<String>,
}

pub(super) fn dereference(pool: &CachePool, context: &Context) -> ResolvedRefs {
    let cluster = &context.cluster;
    let selector = &pool.spec.node_selector;
    let nodes = cluster.nodes.state();
    let selected = nodes.iter().filter(|node| {
        let labels = node.labels();
        selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    });
    ResolvedRefs {
        default_pools: cluster.default_pools(),
        workers: cluster.workers(&pool.name_any()),
        selected_nodes: selected.map(|node| node.name_any()).collect(),
    }
}
