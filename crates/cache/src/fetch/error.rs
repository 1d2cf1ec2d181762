//! Errors of a fetch.

/// Why a fetch failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The source holds another version, or none. A retry cannot help; a new listing does.
    #[error("{key} changed or was deleted at its source")]
    Changed {
        /// The object's key.
        key: String,
    },
    /// The source rejects the credentials, or the access.
    #[error("the source denies access to {key}: {reason}")]
    Denied {
        /// The object's key.
        key: String,
        /// The source's reason.
        reason: String,
    },
    /// The source did not deliver the bytes before the deadline.
    #[error("failed to fetch {key}: {reason}")]
    Unavailable {
        /// The object's key.
        key: String,
        /// The last cause.
        reason: String,
    },
}
