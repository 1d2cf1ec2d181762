//! Plugin registration: the kubelet finds the registration socket and queries the driver behind it.

use std::path::PathBuf;

use millpond_core::CSI_DRIVER;
use tonic::{Request, Response, Status};
use tracing::{error, info};

use super::wire::registration::registration_server::Registration;
use super::wire::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};

/// The registration service, called by the kubelet's plugin watcher.
#[derive(Clone, Debug)]
pub struct RegistrationService {
    /// Path of the CSI services' socket in the kubelet's file system.
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
            info!("registered with the kubelet");
        } else {
            error!(
                reason = status.error,
                "the kubelet refused this driver; it registers again when this pod restarts"
            );
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
