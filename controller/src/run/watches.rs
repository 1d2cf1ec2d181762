//! The watches of the leader: each names the change that it exists for.
//!
//! [`Watches`] is taken apart once, and each part is consumed by the method that starts it: no watch can be started twice,
//! or without the store that the rest of the controller reads.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::runtime::{Controller, Predicate, WatchStreamExt, predicates, reflector, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use millpond_api::{CachePool, DataLoad, Dataset, names};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::node_reports::NodeReports;
use crate::{dataset, load};

/// Changes that a reconciler has not received yet; a slower one misses some, and its requeue interval makes up for them.
const QUEUE_CAPACITY: usize = 4_096;

/// Everything that is watched. No watch runs before its part is started.
pub(super) struct Watches {
    pub(super) stores: StoreWatches,
    pub(super) pools: PoolWatch,
    pub(super) datasets: DatasetWatch,
    pub(super) loads: LoadWatch,
}

/// The watches that fill the stores of [`Cluster`] for kinds without a reconciler.
pub(super) struct StoreWatches {
    client: Client,
    namespace: String,
    pods: Writer<Pod>,
    nodes: Writer<PartialObjectMeta<Node>>,
    claims: Writer<PersistentVolumeClaim>,
    volumes: Writer<PersistentVolume>,
    /// Datasets whose claim or volume has changed. Sent after the stores have the change.
    datasets: broadcast::Sender<ObjectRef<Dataset>>,
}

/// The watch of CachePools.
pub(super) struct PoolWatch {
    client: Client,
    namespace: String,
    controller: Controller<CachePool>,
}

/// The watch of Datasets.
pub(super) struct DatasetWatch {
    client: Client,
    writer: Writer<Dataset>,
    /// Datasets whose claim or volume has changed.
    owned: broadcast::Sender<ObjectRef<Dataset>>,
    /// Datasets that have changed, in their status as well.
    changed: broadcast::Sender<ObjectRef<Dataset>>,
}

/// The watch of DataLoads.
pub(super) struct LoadWatch {
    controller: Controller<DataLoad>,
    /// Datasets that have changed, in their status as well.
    changed: broadcast::Sender<ObjectRef<Dataset>>,
}

impl Watches {
    pub(super) fn new(client: Client, namespace: &str) -> (Self, Cluster) {
        let pools: Controller<CachePool> =
            Controller::new(Api::all(client.clone()), watcher::Config::default());
        let loads: Controller<DataLoad> =
            Controller::new(Api::all(client.clone()), watcher::Config::default());
        let (dataset_store, datasets) = reflector::store();
        let (pod_store, pods) = reflector::store();
        let (node_store, nodes) = reflector::store();
        let (claim_store, claims) = reflector::store();
        let (volume_store, volumes) = reflector::store();
        let cluster = Cluster {
            client: client.clone(),
            namespace: namespace.to_owned(),
            pools: pools.store(),
            datasets: dataset_store,
            pods: pod_store,
            nodes: node_store,
            claims: claim_store,
            volumes: volume_store,
        };
        // Without a receiver before the reconcilers run, which reconcile every object at their start.
        let (owned, changed) = (
            broadcast::Sender::new(QUEUE_CAPACITY),
            broadcast::Sender::new(QUEUE_CAPACITY),
        );
        let watches = Self {
            stores: StoreWatches {
                client: client.clone(),
                namespace: namespace.to_owned(),
                pods,
                nodes,
                claims,
                volumes,
                datasets: owned.clone(),
            },
            pools: PoolWatch {
                client: client.clone(),
                namespace: namespace.to_owned(),
                controller: pools,
            },
            datasets: DatasetWatch {
                client,
                writer: datasets,
                owned,
                changed: changed.clone(),
            },
            loads: LoadWatch {
                controller: loads,
                changed,
            },
        };
        (watches, cluster)
    }
}

impl StoreWatches {
    /// Starts the watches. They never end by themselves.
    pub(super) fn start(self) -> JoinSet<()> {
        let Self {
            client,
            namespace,
            pods,
            nodes,
            claims,
            volumes,
            datasets,
        } = self;
        let mut watches = JoinSet::new();
        // The nodes on which workers run, and the addresses of their pods.
        let api = Api::namespaced(client.clone(), &namespace);
        watches.spawn(drain(reflector(pods, watcher(api, worker_pods()))));
        // The nodes that a pool can choose from.
        let api = Api::<PartialObjectMeta<Node>>::all(client.clone());
        watches.spawn(drain(reflector(nodes, watcher(api, watcher::Config::default()))));
        // Which claims exist, which of them are bound, and that one was deleted.
        let api = Api::<PersistentVolumeClaim>::all(client.clone());
        let events = reflector(claims, watcher(api, managed()));
        watches.spawn(notify(events, datasets.clone(), |claim| {
            let dataset = claim.labels().get(names::LABEL_DATASET)?;
            Some(ObjectRef::new(dataset).within(&claim.namespace()?))
        }));
        // Which volumes exist, and which of them the binder knows.
        let events = reflector(volumes, watcher(Api::<PersistentVolume>::all(client), managed()));
        watches.spawn(notify(events, datasets, |volume| {
            let labels = volume.labels();
            let namespace = labels.get(names::LABEL_DATASET_NAMESPACE)?;
            Some(ObjectRef::new(labels.get(names::LABEL_DATASET)?).within(namespace))
        }));
        watches
    }
}

impl PoolWatch {
    /// Returns the controller of pools, with everything that triggers it.
    pub(super) fn controller(self, reports: &NodeReports, stop: &CancellationToken) -> Controller<CachePool> {
        let Self {
            client,
            namespace,
            controller,
        } = self;
        let sets = Api::<DaemonSet>::namespaced(client.clone(), &namespace);
        let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
        let nodes = watcher(
            Api::<PartialObjectMeta<Node>>::all(client),
            watcher::Config::default(),
        );
        controller
            // How many workers are ready; and that the DaemonSet was deleted or changed.
            .owns(sets, managed())
            // Where workers are, which drivers receive.
            .watches(pods, worker_pods(), |pod| {
                pod.labels()
                    .get(names::LABEL_POOL)
                    .map(|pool| ObjectRef::new(pool))
            })
            // Nodes that are created, deleted or relabelled: a pool with `replicas` chooses among them.
            .reconcile_all_on(
                nodes
                    .default_backoff()
                    .touched_objects()
                    .predicate_filter(predicates::labels, kube::runtime::PredicateConfig::default())
                    .filter_map(|node| async { node.ok().map(drop) }),
            )
            // What workers can use of their disks.
            .reconcile_on(reported(reports.touched_pools(), |pool| {
                Some(ObjectRef::new(pool))
            }))
            .graceful_shutdown_on(stop.clone().cancelled_owned())
    }
}

impl DatasetWatch {
    /// Returns the controller of Datasets, with everything that triggers it.
    pub(super) fn controller(
        self,
        context: &Arc<dataset::Context>,
        stop: &CancellationToken,
    ) -> Controller<Dataset> {
        let Self {
            client,
            writer,
            owned,
            changed,
        } = self;
        let store = context.cluster.datasets.clone();
        let datasets = watcher(Api::<Dataset>::all(client.clone()), watcher::Config::default());
        // A change of the status alone triggers nothing: this controller wrote it.
        let triggers = reflector(writer, datasets)
            .default_backoff()
            .applied_objects()
            .inspect_ok(move |dataset| {
                // Fails without a receiver, see `Watches::new`.
                let _no_receiver = changed.send(ObjectRef::from_obj(dataset));
            })
            .predicate_filter(
                predicates::generation.combine(predicates::annotations),
                kube::runtime::PredicateConfig::default(),
            );
        let by_uid = Arc::clone(context);
        Controller::for_stream(triggers, store.clone())
            // Its claim or its volume.
            .reconcile_on(received(&owned))
            // That a pool was created or deleted, or has become the default.
            .watches(
                Api::<CachePool>::all(client),
                watcher::Config::default(),
                move |pool| {
                    let name = pool.name_any();
                    let of_pool = move |dataset: &Arc<Dataset>| {
                        dataset.spec.pool.as_ref().is_none_or(|pool| *pool == name)
                    };
                    let datasets = store.state().into_iter().filter(of_pool);
                    datasets
                        .map(|dataset| ObjectRef::from_obj(&*dataset))
                        .collect::<Vec<_>>()
                },
            )
            // What nodes report.
            .reconcile_on(reported(context.node_reports.touched(), move |uid| {
                by_uid.refs.lock().get(uid).cloned()
            }))
            .graceful_shutdown_on(stop.clone().cancelled_owned())
    }
}

impl LoadWatch {
    /// Returns the store of the loads, which [`Self::controller`] fills.
    pub(super) fn store(&self) -> Store<DataLoad> {
        self.controller.store()
    }

    /// Returns the controller of loads, with everything that triggers it.
    pub(super) fn controller(
        self,
        context: &Arc<load::Context>,
        stop: &CancellationToken,
    ) -> Controller<DataLoad> {
        let Self { controller, changed } = self;
        let store = controller.store();
        let by_uid = Arc::clone(context);
        controller
            // That the Dataset was created, or has its first catalog.
            .reconcile_on(received(&changed).flat_map(move |dataset| {
                let of_dataset = |load: &Arc<DataLoad>| {
                    load.spec.dataset == dataset.name && load.namespace() == dataset.namespace
                };
                let loads = store.state().into_iter().filter(of_dataset);
                let loads: Vec<_> = loads.map(|load| ObjectRef::from_obj(&*load)).collect();
                futures::stream::iter(loads)
            }))
            // The progress of workers.
            .reconcile_on(reported(context.common.node_reports.touched(), move |uid| {
                by_uid.refs.lock().get(uid).cloned()
            }))
            .graceful_shutdown_on(stop.clone().cancelled_owned())
    }
}

/// Selects the workers' pods.
fn worker_pods() -> watcher::Config {
    watcher::Config::default().labels("app.kubernetes.io/component=worker")
}

/// Selects the objects that Millpond manages.
fn managed() -> watcher::Config {
    let (label, value) = names::LABEL_MANAGED_BY;
    watcher::Config::default().labels(&format!("{label}={value}"))
}

/// Returns the objects that something was reported of. A receiver that is too slow misses some: their requeue interval makes
/// up for it.
fn reported<K: Resource<DynamicType = ()>>(
    keys: broadcast::Receiver<String>,
    object: impl Fn(&str) -> Option<ObjectRef<K>>,
) -> impl Stream<Item = ObjectRef<K>> {
    BroadcastStream::new(keys).filter_map(move |key| {
        let found = key.ok().and_then(|key| object(&key));
        async move { found }
    })
}

/// Returns the objects of a channel, without those that a slow receiver has missed.
fn received<K: Resource<DynamicType = ()> + 'static>(
    objects: &broadcast::Sender<ObjectRef<K>>,
) -> impl Stream<Item = ObjectRef<K>> + use<K> {
    BroadcastStream::new(objects.subscribe()).filter_map(|object| async { object.ok() })
}

/// Runs a watch, and sends the owner of each object that has changed.
async fn notify<K, O>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    owners: broadcast::Sender<ObjectRef<O>>,
    owner: impl Fn(&K) -> Option<ObjectRef<O>>,
) where
    O: Resource<DynamicType = ()>,
{
    let touched = events.default_backoff().touched_objects();
    let owned =
        touched.filter_map(|object| std::future::ready(object.ok().and_then(|object| owner(&object))));
    owned
        .for_each(|object| {
            // Fails without a receiver, see `Watches::new`.
            let _no_receiver = owners.send(object);
            std::future::ready(())
        })
        .await;
}

async fn drain<K>(events: impl Stream<Item = watcher::Result<watcher::Event<K>>>) {
    events.default_backoff().for_each(|_event| async {}).await;
}

/// Waits until the stores of [`StoreWatches`] are synced.
pub(super) async fn stores_synced(cluster: &Cluster) -> Result<()> {
    let ended = "a watch ended";
    cluster.pods.wait_until_ready().await.context(ended)?;
    cluster.nodes.wait_until_ready().await.context(ended)?;
    cluster.claims.wait_until_ready().await.context(ended)?;
    cluster.volumes.wait_until_ready().await.context(ended)
}

/// Lists the uids of all Datasets from the API server, past the stores.
pub(super) async fn dataset_uids(client: &Client) -> kube::Result<HashSet<String>> {
    let all = Api::<Dataset>::all(client.clone())
        .list_metadata(&ListParams::default())
        .await?;
    Ok(all.items.iter().filter_map(ResourceExt::uid).collect())
}
