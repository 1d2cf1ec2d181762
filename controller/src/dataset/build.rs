//! The objects and the plan of a Dataset, from its spec and what that names. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    PersistentVolumeSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use millpond_api::{AccessMode, Dataset, Eviction, View, names};
use millpond_wire::plan;

use super::credentials::Credentials;
use super::dereference::ResolvedRefs;
use crate::plan::PlannedDataset;

/// Keys of a Secret that are no options of the source.
const CA: &str = "ca.crt";

/// A claim asks for the least there is: it takes nothing.
const CLAIMED: &str = "1";

/// The claim of the Dataset's name.
pub(super) fn claim(dataset: &Dataset) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(names::claim(dataset)),
            namespace: dataset.namespace(),
            labels: Some(labels(dataset)),
            owner_references: dataset.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(access_modes(dataset)),
            // Said, so that no default class makes a volume for it.
            storage_class_name: Some(String::new()),
            volume_name: names::volume(dataset),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([(
                    "storage".to_owned(),
                    Quantity(CLAIMED.to_owned()),
                )])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

/// The volume behind it, to which the claim has to be added.
pub(super) fn volume(
    dataset: &Dataset,
    uid: &str,
    reports: &[(String, plan::DatasetState)],
) -> PersistentVolume {
    let size = reports
        .iter()
        .map(|(_, report)| report.size_bytes)
        .max()
        .unwrap_or(0)
        .max(1);
    let (name, namespace) = (dataset.name_any(), dataset.namespace().unwrap_or_default());
    PersistentVolume {
        metadata: ObjectMeta {
            name: names::volume(dataset),
            labels: Some(labels(dataset)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            capacity: Some(BTreeMap::from([(
                "storage".to_owned(),
                Quantity(size.to_string()),
            )])),
            access_modes: Some(access_modes(dataset)),
            storage_class_name: Some(String::new()),
            // The Dataset's own deletion removes it.
            persistent_volume_reclaim_policy: Some("Retain".to_owned()),
            csi: Some(CSIPersistentVolumeSource {
                driver: names::CSI_DRIVER.to_owned(),
                volume_handle: names::volume(dataset).unwrap_or_default(),
                read_only: Some(true),
                volume_attributes: Some(BTreeMap::from([
                    ("dataset".to_owned(), name),
                    ("namespace".to_owned(), namespace),
                    ("uid".to_owned(), uid.to_owned()),
                ])),
                ..CSIPersistentVolumeSource::default()
            }),
            ..PersistentVolumeSpec::default()
        }),
        ..PersistentVolume::default()
    }
}

fn labels(dataset: &Dataset) -> BTreeMap<String, String> {
    let (managed_by, manager) = names::LABEL_MANAGED_BY;
    BTreeMap::from([
        (managed_by.to_owned(), manager.to_owned()),
        (names::LABEL_DATASET.to_owned(), dataset.name_any()),
        (
            names::LABEL_DATASET_NAMESPACE.to_owned(),
            dataset.namespace().unwrap_or_default(),
        ),
    ])
}

fn access_modes(dataset: &Dataset) -> Vec<String> {
    let modes = dataset.spec.access_modes.iter();
    modes
        .map(|mode| match mode {
            AccessMode::ReadOnlyMany => "ReadOnlyMany".to_owned(),
            AccessMode::ReadWriteMany => "ReadWriteMany".to_owned(),
        })
        .collect()
}

/// What workers and drivers are to know of it.
pub(super) fn planned(dataset: &Dataset, uid: &str, pool: &str, named: &ResolvedRefs) -> PlannedDataset {
    let spec = &dataset.spec;
    let (name, namespace) = (dataset.name_any(), dataset.namespace().unwrap_or_default());
    let eviction = match spec.eviction {
        Eviction::Never => plan::Eviction::Never,
        Eviction::Lru => plan::Eviction::Lru,
        Eviction::TinyLfu => plan::Eviction::TinyLfu,
    };
    let mounts = spec.mounts.iter().zip(&named.credentials).enumerate();
    PlannedDataset {
        pool: pool.to_owned(),
        for_worker: plan::Dataset {
            uid: uid.to_owned(),
            namespace: namespace.clone(),
            name: name.clone(),
            mounts: mounts
                .map(|(index, (mount, credentials))| planned_mount(index, mount, credentials))
                .collect(),
            quota_bytes: spec.quota.map(|quota| quota.0),
            eviction: eviction.into(),
            refresh_interval_seconds: spec.refresh.map(|refresh| refresh.interval.0.as_secs()),
            refresh_request: dataset
                .annotations()
                .get(names::ANNOTATION_REFRESH)
                .cloned()
                .unwrap_or_default(),
            owner: spec.owner.as_ref().map(planned_owner),
        },
        for_driver: plan::DriverDataset {
            uid: uid.to_owned(),
            namespace,
            name,
            pool: pool.to_owned(),
            eviction: eviction.into(),
            live: spec.view == View::Live,
            shared_with: spec
                .shared_with
                .as_ref()
                .map(|shared| shared.namespaces.clone())
                .unwrap_or_default(),
        },
    }
}

fn planned_mount(index: usize, mount: &millpond_api::Mount, credentials: &Credentials) -> plan::Mount {
    let mut planned = plan::Mount {
        index: u32::try_from(index).unwrap_or(u32::MAX),
        name: mount.name.clone().unwrap_or_default(),
        url: mount.mount_point.clone(),
        path: mount.path_in_tree(),
        options: mount.options.clone(),
        include: mount.include.clone(),
        exclude: mount.exclude.clone(),
        ..plan::Mount::default()
    };
    match credentials {
        Credentials::Secret(values) => {
            for (key, value) in values {
                if key == CA {
                    planned.ca_pem.clone_from(value);
                } else {
                    planned.options.insert(key.clone(), value.clone());
                }
            }
        }
        Credentials::Token(token) => planned.web_identity_token.clone_from(token),
        Credentials::None
        | Credentials::MissingSecret(_)
        | Credentials::NoText { .. }
        | Credentials::MissingAccount(_) => {}
    }
    planned
}

fn planned_owner(owner: &millpond_api::Owner) -> plan::Owner {
    let id = |id: i64| u32::try_from(id).unwrap_or(0);
    // The form is the schema's rule.
    let mode = |text: &str, default| u32::from_str_radix(text, 8).unwrap_or(default);
    plan::Owner {
        uid: id(owner.uid),
        gid: id(owner.gid),
        file_mode: mode(&owner.file_mode, 0o444),
        dir_mode: mode(&owner.dir_mode, 0o555),
    }
}
