//! The Identity service.

use std::sync::Arc;

use millpond_core::CSI_DRIVER;
use tonic::{Request, Response, Status};

use super::wire::csi::identity_server::Identity;
use super::wire::csi::plugin_capability::service::Type as ServiceType;
use super::wire::csi::plugin_capability::{Service, Type};
use super::wire::csi::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse,
    PluginCapability, ProbeRequest, ProbeResponse,
};
use crate::node::Volumes;

/// The Identity service of this driver.
#[derive(Clone)]
pub struct IdentityService {
    /// Volumes, whose takeover makes the driver ready.
    pub volumes: Arc<Volumes>,
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn get_plugin_info(
        &self,
        _request: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: CSI_DRIVER.to_owned(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..GetPluginInfoResponse::default()
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _request: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let topology = PluginCapability {
            r#type: Some(Type::Service(Service {
                r#type: ServiceType::VolumeAccessibilityConstraints.into(),
            })),
        };
        Ok(Response::new(GetPluginCapabilitiesResponse {
            capabilities: vec![topology],
        }))
    }

    async fn probe(&self, _request: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Ok(Response::new(ProbeResponse {
            ready: Some(self.volumes.is_ready()),
        }))
    }
}
