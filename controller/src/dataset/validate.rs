//! Finds what the CEL rules of a Dataset cannot: references to missing objects, invalid globs, a quota over the pool's
//! capacity. Each problem names the field and the fix. Pure.

use globset::GlobBuilder;
use millpond_api::Dataset;
use millpond_api::condition::reason;

use super::credentials::Credentials;
use super::dereference::{Pool, ResolvedRefs};

/// A mistake in a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// One of [`reason`].
    pub(super) reason: &'static str,
    /// Names the field, the value and the fix.
    pub(super) message: String,
}

/// The pool that a Dataset belongs to, and the mistakes in its spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Validated {
    /// `None`: the pool does not exist or is not known.
    pub(super) pool: Option<String>,
    /// Empty: the spec is valid.
    pub(super) problems: Vec<Problem>,
}

/// Returns the pool of a Dataset and every mistake in its spec.
pub(super) fn validate(dataset: &Dataset, refs: &ResolvedRefs) -> Validated {
    let mut problems = Vec::new();
    let mut add = |reason, message| problems.push(Problem { reason, message });
    let (pool, capacity_bytes) = match &refs.pool {
        Pool::Found { name, capacity_bytes } => (Some(name.clone()), *capacity_bytes),
        Pool::Missing(name) => {
            add(
                reason::POOL_NOT_FOUND,
                format!(
                    "spec.pool: CachePool {name:?} does not exist: create it, or name one of `kubectl get cachepools`"
                ),
            );
            (None, 0)
        }
        Pool::NoDefault => {
            add(
                reason::POOL_NOT_FOUND,
                "spec.pool is not set and no CachePool is the default: set it, or annotate a pool with \
                 millpond.io/is-default-pool: \"true\""
                    .to_owned(),
            );
            (None, 0)
        }
        Pool::SeveralDefaults(names) => {
            add(
                reason::SEVERAL_DEFAULT_POOLS,
                format!(
                    "spec.pool is not set and several CachePools are the default ({}): leave the annotation \
                     millpond.io/is-default-pool on one of them, or set spec.pool",
                    names.join(", ")
                ),
            );
            (None, 0)
        }
    };
    for (index, (mount, credentials)) in dataset.spec.mounts.iter().zip(&refs.credentials).enumerate() {
        let field = format!("spec.mounts[{index}]");
        match credentials {
            Credentials::MissingSecret(name) => add(
                reason::SECRET_NOT_FOUND,
                format!(
                    "{field}.secretRef.name: Secret {name:?} does not exist in the Dataset's namespace: create it"
                ),
            ),
            Credentials::NotText { secret, key } => add(
                reason::INVALID_SOURCE,
                format!("{field}.secretRef.name: the key {key:?} of Secret {secret:?} is not text"),
            ),
            Credentials::MissingAccount(name) => add(
                reason::SERVICE_ACCOUNT_NOT_FOUND,
                format!(
                    "{field}.serviceAccountName: ServiceAccount {name:?} does not exist in the Dataset's namespace: create it"
                ),
            ),
            Credentials::None | Credentials::Secret(_) | Credentials::Token(_) => {}
        }
        let globs = mount.include.iter().map(|glob| ("include", glob));
        for (list, glob) in globs.chain(mount.exclude.iter().map(|glob| ("exclude", glob))) {
            if let Err(error) = GlobBuilder::new(glob).literal_separator(true).build() {
                add(
                    reason::INVALID_GLOB,
                    format!("{field}.{list}: {glob:?} is not a valid glob: {}", error.kind()),
                );
            }
        }
        // The CRD refuses it since; a Dataset of an older CRD may still have it, and workers would read the directory.
        if mount.mount_point.starts_with("file://") {
            add(
                reason::INVALID_SOURCE,
                format!(
                    "{field}.mountPoint: a directory of the nodes cannot be a source in a cluster: use a bucket or a server"
                ),
            );
        }
    }
    if let Some(quota) = dataset
        .spec
        .quota
        .filter(|quota| pool.is_some() && quota.0 > capacity_bytes)
    {
        add(
            reason::QUOTA_OVER_CAPACITY,
            format!(
                "spec.quota: {quota} is more than a worker of the pool has ({}): lower it, or raise the pool's capacity",
                millpond_api::ByteQuantity(capacity_bytes)
            ),
        );
    }
    Validated { pool, problems }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset(spec: &serde_json::Value) -> Dataset {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "millpond.io/v1alpha1", "kind": "Dataset", "metadata": {"name": "d"}, "spec": spec
        }))
        .unwrap()
    }

    fn refs(pool: Pool, credentials: Credentials) -> ResolvedRefs {
        ResolvedRefs {
            pool,
            credentials: vec![credentials],
            reports: Vec::new(),
        }
    }

    fn found() -> Pool {
        Pool::Found {
            name: "gpu".to_owned(),
            capacity_bytes: 1 << 30,
        }
    }

    #[test]
    fn a_valid_dataset_has_no_problem() {
        let dataset = dataset(&serde_json::json!({
            "mounts": [{"mountPoint": "s3://b", "include": ["**/*.jpg"]}], "quota": "1Gi"
        }));
        let validated = validate(&dataset, &refs(found(), Credentials::None));
        assert_eq!(validated.pool.as_deref(), Some("gpu"));
        assert_eq!(validated.problems, []);
    }

    #[test]
    fn every_problem_names_its_field() {
        let several = Pool::SeveralDefaults(vec!["a".to_owned(), "b".to_owned()]);
        let not_text = Credentials::NotText {
            secret: "keys".to_owned(),
            key: "k".to_owned(),
        };
        let mount = serde_json::json!({"mountPoint": "s3://b"});
        let with = |field: &str, value: serde_json::Value| {
            let mut mount = mount.clone();
            mount[field] = value;
            serde_json::json!({"mounts": [mount]})
        };
        let plain = serde_json::json!({"mounts": [mount]});
        let quota = serde_json::json!({"mounts": [mount], "quota": "2Gi"});
        let include = with("include", serde_json::json!(["a[b"]));
        let exclude = with("exclude", serde_json::json!(["**", "a{b"]));
        let directory = with("mountPoint", serde_json::json!("file:///etc"));
        let (none, missing) = (Credentials::None, Pool::Missing("x".to_owned()));
        let secret = Credentials::MissingSecret("keys".to_owned());
        let account = Credentials::MissingAccount("trainer".to_owned());
        for (spec, pool, credentials, reason, start) in [
            (
                &plain,
                missing,
                &none,
                "PoolNotFound",
                "spec.pool: CachePool \"x\"",
            ),
            (
                &plain,
                Pool::NoDefault,
                &none,
                "PoolNotFound",
                "spec.pool is not set",
            ),
            (
                &plain,
                several,
                &none,
                "SeveralDefaultPools",
                "spec.pool is not set and several CachePools are the default (a, b)",
            ),
            (
                &plain,
                found(),
                &secret,
                "SecretNotFound",
                "spec.mounts[0].secretRef.name: Secret \"keys\"",
            ),
            (
                &plain,
                found(),
                &not_text,
                "InvalidSource",
                "spec.mounts[0].secretRef.name: the key \"k\"",
            ),
            (
                &plain,
                found(),
                &account,
                "ServiceAccountNotFound",
                "spec.mounts[0].serviceAccountName: ",
            ),
            (
                &include,
                found(),
                &none,
                "InvalidGlob",
                "spec.mounts[0].include: \"a[b\"",
            ),
            (
                &exclude,
                found(),
                &none,
                "InvalidGlob",
                "spec.mounts[0].exclude: \"a{b\"",
            ),
            (
                &directory,
                found(),
                &none,
                "InvalidSource",
                "spec.mounts[0].mountPoint: ",
            ),
            (
                &quota,
                found(),
                &none,
                "QuotaOverCapacity",
                "spec.quota: 2Gi is more than a worker of the pool has (1Gi)",
            ),
        ] {
            let problems = validate(&dataset(spec), &refs(pool, credentials.clone())).problems;
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(problems[0].reason, reason);
            assert!(problems[0].message.starts_with(start), "{}", problems[0].message);
        }
    }

    #[test]
    fn all_problems_are_found_at_once_in_the_order_of_the_spec() {
        let dataset = dataset(&serde_json::json!({
            "mounts": [{"mountPoint": "s3://b", "exclude": ["a[b"], "secretRef": {"name": "keys"}}], "quota": "2Gi"
        }));
        let secret = Credentials::MissingSecret("keys".to_owned());
        let validated = validate(&dataset, &refs(found(), secret));
        let reasons: Vec<_> = validated.problems.iter().map(|problem| problem.reason).collect();
        assert_eq!(reasons, ["SecretNotFound", "InvalidGlob", "QuotaOverCapacity"]);
    }
}
