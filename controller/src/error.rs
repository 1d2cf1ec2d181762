//! The error that every reconciler shares: a request that the API server did not serve.

use std::sync::Arc;

/// A request to the API server failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("failed to {action}")]
pub(crate) struct ApiError {
    /// What was tried, as a verb with its object.
    action: &'static str,
    #[source]
    source: Arc<kube::Error>,
}

impl ApiError {
    /// Returns the conversion of a failure to do `action`, for `map_err`.
    pub(crate) fn during<E: Into<Arc<kube::Error>>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self {
            action,
            source: source.into(),
        }
    }

    /// Returns whether the object of the request does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(&*self.source, kube::Error::Api(status) if status.code == 404)
    }
}
