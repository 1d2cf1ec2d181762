//! Datasets: from a spec to a claim, a volume and a plan entry; from reports to a status.
//!
//! Five steps, once each and in this order, each with a type for its result: [`dereference`] reads what the spec names and
//! what workers report ([`dereference::ResolvedRefs`]), [`validate`] finds what is wrong with it
//! ([`validate::Validated`]), [`build`] computes everything that follows ([`build::Prepared`]), [`apply`] puts that into the
//! plan and the API server ([`apply::Applied`]), [`status`] writes the status. A Dataset that is being deleted goes through
//! [`delete`] instead.

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
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::node_reports::NodeReports;
use crate::plan::PlanIndex;
pub(crate) use apply::RecentlyCreated;
pub(crate) use credentials::CredentialReader;
pub(crate) use pod_use::PodLister;
pub(crate) use status::ProgressLimiter;

/// Secrets are not watched: a Dataset is reconciled again, so that a rotated one is read.
const REQUEUE_INTERVAL: Duration = Duration::from_secs(60);

/// The same while something is missing or wrong, and after an error.
const PROBLEM_REQUEUE_INTERVAL: Duration = Duration::from_secs(5);

/// Why a step failed. Mistakes in a spec are no errors: they become conditions.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server refused a request or could not be reached.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The API server returned an object without a field that it always sets.
    #[error("the Dataset has no {0}")]
    Incomplete(&'static str),
}

/// What the reconciler works with.
pub(crate) struct Context {
    pub(crate) cluster: Cluster,
    pub(crate) plan: Arc<PlanIndex>,
    pub(crate) node_reports: Arc<NodeReports>,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Metrics,
    pub(crate) credentials: CredentialReader,
    pub(crate) recently_created: RecentlyCreated,
    pub(crate) progress: ProgressLimiter,
    /// The pods that may use Datasets.
    pub(crate) pods: PodLister,
    /// Each Dataset's name and namespace by its uid: reports carry the uid alone.
    pub(crate) refs: Mutex<HashMap<String, ObjectRef<Dataset>>>,
    /// The last status of each Dataset that this replica wrote, by uid.
    pub(crate) last_statuses: Mutex<HashMap<String, status::LastWrittenStatus>>,
    /// The only namespaces that are served; empty: all.
    pub(crate) namespaces: Vec<String>,
}

impl Context {
    /// Returns whether this installation serves objects of a namespace.
    pub(crate) fn serves(&self, namespace: Option<&str>) -> bool {
        self.namespaces.is_empty()
            || self
                .namespaces
                .iter()
                .any(|served| Some(served.as_str()) == namespace)
    }
}

/// Reconciles a Dataset with its spec and the reports.
pub(crate) async fn reconcile(dataset: Arc<Dataset>, context: Arc<Context>) -> Result<Action, Error> {
    let timer = context.metrics.start_timer("Dataset");
    let uid = dataset.uid().ok_or(Error::Incomplete("uid"))?;
    if !context.serves(dataset.metadata.namespace.as_deref()) {
        context.plan.mark_reconciled(&uid);
        return Ok(Action::await_change());
    }
    context
        .refs
        .lock()
        .insert(uid.clone(), ObjectRef::from_obj(&*dataset));
    let result = if dataset.metadata.deletion_timestamp.is_some() {
        Box::pin(delete::delete(&dataset, &uid, &context)).await
    } else {
        Box::pin(reconcile_present(&dataset, &uid, &context)).await
    };
    // Also after an error: one Dataset that cannot be reconciled must not hold the plan of all others back.
    context.plan.mark_reconciled(&uid);
    timer.stop(result.is_ok());
    result
}

async fn reconcile_present(dataset: &Dataset, uid: &str, context: &Context) -> Result<Action, Error> {
    let refs = dereference::dereference(dataset, uid, context).await?;
    let validated = validate::validate(dataset, &refs);
    let prepared = build::build(dataset, uid, &validated, &refs);
    let applied = Box::pin(apply::apply(dataset, uid, prepared, context)).await?;
    let inputs = status::StatusInputs::new(uid, &validated, &refs, applied, context);
    let outcome = Box::pin(status::write(dataset, uid, &inputs, context)).await?;
    Ok(Action::requeue(match outcome {
        status::Outcome::NoProblem => REQUEUE_INTERVAL,
        status::Outcome::Problem => PROBLEM_REQUEUE_INTERVAL,
        status::Outcome::Postponed(delay) => delay,
    }))
}

/// Requeues a Dataset whose reconciliation failed.
#[expect(clippy::needless_pass_by_value, reason = "the signature is the runtime's")]
pub(crate) fn after_error(dataset: Arc<Dataset>, error: &Error, _context: Arc<Context>) -> Action {
    let (name, namespace) = (dataset.name_any(), dataset.namespace().unwrap_or_default());
    tracing::warn!(
        name,
        namespace,
        error = millpond_process::with_causes(error),
        "failed to reconcile a Dataset; retrying in {} s",
        PROBLEM_REQUEUE_INTERVAL.as_secs()
    );
    Action::requeue(PROBLEM_REQUEUE_INTERVAL)
}
