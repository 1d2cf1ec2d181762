//! The Node service.

use std::collections::BTreeMap;
use std::sync::Arc;

use tonic::{Request, Response, Status};
use tracing::warn;

use super::TOPOLOGY_NODE;
use super::wire::csi::node_server::Node;
use super::wire::csi::node_service_capability::rpc::Type as RpcType;
use super::wire::csi::node_service_capability::{Rpc, Type};
use super::wire::csi::volume_capability::access_mode::Mode;
use super::wire::csi::volume_capability::{AccessType, MountVolume};
use super::wire::csi::volume_usage::Unit;
use super::wire::csi::{
    NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest,
    NodePublishVolumeResponse, NodeServiceCapability, NodeUnpublishVolumeRequest,
    NodeUnpublishVolumeResponse, Topology, VolumeCapability, VolumeCondition, VolumeUsage,
};
use crate::node::{AccessMode, PodRef, Publish, VolumeError, Volumes};
use millpond_fs::view::ViewError;

/// Attributes that the kubelet adds to a volume's.
const POD_NAMESPACE: &str = "csi.storage.k8s.io/pod.namespace";
const POD_NAME: &str = "csi.storage.k8s.io/pod.name";
const POD_UID: &str = "csi.storage.k8s.io/pod.uid";
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";

/// The Node service of this driver.
#[derive(Clone)]
pub struct NodeService {
    /// Name of the node.
    pub node: String,
    /// Volumes of the node.
    pub volumes: Arc<Volumes>,
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let publish = publish(request.into_inner()).map_err(|error| status("NodePublishVolume", &error))?;
        let published = self.volumes.publish(publish).await;
        published.map_err(|error| status("NodePublishVolume", &error))?;
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let NodeUnpublishVolumeRequest {
            volume_id,
            target_path,
        } = request.into_inner();
        let unpublished = self.volumes.unpublish(&volume_id, &target_path).await;
        unpublished.map_err(|error| status("NodeUnpublishVolume", &error))?;
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let NodeGetVolumeStatsRequest {
            volume_id,
            volume_path,
            staging_target_path: _,
        } = request.into_inner();
        let stats = self.volumes.stats(&volume_id, &volume_path).await;
        let stats = stats.map_err(|error| status("NodeGetVolumeStats", &error))?;
        let usage = |number: u64, unit: Unit| {
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            // Volumes are read-only, so all space is used.
            VolumeUsage {
                available: 0,
                total: number,
                used: number,
                unit: unit.into(),
            }
        };
        let abnormal = stats.abnormal.is_some();
        Ok(Response::new(NodeGetVolumeStatsResponse {
            usage: vec![usage(stats.bytes, Unit::Bytes), usage(stats.files, Unit::Inodes)],
            volume_condition: Some(VolumeCondition {
                abnormal,
                message: stats
                    .abnormal
                    .unwrap_or_else(|| "the volume is served".to_owned()),
            }),
        }))
    }

    async fn node_get_capabilities(
        &self,
        _request: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let types = [RpcType::GetVolumeStats, RpcType::VolumeCondition];
        let capabilities = types.map(|can| NodeServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: can.into() })),
        });
        Ok(Response::new(NodeGetCapabilitiesResponse {
            capabilities: capabilities.into(),
        }))
    }

    async fn node_get_info(
        &self,
        _request: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse {
            node_id: self.node.clone(),
            // 0: no limit.
            max_volumes_per_node: 0,
            accessible_topology: Some(Topology {
                segments: BTreeMap::from([(TOPOLOGY_NODE.to_owned(), self.node.clone())]),
            }),
        }))
    }
}

fn publish(request: NodePublishVolumeRequest) -> Result<Publish, VolumeError> {
    let NodePublishVolumeRequest {
        volume_id,
        publish_context: _,
        staging_target_path: _,
        target_path,
        volume_capability,
        readonly,
        secrets: _,
        mut volume_context,
    } = request;
    let missing = |field| VolumeError::invalid(field, "is missing");
    if volume_id.is_empty() {
        return Err(missing("volume_id"));
    }
    if target_path.is_empty() {
        return Err(missing("target_path"));
    }
    let VolumeCapability {
        access_type,
        access_mode,
    } = volume_capability.ok_or_else(|| missing("volume_capability"))?;
    let mount = match access_type {
        Some(AccessType::Mount(mount)) => mount,
        Some(AccessType::Block(_)) => {
            return Err(VolumeError::invalid(
                "volume_capability",
                "a Dataset cannot be a block volume: use volumeMode: Filesystem",
            ));
        }
        None => return Err(missing("volume_capability.access_type")),
    };
    let access_mode = access_mode
        .ok_or_else(|| missing("volume_capability.access_mode"))?
        .mode();
    if access_mode == Mode::Unknown {
        return Err(VolumeError::invalid(
            "volume_capability.access_mode",
            "is unknown",
        ));
    }
    let ephemeral = volume_context
        .remove(EPHEMERAL)
        .is_some_and(|value| value == "true");
    let mut take = |key| volume_context.remove(key).unwrap_or_default();
    let pod = PodRef {
        namespace: take(POD_NAMESPACE),
        name: take(POD_NAME),
        uid: take(POD_UID),
    };
    Ok(Publish {
        volume_id,
        target_path,
        context: context(mount)?,
        ephemeral,
        access_mode: AccessMode(access_mode.into()),
        read_only: readonly,
        pod,
        attributes: volume_context,
    })
}

/// Returns the SELinux context, the only mount option that is supported.
fn context(mount: MountVolume) -> Result<Option<String>, VolumeError> {
    const FLAGS: &str = "volume_capability.mount.mount_flags";
    if !mount.fs_type.is_empty() {
        return Err(VolumeError::invalid(
            "volume_capability.mount.fs_type",
            format!("{:?} is not supported: leave fsType out", mount.fs_type),
        ));
    }
    if !mount.volume_mount_group.is_empty() {
        return Err(VolumeError::invalid(
            "volume_capability.mount.volume_mount_group",
            "files are owned by the Dataset's spec.owner: set the gid there",
        ));
    }
    let mut context = None;
    for flag in mount.mount_flags {
        match flag.strip_prefix("context=") {
            Some(label) if context.is_none() => {
                let label = label.trim_matches('"');
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:,-".contains(&byte);
                if label.is_empty() || label.len() > 255 || !label.bytes().all(allowed) {
                    return Err(VolumeError::invalid(FLAGS, "not a valid SELinux context"));
                }
                context = Some(label.to_owned());
            }
            None if flag == "ro" => {}
            _ => {
                return Err(VolumeError::invalid(
                    FLAGS,
                    format!("{flag:?} is not supported: only \"context=\" and \"ro\" are"),
                ));
            }
        }
    }
    Ok(context)
}

/// Maps an error to a gRPC status, and logs it, since otherwise only the kubelet would see it.
fn status(call: &'static str, error: &VolumeError) -> Status {
    let description = error.describe();
    warn!(call, error = description, "request of the kubelet failed");
    match error {
        VolumeError::Invalid { .. } => Status::invalid_argument(description),
        VolumeError::Denied { .. } => Status::permission_denied(description),
        VolumeError::NotFound { .. } => Status::not_found(description),
        VolumeError::Exists { .. }
        | VolumeError::View(ViewError::Occupied { .. } | ViewError::AlreadyMounted { .. }) => {
            Status::already_exists(description)
        }
        VolumeError::NotReady { .. } => Status::unavailable(description),
        VolumeError::Impossible { .. } | VolumeError::View(ViewError::Unsupported { .. }) => {
            Status::failed_precondition(description)
        }
        VolumeError::View(
            ViewError::Mount(_)
            | ViewError::Missing { .. }
            | ViewError::Busy { .. }
            | ViewError::Catalog { .. }
            | ViewError::System { .. },
        )
        | VolumeError::Fuse(_)
        | VolumeError::System { .. } => Status::internal(description),
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    fn mount(flags: &[&str]) -> MountVolume {
        MountVolume {
            mount_flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            ..MountVolume::default()
        }
    }

    #[test]
    fn only_a_context_is_read_from_mount_flags() {
        let label = "system_u:object_r:container_file_t:s0:c10,c28";
        let quoted = format!("context=\"{label}\"");
        assert_eq!(context(mount(&[&quoted])).unwrap().as_deref(), Some(label));
        assert_eq!(context(mount(&["ro"])).unwrap(), None);
        for wrong in ["noatime", "context=", "context=a b", "rw", "suid"] {
            assert!(context(mount(&[wrong])).is_err(), "{wrong}");
        }
    }
}
