//! Where a Dataset's truth lies: a bucket, a WebDAV server or a directory, listed and read in one version.
//!
//! [`SourceUrl`] understands what a person wrote, `connect` makes object_store's clients of it, and `wire` looks
//! at every answer before object_store makes something of its own of it: its paths cannot hold every key and
//! its errors do not say what the server said. `file` reads directories of this host.
//!
//! A [`Source`] asks once and says what happened. Patience - retries, deadlines, hedges - is in `fetch` and in
//! `listing`.
//!
//! Invariants:
//! - What a GET returns is of the version asked for: the request carries the validator, and the answer is
//!   checked against it too, for servers that ignore conditions.
//! - A key is asked for exactly as it was listed, or not at all.
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
    /// A directory that is named is not there.
    #[error("{field}: {problem}; name a directory that is there")]
    NotFound {
        /// The field.
        field: String,
        /// What is not there.
        problem: String,
    },
    /// A directory that is named may not be read.
    #[error("{field}: {problem}; name a directory that Millpond may read")]
    Denied {
        /// The field.
        field: String,
        /// What may not be read.
        problem: String,
    },
    /// The source was described well and cannot be used now.
    #[error("failed to open source {source_id}: {reason}")]
    Unavailable {
        /// Which.
        source_id: String,
        /// Why.
        reason: String,
    },
}

/// How a person describes a source.
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
    /// Asks without credentials.
    #[serde(default)]
    pub anonymous: bool,
    /// Certificates of authorities that the server's may be signed by, beside the system's; PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_certificates: Option<String>,
    /// A web identity token (a JWT) to be exchanged for credentials: of an S3 source with the option `aws_role_arn`, of an
    /// Azure source with `azure_client_id` and `azure_tenant_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_identity_token: Option<String>,
}

impl std::fmt::Debug for SourceOptions {
    /// Without the options' values: they are credentials.
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

/// What to ask a source for. The range is not empty and lies within the size.
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
    /// What lies directly below it; deeper keys show as prefixes.
    Level,
    /// All of it.
    Tree,
}

/// Why an answer is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AttemptError {
    #[error("it is not there in this version")]
    Changed,
    #[error("{0}")]
    Denied(String),
    #[error("the source asks for fewer requests: {reason}")]
    Throttled {
        reason: String,
        /// How long the source wants to be left alone.
        after: Option<Duration>,
    },
    /// Another try may help.
    #[error("{0}")]
    Failed(String),
    /// Another try cannot help.
    #[error("{0}")]
    Hopeless(String),
    /// There is no such bucket, container or directory at all.
    #[error("{0}")]
    Missing(String),
    /// The source can never do this.
    #[error("{0}")]
    Unsupported(String),
}

/// One source, ready to be listed and read.
#[derive(Debug)]
pub struct Source {
    identity: String,
    prefix: String,
    backend: Backend,
    /// Is there for as long as the client may look for it.
    _token: Option<IdentityToken>,
}

#[derive(Debug)]
enum Backend {
    Remote(Remote),
    File(Directory),
}

impl Source {
    /// Opens the source that `options` describe, with this process's environment. Does not talk to it yet.
    ///
    /// # Errors
    /// Names the field that is wrong and what helps.
    pub fn open(options: &SourceOptions) -> Result<Self, SourceError> {
        Self::open_in(options, &Environment::of_process(), &Clients::default())
    }

    /// Opens the source that `options` describe, with the credentials that `environment` leads to and one of `clients`.
    ///
    /// # Errors
    /// Names the field that is wrong and what helps.
    pub fn open_in(
        options: &SourceOptions,
        environment: &Environment,
        clients: &Clients,
    ) -> Result<Self, SourceError> {
        let url = SourceUrl::parse(&options.url)?;
        let token = identity_token(options)?;
        let (backend, endpoint) = match &url.place {
            SourceLocation::File { directory } => {
                only_a_url(options)?;
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

    /// Makes a source of any store, for tests.
    pub fn of_store(identity: &str, prefix: &str, store: Arc<dyn ObjectStore>) -> Self {
        let remote = Remote {
            store,
            lister: Lister::Whole,
            wired: false,
            endpoint: None,
        };
        Self {
            identity: identity.to_owned(),
            prefix: prefix.to_owned(),
            backend: Backend::Remote(remote),
            _token: None,
        }
    }

    /// The source's name in object ids and catalogs: canonical, with the endpoint if one was given by whatever
    /// way (another server's bucket of the same name holds other objects), and without any credentials.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// What all its keys begin with: empty, or ends with `/`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Asks once for a range of one version of an object. The stream may end early, or bring too much.
    pub(crate) async fn get(
        &self,
        ask: &GetRequest,
    ) -> Result<BoxStream<'static, Result<Bytes, AttemptError>>, AttemptError> {
        match &self.backend {
            Backend::Remote(remote) => remote.get(ask).await,
            Backend::File(directory) => directory.get(ask).await,
        }
    }

    /// Asks once for a page of a listing.
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

    /// Whether [`Depth::Tree`] can be asked for.
    pub(crate) const fn lists_trees(&self) -> bool {
        matches!(
            &self.backend,
            Backend::Remote(Remote {
                lister: Lister::Pages(..),
                ..
            })
        )
    }

    /// Whether a GET can ask for exactly `key`.
    pub(crate) fn can_ask_for(&self, key: &str) -> bool {
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
        reason: format!("failed to keep the web identity token: {error}"),
    })
}

fn only_a_url(options: &SourceOptions) -> Result<(), SourceError> {
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
        problem: "a directory has no such thing".to_owned(),
        fix: "remove it".to_owned(),
    })
}
