//! The certificate of a node process: requested from the controller with a ServiceAccount token, and renewed before it
//! expires.
//!
//! The key never leaves the process and is a new one each time. While the controller is unavailable the last certificate
//! stays in use.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use millpond_process::{backoff, with_causes};
use millpond_wire::plan::certificates_client::CertificatesClient;
use millpond_wire::plan::{IssueRequest, IssueResponse};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::connect::{ConnectError, Controller, connect};
use crate::identity::{Identity, IdentityError, anonymous_config};

/// Of one request for a certificate.
const ISSUE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two attempts to reach the controller.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(200);
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// What a process needs to request certificates.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// The issuer.
    pub controller: Controller,
    /// A file with the authorities to trust, in PEM. Read for each request: the kubelet updates it.
    pub authorities: PathBuf,
    /// A file with a ServiceAccount token with the audience [`crate::TOKEN_AUDIENCE`]. Read for each request.
    pub token: PathBuf,
}

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file of [`Bootstrap`] cannot be read.
    #[error("failed to read {}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The certificate request could not be created.
    #[error("failed to create a certificate request")]
    Request(#[from] rcgen::Error),
    /// The controller cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No replica of the controller has issued a certificate.
    #[error("the controller refused to issue a certificate: {}", status.message())]
    Refused {
        /// The response of the last replica.
        status: Box<tonic::Status>,
    },
    /// The controller has no replica.
    #[error("the controller has no address")]
    NoReplica,
    /// The issued certificate is invalid.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Requests and renews the certificate of this process.
#[derive(Debug)]
pub struct CertificateManager {
    bootstrap: Bootstrap,
    identity: watch::Sender<Option<Arc<Identity>>>,
}

impl CertificateManager {
    /// Creates a manager without a certificate; [`Self::run`] requests it.
    pub fn new(bootstrap: Bootstrap) -> Self {
        Self {
            bootstrap,
            identity: watch::Sender::new(None),
        }
    }

    /// Watches the newest identity; `None` until the first certificate is issued.
    pub fn identity(&self) -> watch::Receiver<Option<Arc<Identity>>> {
        self.identity.subscribe()
    }

    /// Requests and renews certificates until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        // Ends only by `stop`.
        let _stopped = stop.run_until_cancelled(self.renew()).await;
    }

    async fn renew(&self) {
        let mut delays = backoff(BACKOFF_MIN, BACKOFF_MAX);
        loop {
            let delay = match self.issue().await {
                Ok(identity) => {
                    info!(not_after = ?identity.not_after(), "certificate issued");
                    let delay = identity.renew_at().duration_since(SystemTime::now());
                    self.identity.send_replace(Some(Arc::new(identity)));
                    delays = millpond_process::backoff(BACKOFF_MIN, BACKOFF_MAX);
                    delay.unwrap_or(BACKOFF_MIN).max(BACKOFF_MIN)
                }
                Err(error) => {
                    let delay = delays.next().unwrap_or(BACKOFF_MAX);
                    warn!(
                        error = with_causes(&error),
                        "failed to get a certificate; retrying in {delay:?}"
                    );
                    delay
                }
            };
            tokio::time::sleep(delay).await;
        }
    }

    /// Requests a certificate from one replica after the other.
    async fn issue(&self) -> Result<Identity, CertificateError> {
        let authorities = read(&self.bootstrap.authorities).await?;
        let token = read(&self.bootstrap.token).await?.trim().to_owned();
        let key = rcgen::KeyPair::generate()?;
        let request = rcgen::CertificateParams::default().serialize_request(&key)?;
        let request = IssueRequest {
            csr_pem: request.pem()?,
            token,
        };
        let mut last = CertificateError::NoReplica;
        for address in self.bootstrap.controller.replicas().await? {
            let config = anonymous_config(&authorities)?;
            let requested = async {
                let channel = connect(address, self.bootstrap.controller.host(), config).await?;
                request_certificate(channel, request.clone()).await
            };
            match requested.await {
                Ok(IssueResponse {
                    certificate_pem,
                    authorities_pem,
                }) => {
                    let key = key.serialize_pem();
                    return Ok(Identity::from_pem(&certificate_pem, &key, &authorities_pem)?);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

async fn request_certificate(
    channel: tonic::transport::Channel,
    request: IssueRequest,
) -> Result<IssueResponse, CertificateError> {
    let mut request = tonic::Request::new(request);
    request.set_timeout(ISSUE_TIMEOUT);
    let response = CertificatesClient::new(channel).issue(request).await;
    response
        .map(tonic::Response::into_inner)
        .map_err(|status| CertificateError::Refused {
            status: Box::new(status),
        })
}

async fn read(path: &PathBuf) -> Result<String, CertificateError> {
    tokio::fs::read_to_string(path)
        .await
        .map_err(|source| CertificateError::File {
            path: path.clone(),
            source,
        })
}
