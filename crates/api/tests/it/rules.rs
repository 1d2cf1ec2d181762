//! The CEL rules of the CRDs, as the API server applies them: what is refused, and with which message.

use millpond_api::{CachePool, DataLoad, Dataset};
use serde_json::{Value, json};

fn dataset(spec: Value) -> Dataset {
    serde_json::from_value(json!({
        "apiVersion": "millpond.io/v1alpha1",
        "kind": "Dataset",
        "metadata": {"name": "imagenet", "namespace": "vision"},
        "spec": spec,
    }))
    .expect("a Dataset")
}

fn pool(spec: Value) -> CachePool {
    serde_json::from_value(json!({
        "apiVersion": "millpond.io/v1alpha1",
        "kind": "CachePool",
        "metadata": {"name": "gpu"},
        "spec": spec,
    }))
    .expect("a CachePool")
}

fn load(spec: Value) -> DataLoad {
    serde_json::from_value(json!({
        "apiVersion": "millpond.io/v1alpha1",
        "kind": "DataLoad",
        "metadata": {"name": "warm", "namespace": "vision"},
        "spec": spec,
    }))
    .expect("a DataLoad")
}

fn mounts(mounts: Value) -> Dataset {
    dataset(json!({"mounts": mounts}))
}

/// Returns the message of a refusal; empty where there is none.
fn message<E: std::fmt::Debug>(result: Result<(), E>) -> String {
    result.err().map(|error| format!("{error:?}")).unwrap_or_default()
}

fn assert_refused<E: std::fmt::Debug>(result: Result<(), E>, with: &str) {
    let found = message(result);
    assert!(found.contains(with), "{found:?} does not contain {with:?}");
}

#[test]
fn a_minimal_dataset_is_accepted() {
    let minimal = mounts(json!([{"mountPoint": "s3://imagenet/train"}]));
    assert_eq!(message(minimal.validate_cel()), "");
    let spec = &minimal.spec;
    assert_eq!((spec.replicas, spec.mounts[0].path_in_tree().as_str()), (1, "/"));
}

#[test]
fn sources_are_named_by_scheme() {
    for good in [
        "s3://b",
        "gs://b/p",
        "az://c/p",
        "abfs://c@a.dfs.core.windows.net/p",
        "https://h/p",
    ] {
        assert_eq!(
            message(mounts(json!([{"mountPoint": good}])).validate_cel()),
            "",
            "{good}"
        );
    }
    for bad in ["imagenet", "s3:/b", "hdfs://n/p", "s3://", "file:///data"] {
        assert_refused(
            mounts(json!([{"mountPoint": bad}])).validate_cel(),
            "mountPoint must begin with",
        );
    }
}

#[test]
fn several_mounts_have_paths_of_their_own() {
    let two = |first: Value, second: Value| mounts(json!([first, second])).validate_cel();
    assert_eq!(
        message(two(
            json!({"mountPoint": "s3://a", "name": "a"}),
            json!({"mountPoint": "s3://b", "path": "/b"})
        )),
        ""
    );
    assert_refused(
        two(
            json!({"mountPoint": "s3://a"}),
            json!({"mountPoint": "s3://b", "name": "b"}),
        ),
        "with several mounts each needs a name or a path",
    );
    assert_refused(
        two(
            json!({"mountPoint": "s3://a", "name": "b"}),
            json!({"mountPoint": "s3://b", "path": "/b"}),
        ),
        "two mounts cannot have the same path",
    );
}

#[test]
fn paths_do_not_climb() {
    for bad in ["train", "/a/../b", "/.."] {
        assert_refused(
            mounts(json!([{"mountPoint": "s3://a", "path": bad}])).validate_cel(),
            "path must be absolute",
        );
    }
}

#[test]
fn credentials_do_not_stand_in_options() {
    assert_refused(
        mounts(json!([{"mountPoint": "s3://a", "options": {"aws_secret_access_key": "x"}}])).validate_cel(),
        "put them into a Secret",
    );
    assert_refused(
        mounts(json!([{"mountPoint": "s3://a", "secretRef": {"name": "s"}, "serviceAccountName": "t"}]))
            .validate_cel(),
        "exclude each other",
    );
}

#[test]
fn an_immutable_field_is_named() {
    let mount = json!([{"mountPoint": "s3://a"}]);
    let in_pool = |pool: &str| dataset(json!({"mounts": mount, "pool": pool}));
    assert_eq!(message(in_pool("a").validate_cel_update(&in_pool("a"))), "");
    assert_eq!(
        message(in_pool("a").validate_cel_update(&dataset(json!({"mounts": mount})))),
        ""
    );
    assert_refused(
        in_pool("b").validate_cel_update(&in_pool("a")),
        "pool cannot be changed",
    );
    let cron = json!({"dataset": "a", "policy": "Cron", "schedule": "0 3 * * *"});
    assert_refused(
        load(json!({"dataset": "a"})).validate_cel_update(&load(cron)),
        "policy cannot be changed",
    );
}

#[test]
fn a_refresh_is_not_a_storm() {
    let every = |interval: &str| {
        dataset(json!({"mounts": [{"mountPoint": "s3://a"}], "refresh": {"interval": interval}}))
            .validate_cel()
    };
    assert_eq!(message(every("10m")), "");
    assert_refused(every("1s"), "at least 10s");
}

#[test]
fn tiers_are_complete_and_stay() {
    let disk = json!({"medium": "Disk", "path": "/mnt/nvme0/millpond", "capacity": "3Ti"});
    let memory = json!({"medium": "Memory", "capacity": "64Gi"});
    let both = pool(json!({"tiers": [memory, disk]}));
    assert_eq!(message(both.validate_cel()), "");
    assert_refused(
        pool(json!({"tiers": [memory]})).validate_cel(),
        "one tier must have the medium Disk",
    );
    assert_refused(
        pool(json!({"tiers": [{"medium": "Disk", "capacity": "3Ti"}]})).validate_cel(),
        "needs a path",
    );
    let moved = pool(json!({"tiers": [{"medium": "Disk", "path": "/elsewhere", "capacity": "3Ti"}]}));
    assert_refused(
        moved.validate_cel_update(&both),
        "path of a tier cannot be changed",
    );
    let larger = pool(
        json!({"tiers": [memory, {"medium": "Disk", "path": "/mnt/nvme0/millpond", "capacity": "4Ti"}]}),
    );
    assert_eq!(message(larger.validate_cel_update(&both)), "");
}

#[test]
fn a_schedule_goes_with_cron() {
    assert_eq!(message(load(json!({"dataset": "a"})).validate_cel()), "");
    assert_refused(
        load(json!({"dataset": "a", "policy": "Cron"})).validate_cel(),
        "schedule goes with policy Cron",
    );
    assert_refused(
        load(json!({"dataset": "a", "schedule": "0 3 * * *"})).validate_cel(),
        "schedule goes with policy Cron",
    );
}

#[test]
fn every_field_is_documented() {
    fn visit(path: &str, schema: &Value, missing: &mut Vec<String>) {
        if let Some(properties) = schema["properties"].as_object() {
            for (name, property) in properties {
                let path = format!("{path}.{name}");
                if property["description"].as_str().unwrap_or_default().is_empty() {
                    missing.push(path.clone());
                }
                visit(&path, property, missing);
                visit(&path, &property["items"], missing);
            }
        }
    }
    let mut missing = Vec::new();
    for crd in millpond_api::crds() {
        let kind = crd.spec.names.kind.clone();
        let crd = serde_json::to_value(crd).expect("a CRD is JSON");
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        for part in ["spec", "status"] {
            visit(
                &format!("{kind}.{part}"),
                &schema["properties"][part],
                &mut missing,
            );
        }
    }
    // Kubernetes' own types are documented there.
    missing.retain(|path| !path.contains(".resources.") && !path.contains(".tolerations."));
    assert_eq!(missing, Vec::<String>::new());
}
