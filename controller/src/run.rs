//! The controller from its start to its end.
//!
//! Every replica issues certificates and answers; the leader also watches, reconciles and serves the plan. A replica that
//! loses the leadership ends its process: the kubelet starts another, which has none of its state.

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

/// How often it is looked for bytes of Datasets that are no more.
const ORPHAN_SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Reconciliations of Datasets at once. The API server serves all who ask alike, and the binder of volumes asks for one after
/// the other: the more of ours are on their way, the longer each of its turns, and without it no Dataset is Bound.
const MAX_CONCURRENT_DATASETS: u16 = 8;

/// Before the API server answers for the first time.
const CA_RETRY_DELAY: Duration = Duration::from_secs(2);

/// Runs the controller until SIGTERM.
///
/// # Errors
/// It cannot start, a task that must live has exited, or the leadership is lost.
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
    let (book, fleet, metrics) = (PlanIndex::new(), NodeReports::new(), Metrics::new()?);
    let election = Election::new(client.clone(), &options.namespace, &options.pod_name);
    let leads = election.leadership();
    let (watching, cluster) = Watches::new(client.clone(), &options.namespace);

    let mut tasks = Tasks::new();
    let (identity, serving) = watch::channel(None);
    let names = server_names(&options.namespace);
    let own = Arc::clone(&authority);
    tasks.spawn_fallible("its certificate", keep_identity(own, names, identity));
    let listener = http::listen(options.plan_address).await?;
    let incoming = Incoming::new(listener, serving, ClientCertPolicy::MayShow);
    let certificates = CertificateService {
        authority,
        client: client.clone(),
        namespace: options.namespace.clone(),
    };
    let plans = PlanService {
        book: Arc::clone(&book),
        fleet: Arc::clone(&fleet),
        cluster: cluster.clone(),
        leads: leads.clone(),
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
        fleet: Arc::clone(&fleet),
    };
    let serving = axum::serve(listener, http::router(replica)).into_future();
    tasks.spawn_fallible("the metrics service", serving);

    let reporter = Reporter {
        controller: millpond_api::names::MANAGER.to_owned(),
        instance: Some(options.pod_name.clone()),
    };
    let reconciling = LeaderTasks {
        watching,
        common: Arc::new(dataset::Context {
            cluster,
            book,
            fleet,
            recorder: Recorder::new(client.clone(), reporter),
            metrics: metrics.clone(),
            keyring: dataset::CredentialReader::new(client.clone()),
            made: dataset::RecentlyCreated::new(),
            progress: dataset::ProgressLimiter::new(),
            pods: dataset::Pods::new(client),
            places: parking_lot::Mutex::default(),
            written: parking_lot::Mutex::default(),
            namespaces: options.watch_namespaces.clone(),
        }),
        options,
    };
    let (mut leading, ended) = (leads, stop.clone());
    tasks.spawn_fallible("the reconcilers", async move {
        if leading.wait_for(|leads| *leads).await.is_err() {
            return Ok(());
        }
        metrics.leads.set(1);
        reconciling.run(ended).await
    });
    let ended = stop.clone();
    let mut election = Box::pin(election.run(ended));
    let result = tokio::select! {
        _ = terminate.recv() => Ok(()),
        elected = &mut election => elected.and_then(|()| bail!("the election ended")),
        exit = tasks.next_exit() => Err(exit.into()),
    };
    info!("shutting down");
    // The reconcilers first, then the Lease is given back: two never reconcile at once.
    stop.cancel();
    if result.is_ok() {
        election.await?;
    }
    result
}

/// The authority, as soon as the API server answers.
async fn authority(client: &Client, namespace: &str) -> Authority {
    loop {
        match ca::ensure(client.clone(), namespace).await {
            Ok(authority) => return authority,
            Err(error) => {
                warn!(error = format!("{error:#}"), "there is no authority yet");
                tokio::time::sleep(CA_RETRY_DELAY).await;
            }
        }
    }
}

/// The names of the headless Service.
fn server_names(namespace: &str) -> Vec<String> {
    let service = format!("millpond-controller.{namespace}");
    ["svc", "svc.cluster.local"]
        .map(|end| format!("{service}.{end}"))
        .into()
}

/// Signs this server's certificates, one after the other. Never ends by itself.
async fn keep_identity(
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

/// What the leader does.
struct LeaderTasks {
    watching: Watches,
    common: Arc<dataset::Context>,
    options: Options,
}

impl LeaderTasks {
    async fn run(self, stop: CancellationToken) -> Result<()> {
        let Self {
            mut watching,
            common,
            options,
        } = self;
        let (cluster, book, fleet) = (
            common.cluster.clone(),
            Arc::clone(&common.book),
            Arc::clone(&common.fleet),
        );
        let mut reflecting = watching.reflect();
        let pools = Arc::new(pool::Context {
            cluster: cluster.clone(),
            book: Arc::clone(&book),
            fleet: Arc::clone(&fleet),
            recorder: common.recorder.clone(),
            metrics: common.metrics.clone(),
            options,
        });
        let loads = Arc::new(load::Context {
            common: Arc::clone(&common),
            places: parking_lot::Mutex::default(),
        });
        let ready = watches::ready(&cluster);
        tokio::select! {
            ready = ready => ready?,
            _ = reflecting.join_next() => bail!("a watch ended"),
            () = stop.cancelled() => return Ok(()),
        }
        let for_pools = watching
            .pools(&fleet, &stop)
            .run(pool::reconcile, pool::after_error, pools);
        let for_datasets = watching
            .datasets(&common, &stop)
            .with_config(kube::runtime::controller::Config::default().concurrency(MAX_CONCURRENT_DATASETS))
            .run(dataset::reconcile, dataset::after_error, Arc::clone(&common));
        // A pool or a Dataset that has not been seen yet is not one that is missing.
        let for_datasets = async {
            if cluster.pools.wait_until_ready().await.is_ok() {
                for_datasets.for_each(|_done| async {}).await;
            }
        };
        let load_store = watching.loads_store();
        let for_loads = watching
            .loads(&loads, &stop)
            .run(load::reconcile, load::after_error, loads);
        let for_loads = async {
            if cluster.datasets.wait_until_ready().await.is_ok() {
                for_loads.for_each(|_done| async {}).await;
            }
        };
        let whole = async {
            let ended = "a watch ended";
            cluster.pools.wait_until_ready().await.context(ended)?;
            cluster.datasets.wait_until_ready().await.context(ended)?;
            load_store.wait_until_ready().await.context(ended)?;
            let uids = cluster
                .datasets
                .state()
                .into_iter()
                .filter_map(|dataset| dataset.uid());
            let uids = uids.chain(cluster.pools.state().into_iter().filter_map(|pool| pool.uid()));
            let uids: HashSet<_> = uids
                .chain(load_store.state().into_iter().filter_map(|load| load.uid()))
                .collect();
            info!(objects = uids.len(), "knows what there is");
            book.block_until_reconciled(uids);
            sweep(&common).await
        };
        tokio::select! {
            () = for_pools.for_each(|_done| async {}) => {}
            () = for_datasets => {}
            () = for_loads => {}
            () = events::tell_of_volumes(&common.recorder, &fleet) => {}
            ended = whole => ended?,
            _ = reflecting.join_next() => bail!("a watch ended"),
        }
        if stop.is_cancelled() {
            Ok(())
        } else {
            bail!("a watch ended")
        }
    }
}

/// Looks for bytes of Datasets that are no more, and for nodes that are no more. Never ends by itself.
async fn sweep(common: &dataset::Context) -> Result<()> {
    let mut interval = tokio::time::interval(ORPHAN_SWEEP_INTERVAL);
    let mut removed = HashSet::<String>::new();
    loop {
        interval.tick().await;
        for node in common.fleet.driver_nodes() {
            if common
                .cluster
                .nodes
                .find(|known| known.name_any() == node)
                .is_none()
            {
                common.fleet.forget_node(&node);
            }
        }
        let known: HashSet<_> = common
            .cluster
            .datasets
            .state()
            .iter()
            .filter_map(|dataset| dataset.uid())
            .collect();
        let present = common.fleet.all_present();
        removed.retain(|uid| {
            let stays = present.contains(uid);
            if !stays {
                common.book.forget_removed(uid);
            }
            stays
        });
        let unknown: Vec<_> = present
            .into_iter()
            .filter(|uid| !known.contains(uid) && !removed.contains(uid))
            .collect();
        if unknown.is_empty() {
            continue;
        }
        // What a watch has not seen yet is no reason to delete anything.
        match watches::dataset_uids(&common.cluster.client).await {
            Ok(there) => {
                for uid in unknown.into_iter().filter(|uid| !there.contains(uid)) {
                    info!(uid, "a node has bytes of a Dataset that is no more: they go");
                    common.book.remove_dataset(&uid);
                    removed.insert(uid);
                }
            }
            Err(error) => error!(%error, "failed to look which Datasets there are"),
        }
    }
}
