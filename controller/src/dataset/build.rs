//! Computes everything that a Dataset needs: its plan entry, its prefetch load, its claim and its volume. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    PersistentVolumeSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use millpond_api::{AccessMode, Dataset, Eviction, Prefetch, View, names};
use millpond_wire::plan;

use super::credentials::Credentials;
use super::dereference::ResolvedRefs;
use super::validate::Validated;
use crate::plan::PlannedDataset;

/// The key of a Secret that holds a private certificate authority; all others are options of the source.
const CA: &str = "ca.crt";

/// Bytes that a claim requests: the minimum, since its volume is named.
const CLAIM_BYTES: &str = "1";

/// What [`super::apply`] has to bring about, and has not yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prepared {
    /// `None`: the plan is left as it is, since the pool is not known, or the spec has problems and there is no catalog.
    pub(super) plan: Option<PlanEntry>,
    pub(super) claim: PersistentVolumeClaim,
    /// Without the reference to its claim, whose uid is known when that is applied. `None` before the first catalog.
    pub(super) volume: Option<PersistentVolume>,
}

/// The part of the plan that belongs to a Dataset.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PlanEntry {
    pub(super) dataset: PlannedDataset,
    pub(super) prefetch: PrefetchLoad,
}

/// What happens with the load that prefetches a Dataset by itself. It has the uid of the Dataset.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum PrefetchLoad {
    Put(plan::Load),
    Remove,
    /// There is no catalog yet to prefetch by.
    Unchanged,
}

/// Returns everything that follows from a Dataset's spec, its refs and the reports.
pub(super) fn build(dataset: &Dataset, uid: &str, validated: &Validated, refs: &ResolvedRefs) -> Prepared {
    let status = dataset.status.as_ref();
    let had_catalog = status.is_some_and(|status| status.catalog_generation.is_some());
    let has_catalog = had_catalog
        || refs
            .reports
            .iter()
            .any(|(_, report)| report.catalog_generation > 0);
    // A Dataset that was readable once stays readable while the user fixes a mistake.
    let pool = validated.pool.as_ref();
    let pool = pool.filter(|_| validated.problems.is_empty() || had_catalog);
    Prepared {
        plan: pool.map(|pool| PlanEntry {
            dataset: planned(dataset, uid, pool, &refs.credentials),
            prefetch: prefetch(dataset, uid, has_catalog),
        }),
        claim: claim(dataset),
        volume: has_catalog.then(|| volume(dataset, uid, &refs.reports)),
    }
}

fn prefetch(dataset: &Dataset, uid: &str, has_catalog: bool) -> PrefetchLoad {
    match dataset.spec.prefetch {
        Prefetch::OnCreate if has_catalog => PrefetchLoad::Put(plan::Load {
            uid: uid.to_owned(),
            dataset_uid: uid.to_owned(),
            run: 1,
            paths: Vec::new(),
            bandwidth_bytes_per_second: None,
        }),
        Prefetch::OnCreate => PrefetchLoad::Unchanged,
        Prefetch::Never => PrefetchLoad::Remove,
    }
}

/// Returns the claim, which has the Dataset's name.
fn claim(dataset: &Dataset) -> PersistentVolumeClaim {
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
            // Empty and not absent, so that no default class provisions a volume for it.
            storage_class_name: Some(String::new()),
            volume_name: names::volume(dataset),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([(
                    "storage".to_owned(),
                    Quantity(CLAIM_BYTES.to_owned()),
                )])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

/// Returns the volume, without the reference to its claim.
fn volume(dataset: &Dataset, uid: &str, reports: &[(String, plan::DatasetState)]) -> PersistentVolume {
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
            // Removed by the controller when the Dataset is deleted.
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

/// Returns what workers and drivers receive of the Dataset.
fn planned(dataset: &Dataset, uid: &str, pool: &str, credentials: &[Credentials]) -> PlannedDataset {
    let spec = &dataset.spec;
    let (name, namespace) = (dataset.name_any(), dataset.namespace().unwrap_or_default());
    let eviction = match spec.eviction {
        Eviction::Never => plan::Eviction::Never,
        Eviction::Lru => plan::Eviction::Lru,
        Eviction::TinyLfu => plan::Eviction::TinyLfu,
    };
    let mounts = spec.mounts.iter().zip(credentials).enumerate();
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
        | Credentials::NotText { .. }
        | Credentials::MissingAccount(_) => {}
    }
    planned
}

fn planned_owner(owner: &millpond_api::Owner) -> plan::Owner {
    let id = |id: i64| u32::try_from(id).unwrap_or(0);
    // The schema's pattern guarantees the form.
    let mode = |text: &str, default| u32::from_str_radix(text, 8).unwrap_or(default);
    plan::Owner {
        uid: id(owner.uid),
        gid: id(owner.gid),
        file_mode: mode(&owner.file_mode, 0o444),
        dir_mode: mode(&owner.dir_mode, 0o555),
    }
}

#[cfg(test)]
mod tests {
    use super::super::dereference::Pool;
    use super::super::validate::Problem;
    use super::*;

    fn dataset(spec: &serde_json::Value, generation: Option<i64>) -> Dataset {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "millpond.io/v1alpha1", "kind": "Dataset",
            "metadata": {"name": "d", "namespace": "team", "uid": "u"},
            "spec": spec, "status": {"catalogGeneration": generation}
        }))
        .unwrap()
    }

    fn spec() -> serde_json::Value {
        serde_json::json!({"mounts": [{"mountPoint": "s3://b"}], "prefetch": "OnCreate"})
    }

    fn refs(generations: &[u64]) -> ResolvedRefs {
        let reports = generations.iter().map(|generation| {
            let state = plan::DatasetState {
                catalog_generation: *generation,
                size_bytes: 100 * generation,
                ..plan::DatasetState::default()
            };
            ("n1".to_owned(), state)
        });
        ResolvedRefs {
            pool: Pool::NoDefault,
            credentials: vec![Credentials::None],
            reports: reports.collect(),
        }
    }

    fn validated(pool: Option<&str>, reasons: &[&'static str]) -> Validated {
        let problems = reasons.iter().map(|reason| Problem {
            reason,
            message: String::new(),
        });
        Validated {
            pool: pool.map(str::to_owned),
            problems: problems.collect(),
        }
    }

    #[test]
    fn the_plan_has_what_is_valid_and_what_was_readable_once() {
        let (valid, invalid) = (
            validated(Some("gpu"), &[]),
            validated(Some("gpu"), &["InvalidGlob"]),
        );
        let no_pool = validated(None, &["PoolNotFound"]);
        for (validated, generation, is_planned) in [
            (&valid, None, true),
            (&invalid, None, false),
            (&invalid, Some(3), true),
            (&no_pool, None, false),
            (&no_pool, Some(3), false),
        ] {
            let prepared = build(&dataset(&spec(), generation), "u", validated, &refs(&[]));
            assert_eq!(
                prepared.plan.is_some(),
                is_planned,
                "{validated:?} {generation:?}"
            );
        }
        // A catalog that only a report knows does not make a mistake readable.
        assert_eq!(
            build(&dataset(&spec(), None), "u", &invalid, &refs(&[2])).plan,
            None
        );
    }

    #[test]
    fn a_volume_and_a_prefetch_begin_with_the_first_catalog() {
        let valid = validated(Some("gpu"), &[]);
        let prefetch = |prepared: &Prepared| prepared.plan.as_ref().unwrap().prefetch.clone();
        for (generation, reports, has_catalog) in [
            (None, &[][..], false),
            (None, &[0][..], false),
            (None, &[0, 2][..], true),
            (Some(1), &[][..], true),
        ] {
            let prepared = build(&dataset(&spec(), generation), "u", &valid, &refs(reports));
            assert_eq!(prepared.volume.is_some(), has_catalog);
            assert_eq!(matches!(prefetch(&prepared), PrefetchLoad::Put(_)), has_catalog);
            assert_eq!(prefetch(&prepared) == PrefetchLoad::Unchanged, !has_catalog);
        }
        let never = serde_json::json!({"mounts": [{"mountPoint": "s3://b"}]});
        let prepared = build(&dataset(&never, Some(1)), "u", &valid, &refs(&[]));
        assert_eq!(prefetch(&prepared), PrefetchLoad::Remove);
    }

    #[test]
    fn a_volume_is_as_large_as_the_largest_report_and_never_empty() {
        let valid = validated(Some("gpu"), &[]);
        for (generation, reports, size) in [(None, &[1, 3][..], "300"), (Some(1), &[][..], "1")] {
            let prepared = build(&dataset(&spec(), generation), "u", &valid, &refs(reports));
            let spec = prepared.volume.unwrap().spec.unwrap();
            assert_eq!(spec.capacity.unwrap()["storage"].0, size);
            assert_eq!(spec.claim_ref, None);
        }
    }

    #[test]
    fn a_claim_names_its_volume_and_no_class() {
        let prepared = build(&dataset(&spec(), None), "u", &validated(None, &[]), &refs(&[]));
        let claim = prepared.claim;
        assert_eq!(
            (claim.name_any().as_str(), claim.namespace().as_deref()),
            ("d", Some("team"))
        );
        let spec = claim.spec.unwrap();
        assert_eq!(spec.volume_name.as_deref(), Some("millpond-u"));
        assert_eq!(spec.storage_class_name.as_deref(), Some(""));
    }

    #[test]
    fn credentials_go_to_workers_and_never_to_drivers() {
        let mut refs = refs(&[]);
        let secret = [("ca.crt", "PEM"), ("aws_access_key_id", "AKIA")];
        refs.credentials = vec![Credentials::Secret(
            secret
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        )];
        let prepared = build(&dataset(&spec(), None), "u", &validated(Some("gpu"), &[]), &refs);
        let planned = prepared.plan.unwrap().dataset;
        let mount = &planned.for_worker.mounts[0];
        assert_eq!(mount.ca_pem, "PEM");
        assert_eq!(mount.options["aws_access_key_id"], "AKIA");
        assert!(!format!("{:?}", planned.for_driver).contains("AKIA"));
    }
}
