//! The watches of the leader: each says which change it exists for.

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

/// Changes that a reconciler has not taken yet; one that is slower misses some, and looks at each object from time to time.
const QUEUED: usize = 4_096;

/// Everything that is watched. Nothing is before it is asked for.
pub(super) struct Watches {
    client: Client,
    namespace: String,
    pods: Option<Writer<Pod>>,
    nodes: Option<Writer<PartialObjectMeta<Node>>>,
    claims: Option<Writer<PersistentVolumeClaim>>,
    volumes: Option<Writer<PersistentVolume>>,
    pools: Option<Controller<CachePool>>,
    datasets: Option<Writer<Dataset>>,
    loads: Option<Controller<DataLoad>>,
    load_store: Store<DataLoad>,
    /// Datasets whose claim or volume is another than before. Told after the stores have it.
    of_datasets: broadcast::Sender<ObjectRef<Dataset>>,
    /// Datasets that are others than before, be it by their status.
    changed: broadcast::Sender<ObjectRef<Dataset>>,
}

impl Watches {
    pub(super) fn new(client: Client, namespace: &str) -> (Self, Cluster) {
        let pools: Controller<CachePool> =
            Controller::new(Api::all(client.clone()), watcher::Config::default());
        let (dataset_store, datasets) = reflector::store();
        let loads: Controller<DataLoad> =
            Controller::new(Api::all(client.clone()), watcher::Config::default());
        let (pods, pods_writer) = reflector::store();
        let (nodes, nodes_writer) = reflector::store();
        let (claims, claims_writer) = reflector::store();
        let (volumes, volumes_writer) = reflector::store();
        let cluster = Cluster {
            client: client.clone(),
            namespace: namespace.to_owned(),
            pools: pools.store(),
            datasets: dataset_store,
            pods,
            nodes,
            claims,
            volumes,
        };
        let watching = Self {
            client,
            namespace: namespace.to_owned(),
            pods: Some(pods_writer),
            nodes: Some(nodes_writer),
            claims: Some(claims_writer),
            volumes: Some(volumes_writer),
            load_store: loads.store(),
            pools: Some(pools),
            datasets: Some(datasets),
            loads: Some(loads),
            of_datasets: broadcast::Sender::new(QUEUED),
            changed: broadcast::Sender::new(QUEUED),
        };
        (watching, cluster)
    }

    /// Keeps the stores of [`Cluster`] that no reconciler keeps.
    pub(super) fn reflect(&mut self) -> JoinSet<()> {
        let mut reflecting = JoinSet::new();
        if let Some(writer) = self.pods.take() {
            // On which nodes workers are to be, and at which addresses they are.
            let pods = Api::namespaced(self.client.clone(), &self.namespace);
            reflecting.spawn(drain(reflector(writer, watcher(pods, workers()))));
        }
        if let Some(writer) = self.nodes.take() {
            // Which nodes a pool can choose from.
            let nodes = watcher(
                Api::<PartialObjectMeta<Node>>::all(self.client.clone()),
                watcher::Config::default(),
            );
            reflecting.spawn(drain(reflector(writer, nodes)));
        }
        if let Some(writer) = self.claims.take() {
            // Which claims are there already, which are bound; and that somebody has deleted one.
            let claims = Api::<PersistentVolumeClaim>::all(self.client.clone());
            let claims = reflector(writer, watcher(claims, ours()));
            reflecting.spawn(tell(claims, self.of_datasets.clone(), |claim| {
                let dataset = claim.labels().get(names::LABEL_DATASET)?;
                Some(ObjectRef::new(dataset).within(&claim.namespace()?))
            }));
        }
        if let Some(writer) = self.volumes.take() {
            // Which volumes are there already, and which the binder has seen.
            let volumes = Api::<PersistentVolume>::all(self.client.clone());
            let volumes = reflector(writer, watcher(volumes, ours()));
            reflecting.spawn(tell(volumes, self.of_datasets.clone(), |volume| {
                let labels = volume.labels();
                let namespace = labels.get(names::LABEL_DATASET_NAMESPACE)?;
                Some(ObjectRef::new(labels.get(names::LABEL_DATASET)?).within(namespace))
            }));
        }
        reflecting
    }

    /// Pools, and what changes them.
    pub(super) fn pools(&mut self, fleet: &NodeReports, stop: &CancellationToken) -> Controller<CachePool> {
        let pools = self.pools.take().unwrap_or_else(|| again(&self.client));
        let own = |namespace: &str| Api::<DaemonSet>::namespaced(self.client.clone(), namespace);
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        let nodes = watcher(
            Api::<PartialObjectMeta<Node>>::all(self.client.clone()),
            watcher::Config::default(),
        );
        pools
            // How many workers serve; and that somebody has deleted or changed it.
            .owns(own(&self.namespace), ours())
            // Where workers are, which drivers are told.
            .watches(pods, workers(), |pod| {
                pod.labels()
                    .get(names::LABEL_POOL)
                    .map(|pool| ObjectRef::new(pool))
            })
            // Nodes that come, go or are labelled anew: a pool with `replicas` chooses among them.
            .reconcile_all_on(
                nodes
                    .default_backoff()
                    .touched_objects()
                    .predicate_filter(predicates::labels, kube::runtime::PredicateConfig::default())
                    .filter_map(|node| async { node.ok().map(drop) }),
            )
            // What workers can use of their disks.
            .reconcile_on(touched(fleet.touched_pools(), |pool| Some(ObjectRef::new(pool))))
            .graceful_shutdown_on(stop.clone().cancelled_owned())
    }

    /// Datasets, and what changes them.
    pub(super) fn datasets(
        &mut self,
        context: &Arc<dataset::Context>,
        stop: &CancellationToken,
    ) -> Controller<Dataset> {
        let store = context.cluster.datasets.clone();
        let writer = self.datasets.take().unwrap_or_default();
        let datasets = watcher(
            Api::<Dataset>::all(self.client.clone()),
            watcher::Config::default(),
        );
        let changed = self.changed.clone();
        // A status is this controller's own word, and no news to it.
        let asked = reflector(writer, datasets)
            .default_backoff()
            .applied_objects()
            .inspect_ok(move |dataset| {
                // Nobody listens before the reconcilers run, which look at everything then.
                let _nobody = changed.send(ObjectRef::from_obj(dataset));
            })
            .predicate_filter(
                predicates::generation.combine(predicates::annotations),
                kube::runtime::PredicateConfig::default(),
            );
        let places = Arc::clone(context);
        Controller::for_stream(asked, store.clone())
            // Its claim or its volume.
            .reconcile_on(listened(&self.of_datasets))
            // That a pool has come, gone or become the default.
            .watches(
                Api::<CachePool>::all(self.client.clone()),
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
            .reconcile_on(touched(context.fleet.touched(), move |uid| {
                places.places.lock().get(uid).cloned()
            }))
            .graceful_shutdown_on(stop.clone().cancelled_owned())
    }

    pub(super) fn loads_store(&self) -> Store<DataLoad> {
        self.load_store.clone()
    }

    /// Loads, and what changes them.
    pub(super) fn loads(
        &mut self,
        context: &Arc<load::Context>,
        stop: &CancellationToken,
    ) -> Controller<DataLoad> {
        let loads = self.loads.take().unwrap_or_else(|| again(&self.client));
        let store = self.load_store.clone();
        let places = Arc::clone(context);
        loads
            // That the Dataset has come, or has its first catalog.
            .reconcile_on(listened(&self.changed).flat_map(move |dataset| {
                let of_dataset = |load: &Arc<DataLoad>| {
                    load.spec.dataset == dataset.name && load.namespace() == dataset.namespace
                };
                let loads = store.state().into_iter().filter(of_dataset);
                let loads: Vec<_> = loads.map(|load| ObjectRef::from_obj(&*load)).collect();
                futures::stream::iter(loads)
            }))
            // How far workers are.
            .reconcile_on(touched(context.common.fleet.touched(), move |uid| {
                places.places.lock().get(uid).cloned()
            }))
            .graceful_shutdown_on(stop.clone().cancelled_owned())
    }
}

fn again<K>(client: &Client) -> Controller<K>
where
    K: Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    Controller::new(Api::all(client.clone()), watcher::Config::default())
}

/// The workers' pods.
fn workers() -> watcher::Config {
    watcher::Config::default().labels("app.kubernetes.io/component=worker")
}

/// What we made.
fn ours() -> watcher::Config {
    let (label, value) = names::LABEL_MANAGED_BY;
    watcher::Config::default().labels(&format!("{label}={value}"))
}

/// Objects that something was reported of. A subscriber that is too slow misses some: each object is looked at from time
/// to time anyway.
fn touched<K: Resource<DynamicType = ()>>(
    uids: tokio::sync::broadcast::Receiver<String>,
    place: impl Fn(&str) -> Option<ObjectRef<K>>,
) -> impl Stream<Item = ObjectRef<K>> {
    BroadcastStream::new(uids).filter_map(move |uid| {
        let found = uid.ok().and_then(|uid| place(&uid));
        async move { found }
    })
}

/// The objects of a channel.
fn listened<K: Resource<DynamicType = ()> + 'static>(
    objects: &broadcast::Sender<ObjectRef<K>>,
) -> impl Stream<Item = ObjectRef<K>> + use<K> {
    BroadcastStream::new(objects.subscribe()).filter_map(|object| async { object.ok() })
}

/// Keeps a store, and tells whose object each change is.
async fn tell<K, O>(
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
            // Nobody listens before the reconcilers run, which look at everything then.
            let _nobody = owners.send(object);
            std::future::ready(())
        })
        .await;
}

async fn drain<K>(events: impl Stream<Item = watcher::Result<watcher::Event<K>>>) {
    events.default_backoff().for_each(|_event| async {}).await;
}

/// Waits until the stores say what there is.
pub(super) async fn ready(cluster: &Cluster) -> Result<()> {
    let ended = "a watch ended";
    cluster.pods.wait_until_ready().await.context(ended)?;
    cluster.nodes.wait_until_ready().await.context(ended)?;
    cluster.claims.wait_until_ready().await.context(ended)?;
    cluster.volumes.wait_until_ready().await.context(ended)
}

/// The uids of all Datasets, asked of the API server itself.
pub(super) async fn dataset_uids(client: &Client) -> kube::Result<HashSet<String>> {
    let all = Api::<Dataset>::all(client.clone())
        .list_metadata(&ListParams::default())
        .await?;
    Ok(all.items.iter().filter_map(ResourceExt::uid).collect())
}
