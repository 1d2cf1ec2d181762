//! Publish requests of the kubelet, parsed and checked once.

use std::collections::BTreeMap;

use millpond_wire::plan::DriverDataset;

use super::error::VolumeError;
use super::record::{AccessMode, DatasetSelector, PodRef, VolumeRequest};

/// Longest volume id: far more than any container orchestrator uses.
const MAX_ID_BYTES: usize = 1024;

/// Publish request of the kubelet, parsed but not checked.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Id of the volume.
    pub volume_id: String,
    /// Target path.
    pub target_path: String,
    /// Attributes of the volume.
    pub attributes: BTreeMap<String, String>,
    /// Whether it is an inline volume of a pod, which names its Dataset itself.
    pub ephemeral: bool,
    /// Requested SELinux context.
    pub context: Option<String>,
    /// Access mode; no mode allows writes.
    pub access_mode: AccessMode,
    /// Whether read-only was requested.
    pub read_only: bool,
    /// Pod of the volume.
    pub pod: PodRef,
}

/// Checks that the pod may use the Dataset.
pub(super) fn allow(dataset: &DriverDataset, request: &VolumeRequest) -> Result<(), VolumeError> {
    let pods = &request.pod.namespace;
    if *pods == dataset.namespace || dataset.shared_with.contains(pods) {
        return Ok(());
    }
    Err(VolumeError::Denied {
        reason: format!(
            "pods of the namespace {pods:?} may not use the Dataset {}/{}: add the namespace to its spec.sharedWith.namespaces",
            dataset.namespace, dataset.name
        ),
    })
}

pub(super) fn checked_id(volume_id: &str) -> Result<String, VolumeError> {
    if volume_id.is_empty() {
        return Err(VolumeError::invalid("volume_id", "is missing"));
    }
    if volume_id.len() > MAX_ID_BYTES || volume_id.contains(char::is_control) {
        return Err(VolumeError::invalid("volume_id", "is not a valid id"));
    }
    Ok(volume_id.to_owned())
}

/// Checks a request.
pub(super) fn request(publish: Publish) -> Result<VolumeRequest, VolumeError> {
    let Publish {
        volume_id,
        target_path: _,
        attributes,
        ephemeral,
        context,
        access_mode,
        read_only,
        pod,
    } = publish;
    let volume_id = checked_id(&volume_id)?;
    let known: &[&str] = if ephemeral {
        &["dataset"]
    } else {
        &["dataset", "namespace", "uid"]
    };
    if let Some(other) = attributes
        .keys()
        .find(|key| !key.contains('/') && !known.contains(&key.as_str()))
    {
        return Err(VolumeError::invalid(
            "volume_context",
            format!(
                "the attribute {other:?} is unknown: supported are {}",
                known.join(", ")
            ),
        ));
    }
    let get = |key: &'static str| {
        let value = attributes.get(key).filter(|value| !value.is_empty());
        value.cloned().ok_or_else(|| {
            VolumeError::invalid("volume_context", format!("the attribute {key:?} is missing"))
        })
    };
    if pod.namespace.is_empty() {
        return Err(VolumeError::invalid(
            "volume_context",
            "the pod's namespace is missing: the CSIDriver object must have podInfoOnMount: true",
        ));
    }
    let dataset = get("dataset")?;
    let wanted = if ephemeral {
        let (namespace, name) = match dataset.split_once('/') {
            Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
            None => (pod.namespace.clone(), dataset),
        };
        DatasetSelector::Name { namespace, name }
    } else {
        DatasetSelector::Uid {
            uid: get("uid")?,
            namespace: get("namespace")?,
            name: dataset,
        }
    };
    Ok(VolumeRequest {
        volume_id,
        wanted,
        access_mode,
        read_only,
        context,
        pod,
    })
}
