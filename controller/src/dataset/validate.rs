//! What is wrong with a Dataset that no rule of its own could say: names that lead nowhere, globs that cannot be read, more
//! quota than there is. Each problem names the field and the fix.

use globset::GlobBuilder;
use millpond_api::Dataset;
use millpond_api::condition::reason;

use super::credentials::Credentials;
use super::dereference::{Pool, ResolvedRefs};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// One of [`reason`].
    pub(super) reason: &'static str,
    /// For people.
    pub(super) message: String,
}

/// What is wrong, and what is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Validated {
    /// `None`: there is no pool.
    pub(super) pool: Option<String>,
    pub(super) capacity_bytes: u64,
    pub(super) problems: Vec<Problem>,
}

pub(super) fn validate(dataset: &Dataset, named: &ResolvedRefs) -> Validated {
    let mut problems = Vec::new();
    let mut wrong = |reason, message| problems.push(Problem { reason, message });
    let (pool, capacity_bytes) = match &named.pool {
        Pool::Found { name, capacity_bytes } => (Some(name.clone()), *capacity_bytes),
        Pool::Missing(name) => {
            wrong(
                reason::POOL_NOT_FOUND,
                format!(
                    "spec.pool: there is no CachePool {name:?}: make it, or name one of `kubectl get cachepools`"
                ),
            );
            (None, 0)
        }
        Pool::NoDefault => {
            wrong(
                reason::POOL_NOT_FOUND,
                "spec.pool is not set and no CachePool is the default: name one, or annotate one with \
                 millpond.io/is-default-pool: \"true\""
                    .to_owned(),
            );
            (None, 0)
        }
        Pool::SeveralDefaults(names) => {
            wrong(
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
    for (index, (mount, credentials)) in dataset.spec.mounts.iter().zip(&named.credentials).enumerate() {
        let field = format!("spec.mounts[{index}]");
        match credentials {
            Credentials::MissingSecret(name) => wrong(
                reason::SECRET_NOT_FOUND,
                format!(
                    "{field}.secretRef.name: there is no Secret {name:?} in the Dataset's namespace: make it"
                ),
            ),
            Credentials::NoText { secret, key } => wrong(
                reason::INVALID_SOURCE,
                format!("{field}.secretRef.name: the key {key:?} of Secret {secret:?} is not text"),
            ),
            Credentials::MissingAccount(name) => wrong(
                reason::SERVICE_ACCOUNT_NOT_FOUND,
                format!(
                    "{field}.serviceAccountName: there is no ServiceAccount {name:?} in the Dataset's namespace: make it"
                ),
            ),
            Credentials::None | Credentials::Secret(_) | Credentials::Token(_) => {}
        }
        let globs = mount.include.iter().map(|glob| ("include", glob));
        for (list, glob) in globs.chain(mount.exclude.iter().map(|glob| ("exclude", glob))) {
            if let Err(error) = GlobBuilder::new(glob).literal_separator(true).build() {
                wrong(
                    reason::INVALID_GLOB,
                    format!("{field}.{list}: {glob:?} is not a glob: {}", error.kind()),
                );
            }
        }
        if mount.mount_point.starts_with("file://") {
            wrong(
                reason::INVALID_SOURCE,
                format!(
                    "{field}.mountPoint: a directory of the nodes cannot be a source in a cluster: name a bucket or a server"
                ),
            );
        }
    }
    if let Some(quota) = dataset
        .spec
        .quota
        .filter(|quota| pool.is_some() && quota.0 > capacity_bytes)
    {
        wrong(
            reason::QUOTA_OVER_CAPACITY,
            format!(
                "spec.quota: {quota} is more than a worker of the pool has ({}): lower it, or raise the pool's capacity",
                millpond_api::ByteQuantity(capacity_bytes)
            ),
        );
    }
    Validated {
        pool,
        capacity_bytes,
        problems,
    }
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

    fn named(credentials: Credentials) -> ResolvedRefs {
        ResolvedRefs {
            pool: Pool::Found {
                name: "gpu".to_owned(),
                capacity_bytes: 1 << 30,
            },
            credentials: vec![credentials],
        }
    }

    fn reasons(validated: &Validated) -> Vec<&'static str> {
        validated.problems.iter().map(|problem| problem.reason).collect()
    }

    #[test]
    fn a_right_dataset_has_no_problem() {
        let dataset =
            dataset(&serde_json::json!({"mounts": [{"mountPoint": "s3://b", "include": ["**/*.jpg"]}]}));
        let validated = validate(&dataset, &named(Credentials::None));
        assert_eq!(validated.pool.as_deref(), Some("gpu"));
        assert!(validated.problems.is_empty());
    }

    #[test]
    fn every_problem_names_its_field() {
        let dataset = dataset(&serde_json::json!({
            "mounts": [{"mountPoint": "s3://b", "exclude": ["a[b"], "secretRef": {"name": "keys"}}], "quota": "2Gi"
        }));
        let validated = validate(&dataset, &named(Credentials::MissingSecret("keys".to_owned())));
        assert_eq!(
            reasons(&validated),
            ["SecretNotFound", "InvalidGlob", "QuotaOverCapacity"]
        );
        assert!(
            validated.problems[0]
                .message
                .starts_with("spec.mounts[0].secretRef.name: ")
        );
        assert!(validated.problems[1].message.contains("\"a[b\""));
        assert!(
            validated.problems[2]
                .message
                .contains("2Gi is more than a worker of the pool has (1Gi)")
        );
    }

    #[test]
    fn a_pool_is_named_or_the_only_default() {
        let dataset = dataset(&serde_json::json!({"mounts": [{"mountPoint": "s3://b"}]}));
        for (pool, reason) in [
            (Pool::Missing("x".to_owned()), "PoolNotFound"),
            (Pool::NoDefault, "PoolNotFound"),
            (
                Pool::SeveralDefaults(vec!["a".to_owned(), "b".to_owned()]),
                "SeveralDefaultPools",
            ),
        ] {
            let named = ResolvedRefs {
                pool,
                credentials: vec![Credentials::None],
            };
            assert_eq!(reasons(&validate(&dataset, &named)), [reason]);
        }
    }
}
