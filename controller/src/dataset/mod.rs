//! Datasets: from a spec to a claim, a volume and a part of the plan; from reports to a status.
//!
//! Five steps: [`dereference`] reads what the spec names, [`validate`] says what is wrong or what is meant, [`build`] makes
//! objects and plan of it, [`apply`] makes them real, [`status`] says how it is. A Dataset that is being deleted goes
//! through [`delete`] instead.

mod apply;
mod build;
mod credentials;
mod delete;
mod dereference;
mod pod_use;
mod status;
mod validate;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::events::Recorder;
use kube::runtime::reflector::ObjectRef;
use millpond_api::Dataset;
use parking_lot::Mutex;

use crate::cluster::Cluster;
use crate::metrics::Metrics;
use crate::node_reports::NodeReports;
use crate::plan::PlanIndex;
pub(crate) use apply::RecentlyCreated;
pub(crate) use credentials::CredentialReader;
pub(crate) use pod_use::Pods;
pub(crate) use status::ProgressLimiter;

/// Secrets are read again: they may have been rotated, or made at last.
const REQUEUE_INTERVAL: Duration = Duration::from_secs(60);

/// The same where something is missing.
const PROBLEM_REQUEUE_INTERVAL: Duration = Duration::from_secs(5);

/// Why a step failed. The user's mistakes are no errors: they are findings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server refused or could not be reached.
    #[error("failed to {what}")]
    Api {
        what: &'static str,
        #[source]
        source: Arc<kube::Error>,
    },
    /// The API server has given an object that it cannot have.
    #[error("the Dataset has no {0}")]
    Incomplete(&'static str),
}

impl Error {
    pub(crate) fn api<E: Into<Arc<kube::Error>>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Api {
            what,
            source: source.into(),
        }
    }
}

/// What the reconciler works with.
pub(crate) struct Context {
    pub(crate) cluster: Cluster,
    pub(crate) book: Arc<PlanIndex>,
    pub(crate) fleet: Arc<NodeReports>,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Metrics,
    pub(crate) keyring: CredentialReader,
    pub(crate) made: RecentlyCreated,
    pub(crate) progress: ProgressLimiter,
    /// The pods that may use Datasets.
    pub(crate) pods: Pods,
    /// Where a Dataset is, by its uid: reports know nothing else.
    pub(crate) places: Mutex<HashMap<String, ObjectRef<Dataset>>>,
    /// The last status of each Dataset that this replica has written.
    pub(crate) written: Mutex<HashMap<String, status::LastWrittenStatus>>,
    /// The only namespaces that are served; empty: all.
    pub(crate) namespaces: Vec<String>,
}

impl Context {
    /// Whether objects of a namespace are this installation's.
    pub(crate) fn serves(&self, namespace: Option<&str>) -> bool {
        self.namespaces.is_empty()
            || self
                .namespaces
                .iter()
                .any(|served| Some(served.as_str()) == namespace)
    }
}

/// Makes a Dataset what it is to be.
pub(crate) async fn reconcile(dataset: Arc<Dataset>, context: Arc<Context>) -> Result<Action, Error> {
    let timer = context.metrics.begin("Dataset");
    let uid = dataset.uid().ok_or(Error::Incomplete("uid"))?;
    if !context.serves(dataset.metadata.namespace.as_deref()) {
        context.book.mark_reconciled(&uid);
        return Ok(Action::await_change());
    }
    context
        .places
        .lock()
        .insert(uid.clone(), ObjectRef::from_obj(&*dataset));
    let result = if dataset.metadata.deletion_timestamp.is_some() {
        Box::pin(delete::delete(&dataset, &uid, &context)).await
    } else {
        Box::pin(reconcile_present(&dataset, &uid, &context)).await
    };
    // What cannot be reconciled now must not keep all others from their nodes.
    context.book.mark_reconciled(&uid);
    timer.end(result.is_ok());
    result
}

async fn reconcile_present(dataset: &Dataset, uid: &str, context: &Context) -> Result<Action, Error> {
    apply::ensure_finalizer(dataset, uid, context).await?;
    let named = dereference::dereference(dataset, context).await?;
    let validated = validate::validate(dataset, &named);
    let reports = context.fleet.dataset(uid);
    let had_catalog = dataset
        .status
        .as_ref()
        .is_some_and(|status| status.catalog_generation.is_some());
    let has_catalog = had_catalog || reports.iter().any(|(_, report)| report.catalog_generation > 0);
    // What was readable stays readable while the user mends a mistake.
    if let Some(pool) = validated
        .pool
        .as_ref()
        .filter(|_| validated.problems.is_empty() || had_catalog)
    {
        let planned = build::planned(dataset, uid, pool, &named);
        context.book.put_dataset(uid, planned);
        apply::prefetch(dataset, uid, pool, has_catalog, context);
    }
    let objects = apply::Objects {
        claim: build::claim(dataset),
        volume: has_catalog.then(|| build::volume(dataset, uid, &reports)),
    };
    let taken = Box::pin(apply::apply(dataset, uid, objects, context)).await?;
    let findings = status::StatusInputs {
        validated: &validated,
        taken,
        reports: &reports,
        is_settled: context.fleet.startup_grace_over(status::STARTUP_GRACE),
        load: context
            .fleet
            .load(uid, validated.pool.as_deref().unwrap_or_default()),
        is_bound: apply::is_bound(dataset, context),
        workers: validated
            .pool
            .as_ref()
            .map_or(0, |pool| context.cluster.workers(pool).len()),
    };
    let outcome = Box::pin(status::write(dataset, uid, &findings, context)).await?;
    Ok(Action::requeue(match outcome {
        status::Outcome::Well => REQUEUE_INTERVAL,
        status::Outcome::Unwell => PROBLEM_REQUEUE_INTERVAL,
        status::Outcome::Awaited(pause) => pause,
    }))
}

/// After an error: again, not too soon.
#[expect(clippy::needless_pass_by_value, reason = "the signature is the runtime's")]
pub(crate) fn after_error(dataset: Arc<Dataset>, error: &Error, _context: Arc<Context>) -> Action {
    let (name, namespace) = (dataset.name_any(), dataset.namespace().unwrap_or_default());
    tracing::warn!(
        name,
        namespace,
        error = millpond_process::with_causes(error),
        "failed to reconcile a Dataset"
    );
    Action::requeue(PROBLEM_REQUEUE_INTERVAL)
}
