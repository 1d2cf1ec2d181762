//! The service that issues certificates to node processes.

use std::sync::Arc;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use millpond_cluster::{Peer, Role, TOKEN_AUDIENCE};
use millpond_wire::plan::certificates_server::Certificates;
use millpond_wire::plan::{IssueRequest, IssueResponse};
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::authority::Authority;

/// The key under which a token review holds the node of the token's pod.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Issues certificates; every replica does, not only the leader.
#[derive(Clone)]
pub(crate) struct CertificateService {
    pub(crate) authority: Arc<Authority>,
    pub(crate) client: Client,
    /// The namespace of the ServiceAccounts of workers and drivers.
    pub(crate) namespace: String,
}

#[tonic::async_trait]
impl Certificates for CertificateService {
    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<IssueResponse>, Status> {
        let IssueRequest { csr_pem, token } = request.into_inner();
        let peer = self.identify(token).await?;
        let certificate_pem = self.authority.issue(&csr_pem, &peer).map_err(|error| {
            warn!(%peer, %error, "failed to issue a certificate");
            Status::invalid_argument(format!("the request cannot be signed: {error}"))
        })?;
        info!(%peer, "issued a certificate");
        Ok(Response::new(IssueResponse {
            certificate_pem,
            authorities_pem: self.authority.certificate_pem().to_owned(),
        }))
    }
}

impl CertificateService {
    /// Returns the process that a token belongs to, by a token review of the API server.
    async fn identify(&self, token: String) -> Result<Peer, Status> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]),
                token: Some(token),
            },
            ..TokenReview::default()
        };
        let reviewed = Api::<TokenReview>::all(self.client.clone())
            .create(&PostParams::default(), &review)
            .await
            .map_err(|error| {
                warn!(%error, "failed to review a token");
                Status::unavailable("the API server cannot review tokens now")
            })?;
        let status = reviewed.status.unwrap_or_default();
        let for_us = status
            .audiences
            .is_some_and(|audiences| audiences.iter().any(|audience| audience == TOKEN_AUDIENCE));
        if status.authenticated != Some(true) || !for_us {
            return Err(Status::unauthenticated(
                "the token is invalid, or for another audience",
            ));
        }
        let user = status.user.unwrap_or_default();
        let name = user.username.unwrap_or_default();
        let account = name.strip_prefix(&format!("system:serviceaccount:{}:", self.namespace));
        let role = match account {
            Some("millpond-worker") => Role::Worker,
            Some("millpond-csi-driver") => Role::Driver,
            _ => {
                return Err(Status::permission_denied(format!(
                    "{name} is neither a worker nor a driver"
                )));
            }
        };
        let node = user
            .extra
            .unwrap_or_default()
            .remove(NODE_NAME)
            .and_then(|mut names| names.pop());
        let node =
            node.ok_or_else(|| Status::permission_denied("the token is not bound to a pod on a node"))?;
        // Parsed as the reader of the certificate will parse it.
        Peer::parse(&Peer { role, node }.to_string())
            .map_err(|_nameless| Status::permission_denied("the name of the node is invalid"))
    }
}
