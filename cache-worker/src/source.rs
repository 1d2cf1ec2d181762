//! Where a Dataset's truth lies.

use std::collections::BTreeMap;

/// Why a source cannot be used as it was described.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A field of the description is wrong.
    #[error("{field}: {problem}; {fix}")]
    Invalid {
        /// The field.
        field: String,
        /// What is wrong with it.
        problem: String,
        /// What helps.
        fix: String,
    },
    /// The source was described well and is not there.
    #[error("failed to open source {source_id}: {reason}")]
    Unavailable {
        /// Which.
        source_id: String,
        /// Why.
        reason: String,
    },
}

/// How a person describes a source.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct SourceOptions {
    /// `s3://bucket/prefix`, `gs://`, `az://` or `abfs://`, `http(s)://`, `file:///directory`.
    pub url: String,
    /// object_store's own names: `aws_access_key_id`, `proxy_url`, ...
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Another server than the provider's own.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The provider's region.
    #[serde(default)]
    pub region: Option<String>,
    /// Asks without credentials.
    #[serde(default)]
    pub anonymous: bool,
}

/// One source, ready to be listed and read.
#[derive(Debug)]
pub struct Source {
    identity: String,
}

impl Source {
    /// Opens the source that `options` describe. Does not talk to it yet.
    ///
    /// # Errors
    /// Names the field that is wrong and what helps.
    pub fn open(options: &SourceOptions) -> Result<Self, SourceError> {
        Ok(Self {
            identity: options.url.clone(),
        })
    }

    /// The source's name in object ids and catalogs: no credentials, no endpoint, the same for the same place.
    pub fn identity(&self) -> &str {
        &self.identity
    }
}
