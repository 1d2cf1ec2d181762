//! Finds what the CEL rules of a pool cannot: tiers outside of the allowed directories, several default pools. Pure.

use std::path::{Path, PathBuf};

use kube::ResourceExt;
use millpond_api::condition::reason;
use millpond_api::{CachePool, Medium};

/// A mistake in a spec: one of [`reason`], and a message that names the field and the fix.
pub(super) type Problem = (&'static str, String);

/// Returns every mistake in a pool's spec. `roots` are the allowed host directories, `defaults` the default pools.
pub(super) fn validate(pool: &CachePool, roots: &[PathBuf], defaults: &[String]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, tier) in pool.spec.tiers.iter().enumerate() {
        let Some(path) = tier.path.as_ref().filter(|_| tier.medium == Medium::Disk) else {
            continue;
        };
        // Component by component: /mnt2 is not below /mnt.
        if !roots.iter().any(|root| Path::new(path).starts_with(root)) {
            let roots: Vec<_> = roots.iter().map(|root| root.display().to_string()).collect();
            problems.push((
                reason::TIER_REFUSED,
                format!(
                    "spec.tiers[{index}].path: {path} is not below a host directory that the installation allows ({}): \
                     choose one there, or add it to the chart's value node.tierRoots",
                    roots.join(", ")
                ),
            ));
        }
    }
    let name = pool.name_any();
    if defaults.len() > 1 && defaults.contains(&name) {
        problems.push((
            reason::SEVERAL_DEFAULT_POOLS,
            format!(
                "several CachePools are the default ({}): leave the annotation millpond.io/is-default-pool on one of them",
                defaults.join(", ")
            ),
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(path: &str) -> CachePool {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "millpond.io/v1alpha1", "kind": "CachePool", "metadata": {"name": "gpu"},
            "spec": {"tiers": [{"medium": "Disk", "path": path, "capacity": "1Gi"}]}
        }))
        .unwrap()
    }

    #[test]
    fn a_tier_lies_below_an_allowed_directory() {
        let roots = [PathBuf::from("/mnt")];
        assert!(validate(&pool("/mnt/nvme"), &roots, &[]).is_empty());
        for path in ["/mnt2/nvme", "/etc"] {
            let problems = validate(&pool(path), &roots, &[]);
            assert_eq!(problems[0].0, "TierRefused", "{path}");
            assert!(problems[0].1.contains("spec.tiers[0].path"), "{}", problems[0].1);
        }
    }

    #[test]
    fn two_defaults_are_a_mistake_of_both() {
        let defaults = ["gpu".to_owned(), "other".to_owned()];
        assert_eq!(
            validate(&pool("/mnt/a"), &["/mnt".into()], &defaults)[0].0,
            "SeveralDefaultPools"
        );
    }
}
