//! The source of a Dataset's files: a bucket, a WebDAV server or a directory, listed and read in one version.
//!
//! [`SourceUrl`] parses the URL that a user wrote, `connect` builds object_store's clients, and `wire` reads every
//! response before object_store does: its paths cannot hold every key, and its errors do not carry the server's
//! status. `file` reads directories of this host.
//!
//! A [`Source`] sends one request and returns its result. Retries, deadlines and hedges are in `fetch` and in
//! `listing`.
//!
//! Invariants:
//! - A GET returns bytes of the requested version: the request carries the validator, and the response is checked
//!   against it too, for servers that ignore conditions.
//! - A key is requested exactly as it was listed, or not at all.
//!
//! Not here: assuming roles, SSO and credential programs of AWS profiles; credentials for HTTP sources, web
//! identities at Google.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use millpond_core::Validator;
use object_store::ObjectStore;

mod clients;
mod connect;
mod environment;
mod file;
mod identity_token;
mod isolation;
mod location;
mod page;
mod remote;
mod wire;

use file::Directory;
use identity_token::IdentityToken;
use location::SourceLocation;
use remote::{Lister, Remote};

pub use clients::Clients;
pub use environment::Environment;
pub use location::SourceUrl;
pub(crate) use page::{Entry, Page, path_of};

/// Why a source cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A field of the configuration is invalid.
    #[error("{field}: {problem}; {fix}")]
    Invalid {
        /// The field.
        field: String,
        /// What is wrong with it.
        problem: String,
        /// How to correct it.
        fix: String,
    },
    /// A configured directory does not exist.
    #[error("{field}: {problem}; name an existing directory")]
    NotFound {
        /// The field.
        field: String,
        /// What does not exist.
        problem: String,
    },
    /// A configured directory may not be read.
    #[error("{field}: {problem}; name a directory that Millpond may read")]
    Denied {
        /// The field.
        field: String,
        /// What may not be read.
        problem: String,
    },
    /// The configuration is valid and the source cannot be used now.
    #[error("failed to open source {source_id}: {reason}")]
    Unavailable {
        /// The source.
        source_id: String,
        /// Why.
        reason: String,
    },
}

/// The configuration of a source.
#[derive(Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SourceOptions {
    /// `s3://bucket/prefix`, `gs://`, `az://` or `abfs://`, `http(s)://`, `file:///directory`.
    pub url: String,
    /// object_store's own names: `aws_access_key_id`, `proxy_url`, ...; and `aws_profile`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Another server than the provider's own; `None`: the environment's, else the provider's.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The bucket's region; `None`: the environment's, else the provider's default.
    #[serde(default)]
    pub region: Option<String>,
    /// Sends requests without credentials.
    #[serde(default)]
    pub anonymous: bool,
    /// Certificates of authorities that may sign the server's certificate, beside the system's; PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_certificates: Option<String>,
    /// A web identity token (a JWT) to be exchanged for credentials: of an S3 source with the option `aws_role_arn`, of an
    /// Azure source with `azure_client_id` and `azure_tenant_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_identity_token: Option<String>,
}

impl std::fmt::Debug for SourceOptions {
    /// Omits the options' values: they are credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            url,
            options,
            endpoint,
            region,
            anonymous,
            ca_certificates,
            web_identity_token,
        } = self;
        f.debug_struct("SourceOptions")
            .field("url", url)
            .field("options", &options.keys())
            .field("endpoint", endpoint)
            .field("region", region)
            .field("anonymous", anonymous)
            .field("ca_certificates", &ca_certificates.is_some())
            .field("web_identity_token", &web_identity_token.is_some())
            .finish()
    }
}

/// A request for a range of an object. The range is not empty and lies within the size.
#[derive(Clone, Debug)]
pub(crate) struct GetRequest {
    pub(crate) key: String,
    pub(crate) validator: Validator,
    pub(crate) size_bytes: u64,
    pub(crate) range: Range<u64>,
}

/// How far below a prefix a page reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// The level directly below it; deeper keys are reported as prefixes.
    Level,
    /// The whole tree below it.
    Tree,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AttemptError {
    #[error("this version is not at the source")]
    Changed,
    #[error("{0}")]
    Denied(String),
    #[error("throttled by the source: {reason}")]
    Throttled {
        reason: String,
        /// The wait that the source asks for.
        after: Option<Duration>,
    },
    /// A retry may help.
    #[error("{0}")]
    Failed(String),
    /// A retry cannot help.
    #[error("{0}")]
    Permanent(String),
    /// The bucket, container or directory does not exist at all.
    #[error("{0}")]
    Missing(String),
    /// The source never supports this.
    #[error("{0}")]
    Unsupported(String),
}

/// One source, ready to be listed and read.
#[derive(Debug)]
pub struct Source {
    identity: String,
    prefix: String,
    backend: Backend,
    /// Exists for as long as the client may read it.
    _token: Option<IdentityToken>,
}

#[derive(Debug)]
enum Backend {
    Remote(Remote),
    File(Directory),
}

impl Source {
    /// Opens the source that `options` describe, with this process's environment. Sends no request yet.
    ///
    /// # Errors
    /// Names the field that is wrong and how to correct it.
    pub fn open(options: &SourceOptions) -> Result<Self, SourceError> {
        Self::open_in(options, &Environment::of_process(), &Clients::default())
    }

    /// Opens the source that `options` describe, with the credentials that `environment` gives and one of
    /// `clients`.
    ///
    /// # Errors
    /// Names the field that is wrong and how to correct it.
    pub fn open_in(
        options: &SourceOptions,
        environment: &Environment,
        clients: &Clients,
    ) -> Result<Self, SourceError> {
        let url = SourceUrl::parse(&options.url)?;
        let token = identity_token(options)?;
        let (backend, endpoint) = match &url.location {
            SourceLocation::File { directory } => {
                refuse_other_fields(options)?;
                if !environment.may_open(directory) {
                    return Err(SourceError::Denied {
                        field: "url".to_owned(),
                        problem: format!("{} is not among the directories for sources", directory.display()),
                    });
                }
                (Backend::File(Directory::open(directory)?), None)
            }
            SourceLocation::S3 { .. }
            | SourceLocation::Gcs { .. }
            | SourceLocation::Azure { .. }
            | SourceLocation::Http { .. } => {
                let remote = connect::connect(&url, options, environment, clients, token.as_ref())?;
                let endpoint = remote.endpoint.clone();
                (Backend::Remote(remote), endpoint)
            }
        };
        let server = endpoint
            .map(|endpoint| format!("?endpoint={endpoint}"))
            .unwrap_or_default();
        Ok(Self {
            identity: format!("{url}{server}"),
            prefix: url.prefix,
            backend,
            _token: token,
        })
    }

    /// Returns a source of any store, for tests.
    pub fn of_store(identity: &str, prefix: &str, store: Arc<dyn ObjectStore>) -> Self {
        let remote = Remote {
            store,
            lister: Lister::Directory,
            on_wire: false,
            endpoint: None,
        };
        Self {
            identity: identity.to_owned(),
            prefix: prefix.to_owned(),
            backend: Backend::Remote(remote),
            _token: None,
        }
    }

    /// Returns the source's name in object ids and catalogs: canonical, with the endpoint if one is configured in
    /// any way (another server's bucket of the same name holds other objects), and without credentials.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Returns the prefix of all its keys: empty, or ends with `/`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Sends one request for a range of one version of an object. The stream may end early, or deliver too much.
    pub(crate) async fn get(
        &self,
        request: &GetRequest,
    ) -> Result<BoxStream<'static, Result<Bytes, AttemptError>>, AttemptError> {
        match &self.backend {
            Backend::Remote(remote) => remote.get(request).await,
            Backend::File(directory) => directory.get(request).await,
        }
    }

    /// Sends one request for a page of a listing.
    pub(crate) async fn page(
        &self,
        prefix: &str,
        depth: Depth,
        token: Option<String>,
    ) -> Result<Page, AttemptError> {
        match &self.backend {
            Backend::Remote(remote) => remote.page(prefix, depth, token).await,
            Backend::File(directory) => directory.page(prefix).await,
        }
    }

    /// Returns whether [`Depth::Tree`] can be requested.
    pub(crate) const fn lists_trees(&self) -> bool {
        matches!(
            &self.backend,
            Backend::Remote(Remote {
                lister: Lister::Pages(..),
                ..
            })
        )
    }

    /// Returns whether a GET can request exactly `key`.
    pub(crate) fn can_request(&self, key: &str) -> bool {
        match &self.backend {
            Backend::Remote(_) => path_of(key).is_some(),
            // Every name that the kernel listed can be opened.
            Backend::File(_) => true,
        }
    }
}

fn identity_token(options: &SourceOptions) -> Result<Option<IdentityToken>, SourceError> {
    let token = options.web_identity_token.as_deref().map(IdentityToken::new);
    token.transpose().map_err(|error| SourceError::Unavailable {
        source_id: options.url.clone(),
        reason: format!("failed to store the web identity token: {error}"),
    })
}

fn refuse_other_fields(options: &SourceOptions) -> Result<(), SourceError> {
    let SourceOptions {
        url: _,
        options: others,
        endpoint,
        region,
        anonymous,
        ca_certificates,
        web_identity_token,
    } = options;
    let for_http = [
        (ca_certificates.is_some(), "ca_certificates"),
        (web_identity_token.is_some(), "web_identity_token"),
    ];
    let for_http = for_http.into_iter().find(|(given, _)| *given);
    let given = match (others.keys().next(), endpoint, region, anonymous) {
        (Some(name), ..) => format!("option {name}"),
        (None, Some(_), ..) => "endpoint".to_owned(),
        (None, None, Some(_), _) => "region".to_owned(),
        (None, None, None, true) => "anonymous".to_owned(),
        (None, None, None, false) => match for_http {
            Some((_, name)) => name.to_owned(),
            None => return Ok(()),
        },
    };
    Err(SourceError::Invalid {
        field: given,
        problem: "a directory source has no such setting".to_owned(),
        fix: "remove it".to_owned(),
    })
}
