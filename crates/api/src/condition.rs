//! Conditions: what is true of an object, and why.
//!
//! Types and reasons are constants: users match on them in `kubectl wait` and alerts, so none is ever renamed. A
//! condition keeps its transition time as long as its status is the same, so that equal states are equal objects and
//! a status is written only when it changed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Types of conditions.
pub mod kind {
    /// The object can be used.
    pub const READY: &str = "Ready";
    /// The last contact with each source went well.
    pub const SOURCE_REACHABLE: &str = "SourceReachable";
    /// There is a catalog.
    pub const CATALOG_READY: &str = "CatalogReady";
    /// A pool's workers can use the whole capacity.
    pub const CAPACITY_USABLE: &str = "CapacityUsable";
    /// Everything is in the pool.
    pub const WARM: &str = "Warm";
    /// The object cannot be deleted yet.
    pub const DELETION_BLOCKED: &str = "DeletionBlocked";
    /// A load has ended with everything there.
    pub const COMPLETE: &str = "Complete";
}

/// Reasons of conditions, which are the reasons of events as well.
pub mod reason {
    /// As it should be.
    pub const AS_EXPECTED: &str = "AsExpected";
    /// `pool` names no CachePool, or there is no default one.
    pub const POOL_NOT_FOUND: &str = "PoolNotFound";
    /// `secretRef` names no Secret.
    pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
    /// `serviceAccountName` names no ServiceAccount.
    pub const SERVICE_ACCOUNT_NOT_FOUND: &str = "ServiceAccountNotFound";
    /// A glob cannot be read.
    pub const INVALID_GLOB: &str = "InvalidGlob";
    /// A source cannot be used as it is described.
    pub const INVALID_SOURCE: &str = "InvalidSource";
    /// The quota is larger than the pool's capacity.
    pub const QUOTA_OVER_CAPACITY: &str = "QuotaOverCapacity";
    /// A source did not answer.
    pub const SOURCE_UNREACHABLE: &str = "SourceUnreachable";
    /// A source refuses our credentials, or does not show what was asked for.
    pub const ACCESS_DENIED: &str = "AccessDenied";
    /// A bucket or directory is not there.
    pub const SOURCE_NOT_FOUND: &str = "SourceNotFound";
    /// Sources are being listed for the first time.
    pub const LISTING: &str = "Listing";
    /// The volume is being bound to its claim.
    pub const BINDING: &str = "Binding";
    /// No worker of the pool is up.
    pub const NO_WORKERS: &str = "NoWorkers";
    /// Some workers of the pool are not up.
    pub const WORKERS_MISSING: &str = "WorkersMissing";
    /// Pods use it.
    pub const IN_USE: &str = "InUse";
    /// An object of a name that we need belongs to somebody else.
    pub const NAME_TAKEN: &str = "NameTaken";
    /// The Dataset that is named is not there.
    pub const DATASET_NOT_FOUND: &str = "DatasetNotFound";
    /// The Dataset is not ready.
    pub const DATASET_NOT_READY: &str = "DatasetNotReady";
    /// A schedule cannot be read.
    pub const INVALID_SCHEDULE: &str = "InvalidSchedule";
    /// Files are being fetched.
    pub const LOADING: &str = "Loading";
    /// Some files could not be fetched.
    pub const FILES_FAILED: &str = "FilesFailed";
    /// Two pools call themselves the default.
    pub const SEVERAL_DEFAULT_POOLS: &str = "SeveralDefaultPools";
    /// A pod's volume cannot be read as it should be: said of the pod.
    pub const VOLUME_ABNORMAL: &str = "VolumeConditionAbnormal";
    /// It can again.
    pub const VOLUME_NORMAL: &str = "VolumeConditionNormal";
    /// A part of the capacity is not used, since room on a node's disk has to stay free.
    pub const DISK_SHORT: &str = "DiskShort";
    /// The nodes' directories or memory do not allow the tiers.
    pub const TIER_REFUSED: &str = "TierRefused";
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can say.
    Unknown,
}

impl Status {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// What is to be said of one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionUpdate {
    /// Its type: one of [`kind`].
    pub kind: &'static str,
    /// Whether it holds.
    pub status: Status,
    /// Why: one of [`reason`].
    pub reason: &'static str,
    /// Why, for people: names the field and the fix.
    pub message: String,
}

/// The conditions that follow from `before` and what was found, in the order of `found`. Conditions that were not
/// looked at this time are dropped.
pub fn update(
    before: &[Condition],
    found: &[ConditionUpdate],
    observed_generation: Option<i64>,
    now: &Time,
) -> Vec<Condition> {
    found
        .iter()
        .map(|finding| {
            let known = before.iter().find(|condition| condition.type_ == finding.kind);
            let last_transition_time = match known {
                Some(known) if known.status == finding.status.as_str() => known.last_transition_time.clone(),
                _ => now.clone(),
            };
            Condition {
                type_: finding.kind.to_owned(),
                status: finding.status.as_str().to_owned(),
                reason: finding.reason.to_owned(),
                message: finding.message.clone(),
                observed_generation,
                last_transition_time,
            }
        })
        .collect()
}

/// Whether a condition holds, by its type.
pub fn holds(conditions: &[Condition], kind: &str) -> bool {
    conditions
        .iter()
        .any(|condition| condition.type_ == kind && condition.status == Status::True.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
    }

    fn finding(status: Status) -> ConditionUpdate {
        ConditionUpdate {
            kind: kind::READY,
            status,
            reason: reason::AS_EXPECTED,
            message: String::new(),
        }
    }

    #[test]
    fn a_condition_keeps_its_time_as_long_as_its_status() {
        let first = update(&[], &[finding(Status::False)], Some(1), &at(10));
        let second = update(&first, &[finding(Status::False)], Some(2), &at(20));
        assert_eq!(second[0].last_transition_time, at(10));
        assert_eq!(second[0].observed_generation, Some(2));
        let third = update(&second, &[finding(Status::True)], Some(2), &at(30));
        assert_eq!(third[0].last_transition_time, at(30));
        assert!(holds(&third, kind::READY));
        assert!(!holds(&second, kind::READY));
    }

    #[test]
    fn what_was_not_looked_at_is_not_said() {
        let first = update(&[], &[finding(Status::True)], None, &at(10));
        assert_eq!(update(&first, &[], None, &at(20)), []);
    }
}
