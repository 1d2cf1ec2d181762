//! CachePools: from a spec to a DaemonSet of workers, their Service and a plan entry; from pods and reports to a status.
//!
//! The steps are those of a Dataset.

mod apply;
mod build;
mod dereference;
mod status;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::events::Recorder;
use millpond_api::CachePool;

use crate::cluster::Cluster;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::node_reports::NodeReports;
use crate::options::Options;
use crate::plan::PlanIndex;

/// For the used bytes, whose reports trigger no reconciliation of a pool; watches and other reports do.
const REQUEUE_INTERVAL: Duration = Duration::from_secs(30);

/// Between two attempts after an error.
const ERROR_RETRY_DELAY: Duration = Duration::from_secs(5);

/// Why a step failed. Mistakes in a spec are no errors: they become conditions.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server refused a request or could not be reached.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The API server returned an object without a field that it always sets.
    #[error("the CachePool has no {0}")]
    Incomplete(&'static str),
}

/// What the reconciler works with.
pub(crate) struct Context {
    pub(crate) cluster: Cluster,
    pub(crate) plan: Arc<PlanIndex>,
    pub(crate) node_reports: Arc<NodeReports>,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Metrics,
    pub(crate) options: Options,
}

/// Reconciles a pool with its spec and the reports.
pub(crate) async fn reconcile(pool: Arc<CachePool>, context: Arc<Context>) -> Result<Action, Error> {
    let timer = context.metrics.start_timer("CachePool");
    let uid = pool.uid().ok_or(Error::Incomplete("uid"))?;
    let result = if pool.metadata.deletion_timestamp.is_some() {
        context.plan.remove_pool(&pool.name_any());
        Ok(Action::await_change())
    } else {
        reconcile_present(&pool, &context).await
    };
    context.plan.mark_reconciled(&uid);
    timer.stop(result.is_ok());
    result
}

async fn reconcile_present(pool: &CachePool, context: &Context) -> Result<Action, Error> {
    let refs = dereference::dereference(pool, context);
    let problems = validate::validate(pool, &context.options.tier_roots, &refs.default_pools);
    let prepared = build::build(pool, &problems, &refs, &context.options);
    let applied = apply::apply(pool, prepared, context).await?;
    status::write(pool, &problems, &applied, context).await?;
    Ok(Action::requeue(REQUEUE_INTERVAL))
}

/// Requeues a pool whose reconciliation failed.
#[expect(clippy::needless_pass_by_value, reason = "the signature is the runtime's")]
pub(crate) fn after_error(pool: Arc<CachePool>, error: &Error, _context: Arc<Context>) -> Action {
    tracing::warn!(
        name = pool.name_any(),
        error = millpond_process::with_causes(error),
        "failed to reconcile a CachePool; retrying in {} s",
        ERROR_RETRY_DELAY.as_secs()
    );
    Action::requeue(ERROR_RETRY_DELAY)
}
