//! A node process's certificate: got from the controller by the ServiceAccount's token, and renewed before it ends.
//!
//! The key never leaves the process and is a new one each time. While the controller is away the certificate that is
//! there is used on.

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

const ISSUE_TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(200);
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// How a process comes by its first certificate.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// Who gives it.
    pub controller: Controller,
    /// A file with the authorities to trust, in PEM. Read each time: the kubelet keeps it fresh.
    pub authorities: PathBuf,
    /// A file with a ServiceAccount token with the audience [`crate::TOKEN_AUDIENCE`]. Read each time.
    pub token: PathBuf,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// A file of the bootstrap cannot be read.
    #[error("failed to read {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No request could be made.
    #[error("failed to make a certificate request")]
    Request(#[from] rcgen::Error),
    /// The controller cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No replica of the controller has issued one.
    #[error("the controller issues no certificate: {}", status.message())]
    Refused {
        /// What the last one said.
        status: Box<tonic::Status>,
    },
    /// There is no replica.
    #[error("the controller has no address")]
    Nobody,
    /// What came cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Keeps a certificate.
#[derive(Debug)]
pub struct CertificateManager {
    bootstrap: Bootstrap,
    identity: watch::Sender<Option<Arc<Identity>>>,
}

impl CertificateManager {
    /// Begins without a certificate; [`Self::keep`] gets it.
    pub fn new(bootstrap: Bootstrap) -> Self {
        Self {
            bootstrap,
            identity: watch::Sender::new(None),
        }
    }

    /// The newest identity; `None` until the first is there.
    pub fn identity(&self) -> watch::Receiver<Option<Arc<Identity>>> {
        self.identity.subscribe()
    }

    /// Gets certificates until `stop`.
    pub async fn keep(self, stop: CancellationToken) {
        // Ended only by `stop`.
        let _stopped = stop.run_until_cancelled(self.renew()).await;
    }

    async fn renew(&self) {
        let mut delays = backoff(BACKOFF_MIN, BACKOFF_MAX);
        loop {
            let pause = match self.issue().await {
                Ok(identity) => {
                    info!(not_after = ?identity.not_after(), "got a certificate");
                    let pause = identity.renew_at().duration_since(SystemTime::now());
                    self.identity.send_replace(Some(Arc::new(identity)));
                    delays = millpond_process::backoff(BACKOFF_MIN, BACKOFF_MAX);
                    pause.unwrap_or(BACKOFF_MIN).max(BACKOFF_MIN)
                }
                Err(error) => {
                    let pause = delays.next().unwrap_or(BACKOFF_MAX);
                    warn!(error = with_causes(&error), again_in = ?pause, "failed to get a certificate");
                    pause
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks one replica after the other.
    async fn issue(&self) -> Result<Identity, MembershipError> {
        let authorities = read(&self.bootstrap.authorities).await?;
        let token = read(&self.bootstrap.token).await?.trim().to_owned();
        let key = rcgen::KeyPair::generate()?;
        let request = rcgen::CertificateParams::default().serialize_request(&key)?;
        let request = IssueRequest {
            csr_pem: request.pem()?,
            token,
        };
        let mut last = MembershipError::Nobody;
        for address in self.bootstrap.controller.replicas().await? {
            let config = anonymous_config(&authorities)?;
            let asked = async {
                let channel = connect(address, self.bootstrap.controller.host(), config).await?;
                ask(channel, request.clone()).await
            };
            match asked.await {
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

async fn ask(
    channel: tonic::transport::Channel,
    request: IssueRequest,
) -> Result<IssueResponse, MembershipError> {
    let mut request = tonic::Request::new(request);
    request.set_timeout(ISSUE_TIMEOUT);
    let answer = CertificatesClient::new(channel).issue(request).await;
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| MembershipError::Refused {
            status: Box::new(status),
        })
}

async fn read(path: &PathBuf) -> Result<String, MembershipError> {
    tokio::fs::read_to_string(path)
        .await
        .map_err(|source| MembershipError::File {
            path: path.clone(),
            source,
        })
}
