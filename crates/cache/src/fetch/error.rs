//! What can become of a fetch.

/// Why an object's bytes did not come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The source holds another version than the one asked for, or none. Another try cannot help; a new
    /// listing does.
    #[error("{key} is not at its source any more in the version that was asked for")]
    Changed {
        /// What was asked for.
        key: String,
    },
    /// The source knows us and says no, or does not know us.
    #[error("the source denies access to {key}: {reason}")]
    Denied {
        /// What was asked for.
        key: String,
        /// The source's words.
        reason: String,
    },
    /// The source did not give the bytes before the deadline.
    #[error("failed to fetch {key}: {reason}")]
    Unavailable {
        /// What was asked for.
        key: String,
        /// The last cause.
        reason: String,
    },
}
