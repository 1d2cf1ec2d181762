//! The controller process from start to shutdown.
//!
//! Every replica issues certificates and serves metrics; the leader also watches, reconciles and serves the plan. A replica
//! that loses leadership exits: the kubelet restarts it without any state of the former leader.

mod watches;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use futures::StreamExt;
use kube::runtime::events::{Recorder, Reporter};
use kube::{Client, ResourceExt};
use millpond_cluster::{ClientCertPolicy, Identity, Incoming};
use millpond_process::{Tasks, http};
use millpond_wire::plan::certificates_server::CertificatesServer;
use millpond_wire::plan::plans_server::PlansServer;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tracing::{error, info, warn};

use crate::ca::{self, Authority, CertificateService};
use crate::http::Replica;
use crate::lease::Election;
use crate::metrics::Metrics;
use crate::node_reports::NodeReports;
use crate::options::Options;
use crate::plan::{PlanIndex, PlanService};
use crate::{dataset, events, load, pool};
use watches::Watches;

/// Between two searches for cached data of deleted Datasets.
const ORPHAN_SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Concurrent reconciliations of Datasets. The API server shares its time among all clients, and the binder of volumes sends
/// one request after the other: the more requests of ours are in flight, the longer each of the binder's takes, and without
/// it no Dataset is Bound.
const MAX_CONCURRENT_DATASETS: u16 = 8;

/// Between two attempts to load or create the certificate authority.
const CA_RETRY_DELAY: Duration = Duration::from_secs(2);

/// Runs the controller until SIGTERM.
///
/// # Errors
/// It cannot start, a task has ended that must not, or leadership was lost.
pub fn run(options: Options) -> Result<()> {
    millpond_process::telemetry::init(&millpond_process::telemetry::TelemetryOptions::default())?;
    millpond_process::tls::install();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start the controller's threads")?;
    let result = runtime.block_on(serve(options));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve(options: Options) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to handle signals")?;
    let client = Client::try_default()
        .await
        .context("failed to find the API server")?;
    let authority = tokio::select! {
        authority = authority(&client, &options.namespace) => Arc::new(authority),
        _ = terminate.recv() => return Ok(()),
    };
    let (stop, streams) = (CancellationToken::new(), TaskTracker::new());
    let (plan, node_reports, metrics) = (PlanIndex::new(), NodeReports::new(), Metrics::new()?);
    let election = Election::new(client.clone(), &options.namespace, &options.pod_name);
    let leadership = election.leadership();
    let (watches, cluster) = Watches::new(client.clone(), &options.namespace);

    let mut tasks = Tasks::new();
    let (identity, serving) = watch::channel(None);
    let names = server_names(&options.namespace);
    let own = Arc::clone(&authority);
    tasks.spawn_fallible(
        "the renewal of the server certificate",
        renew_identity(own, names, identity),
    );
    let listener = http::listen(options.plan_address).await?;
    let incoming = Incoming::new(listener, serving, ClientCertPolicy::Optional);
    let certificates = CertificateService {
        authority,
        client: client.clone(),
        namespace: options.namespace.clone(),
    };
    let plans = PlanService {
        plan: Arc::clone(&plan),
        node_reports: Arc::clone(&node_reports),
        cluster: cluster.clone(),
        leadership: leadership.clone(),
        tasks: streams,
    };
    let server = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .add_service(CertificatesServer::new(certificates))
        .add_service(PlansServer::new(plans));
    tasks.spawn_fallible("the plan service", server.serve_with_incoming(incoming));
    let listener = http::listen(options.metrics_address).await?;
    let replica = Replica {
        metrics: metrics.clone(),
        node_reports: Arc::clone(&node_reports),
    };
    let serving = axum::serve(listener, http::router(replica)).into_future();
    tasks.spawn_fallible("the metrics service", serving);

    let reporter = Reporter {
        controller: millpond_api::names::MANAGER.to_owned(),
        instance: Some(options.pod_name.clone()),
    };
    let leader_tasks = LeaderTasks {
        watches,
        common: Arc::new(dataset::Context {
            cluster,
            plan,
            node_reports,
            recorder: Recorder::new(client.clone(), reporter),
            metrics: metrics.clone(),
            credentials: dataset::CredentialReader::new(client.clone()),
            recently_created: dataset::RecentlyCreated::new(),
            progress: dataset::ProgressLimiter::new(),
            pods: dataset::PodLister::new(client),
            refs: parking_lot::Mutex::default(),
            last_statuses: parking_lot::Mutex::default(),
            namespaces: options.watch_namespaces.clone(),
        }),
        options,
    };
    let (mut leadership, stopped) = (leadership, stop.clone());
    tasks.spawn_fallible("the reconcilers", async move {
        if leadership.wait_for(|is_leader| *is_leader).await.is_err() {
            return Ok(());
        }
        metrics.leads.set(1);
        leader_tasks.run(stopped).await
    });
    let mut election = Box::pin(election.run(stop.clone()));
    let result = tokio::select! {
        _ = terminate.recv() => Ok(()),
        elected = &mut election => elected.and_then(|()| bail!("the election ended")),
        exit = tasks.next_exit() => Err(exit.into()),
    };
    info!("shutting down");
    // The reconcilers stop before the Lease is released: two replicas never reconcile concurrently.
    stop.cancel();
    if result.is_ok() {
        election.await?;
    }
    result
}

/// Loads or creates the authority; retries until the API server responds.
async fn authority(client: &Client, namespace: &str) -> Authority {
    loop {
        match ca::ensure(client.clone(), namespace).await {
            Ok(authority) => return authority,
            Err(error) => {
                warn!(
                    error = format!("{error:#}"),
                    "failed to load or create the certificate authority; retrying in {} s",
                    CA_RETRY_DELAY.as_secs()
                );
                tokio::time::sleep(CA_RETRY_DELAY).await;
            }
        }
    }
}

/// Returns the DNS names of the headless Service.
fn server_names(namespace: &str) -> Vec<String> {
    let service = format!("millpond-controller.{namespace}");
    ["svc", "svc.cluster.local"]
        .map(|end| format!("{service}.{end}"))
        .into()
}

/// Issues the certificate of this server and renews it. Ends only by an error.
async fn renew_identity(
    authority: Arc<Authority>,
    names: Vec<String>,
    identity: watch::Sender<Option<Arc<Identity>>>,
) -> Result<()> {
    loop {
        let (certificate, key) = authority.serve_as(names.clone())?;
        let next = Identity::from_pem(&certificate, &key, authority.certificate_pem())?;
        let renew = next
            .renew_at()
            .duration_since(SystemTime::now())
            .unwrap_or(CA_RETRY_DELAY);
        identity.send_replace(Some(Arc::new(next)));
        tokio::time::sleep(renew).await;
    }
}

/// What the leader runs.
struct LeaderTasks {
    watches: Watches,
    common: Arc<dataset::Context>,
    options: Options,
}

impl LeaderTasks {
    async fn run(self, stop: CancellationToken) -> Result<()> {
        let Self {
            watches,
            common,
            options,
        } = self;
        let Watches {
            stores,
            pools,
            datasets,
            loads,
        } = watches;
        let cluster = &common.cluster;
        let pool_context = Arc::new(pool::Context {
            cluster: cluster.clone(),
            plan: Arc::clone(&common.plan),
            node_reports: Arc::clone(&common.node_reports),
            recorder: common.recorder.clone(),
            metrics: common.metrics.clone(),
            options,
        });
        let load_context = Arc::new(load::Context {
            common: Arc::clone(&common),
            refs: parking_lot::Mutex::default(),
        });
        let mut store_watches = stores.start();
        tokio::select! {
            synced = watches::stores_synced(cluster) => synced?,
            _ = store_watches.join_next() => bail!("a watch ended"),
            () = stop.cancelled() => return Ok(()),
        }
        let reconcile_pools = pools.controller(&common.node_reports, &stop).run(
            pool::reconcile,
            pool::after_error,
            pool_context,
        );
        let reconcile_datasets = datasets
            .controller(&common, &stop)
            .with_config(kube::runtime::controller::Config::default().concurrency(MAX_CONCURRENT_DATASETS))
            .run(dataset::reconcile, dataset::after_error, Arc::clone(&common));
        // A pool that is not in the store yet is not one that does not exist; the same holds for Datasets below.
        let reconcile_datasets = async {
            if cluster.pools.wait_until_ready().await.is_ok() {
                reconcile_datasets.for_each(|_done| async {}).await;
            }
        };
        let load_store = loads.store();
        let reconcile_loads = loads.controller(&load_context, &stop).run(
            load::reconcile,
            load::after_error,
            Arc::clone(&load_context),
        );
        let reconcile_loads = async {
            if cluster.datasets.wait_until_ready().await.is_ok() {
                reconcile_loads.for_each(|_done| async {}).await;
            }
        };
        let release_plan = async {
            let ended = "a watch ended";
            cluster.pools.wait_until_ready().await.context(ended)?;
            cluster.datasets.wait_until_ready().await.context(ended)?;
            load_store.wait_until_ready().await.context(ended)?;
            let datasets = cluster.datasets.state().into_iter();
            let datasets = datasets.filter_map(|dataset| dataset.uid());
            let pools = cluster.pools.state().into_iter().filter_map(|pool| pool.uid());
            let loads = load_store.state().into_iter().filter_map(|load| load.uid());
            let uids: HashSet<_> = datasets.chain(pools).chain(loads).collect();
            info!(
                objects = uids.len(),
                "watch caches synced; the plan is sent once every object is reconciled"
            );
            common.plan.block_until_reconciled(uids);
            sweep_orphans(&common).await
        };
        tokio::select! {
            () = reconcile_pools.for_each(|_done| async {}) => {}
            () = reconcile_datasets => {}
            () = reconcile_loads => {}
            () = events::publish_volume_events(&common.recorder, &common.node_reports) => {}
            ended = release_plan => ended?,
            _ = store_watches.join_next() => bail!("a watch ended"),
        }
        if stop.is_cancelled() {
            Ok(())
        } else {
            bail!("a watch ended")
        }
    }
}

/// Orders the removal of cached data whose Dataset does not exist, and drops the reports of deleted nodes. Never ends by
/// itself.
async fn sweep_orphans(common: &dataset::Context) -> Result<()> {
    let (cluster, node_reports) = (&common.cluster, &common.node_reports);
    let mut interval = tokio::time::interval(ORPHAN_SWEEP_INTERVAL);
    let mut removed = HashSet::<String>::new();
    loop {
        interval.tick().await;
        for node in node_reports.driver_nodes() {
            if cluster.nodes.find(|known| known.name_any() == node).is_none() {
                node_reports.forget_node(&node);
            }
        }
        let known = cluster.datasets.state();
        let known: HashSet<_> = known.iter().filter_map(|dataset| dataset.uid()).collect();
        let present = node_reports.all_present();
        removed.retain(|uid| {
            let is_present = present.contains(uid);
            if !is_present {
                common.plan.forget_removed(uid);
            }
            is_present
        });
        let unknown: Vec<_> = present
            .into_iter()
            .filter(|uid| !known.contains(uid) && !removed.contains(uid))
            .collect();
        if unknown.is_empty() {
            continue;
        }
        // A store may lag behind: only the API server's own list is a reason to delete.
        match watches::dataset_uids(&cluster.client).await {
            Ok(existing) => {
                for uid in unknown.into_iter().filter(|uid| !existing.contains(uid)) {
                    info!(
                        uid,
                        "orphaned cache data of a deleted Dataset; ordering its removal"
                    );
                    common.plan.remove_dataset(&uid);
                    removed.insert(uid);
                }
            }
            Err(error) => error!(%error, "failed to list Datasets; orphan sweep skipped"),
        }
    }
}
