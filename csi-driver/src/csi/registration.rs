//! How the kubelet learns of this driver: it finds the registration socket and asks what is behind it.

use std::path::PathBuf;

use millpond_core::CSI_DRIVER;
use tonic::{Request, Response, Status};
use tracing::{error, info};

use super::wire::registration::registration_server::Registration;
use super::wire::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};

/// Answers the kubelet's plugin watcher.
#[derive(Clone, Debug)]
pub struct RegistrationService {
    /// The socket of the CSI services, as the kubelet sees it.
    pub endpoint: PathBuf,
}

#[tonic::async_trait]
impl Registration for RegistrationService {
    async fn get_info(&self, _request: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        let endpoint = self.endpoint.to_str();
        let endpoint = endpoint.ok_or_else(|| Status::internal("the socket's path is not UTF-8"))?;
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: CSI_DRIVER.to_owned(),
            endpoint: endpoint.to_owned(),
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            info!("the kubelet knows this driver");
        } else {
            error!(
                reason = status.error,
                "the kubelet refuses this driver: it asks again when its pod restarts"
            );
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
