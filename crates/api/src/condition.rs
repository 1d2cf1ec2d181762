//! Conditions: the observed state of an object, with a reason.
//!
//! Types and reasons are constants: users match on them in `kubectl wait` and alerts, so none is ever renamed. A condition
//! keeps its transition time as long as its status is the same, so that equal states are equal objects and a status is
//! written only when it has changed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Types of conditions.
pub mod kind {
    /// The object can be used.
    pub const READY: &str = "Ready";
    /// The last request to each source succeeded.
    pub const SOURCE_REACHABLE: &str = "SourceReachable";
    /// The sources were listed: a catalog exists.
    pub const CATALOG_READY: &str = "CatalogReady";
    /// The workers of a pool can use all of its capacity.
    pub const CAPACITY_USABLE: &str = "CapacityUsable";
    /// All files are cached.
    pub const WARM: &str = "Warm";
    /// The object cannot be deleted yet.
    pub const DELETION_BLOCKED: &str = "DeletionBlocked";
    /// A load has ended, and all its files are cached.
    pub const COMPLETE: &str = "Complete";
}

/// Reasons of conditions and of Events.
pub mod reason {
    /// No problem found.
    pub const AS_EXPECTED: &str = "AsExpected";
    /// `pool` names no CachePool, or there is no default one.
    pub const POOL_NOT_FOUND: &str = "PoolNotFound";
    /// `secretRef` names no Secret.
    pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
    /// `serviceAccountName` names no ServiceAccount.
    pub const SERVICE_ACCOUNT_NOT_FOUND: &str = "ServiceAccountNotFound";
    /// A glob is invalid.
    pub const INVALID_GLOB: &str = "InvalidGlob";
    /// The description of a source is invalid.
    pub const INVALID_SOURCE: &str = "InvalidSource";
    /// The quota is larger than the pool's capacity.
    pub const QUOTA_OVER_CAPACITY: &str = "QuotaOverCapacity";
    /// A source did not respond.
    pub const SOURCE_UNREACHABLE: &str = "SourceUnreachable";
    /// A source refuses the credentials, or the access to what the spec names.
    pub const ACCESS_DENIED: &str = "AccessDenied";
    /// A bucket or directory does not exist.
    pub const SOURCE_NOT_FOUND: &str = "SourceNotFound";
    /// Sources are being listed for the first time.
    pub const LISTING: &str = "Listing";
    /// The volume is being bound to its claim.
    pub const BINDING: &str = "Binding";
    /// The pool has no worker.
    pub const NO_WORKERS: &str = "NoWorkers";
    /// Some workers of the pool are not ready.
    pub const WORKERS_MISSING: &str = "WorkersMissing";
    /// Pods use it.
    pub const IN_USE: &str = "InUse";
    /// A required name is taken by an object that Millpond does not manage.
    pub const NAME_TAKEN: &str = "NameTaken";
    /// The named Dataset does not exist.
    pub const DATASET_NOT_FOUND: &str = "DatasetNotFound";
    /// The Dataset is not ready.
    pub const DATASET_NOT_READY: &str = "DatasetNotReady";
    /// A schedule is invalid.
    pub const INVALID_SCHEDULE: &str = "InvalidSchedule";
    /// Files are being fetched.
    pub const LOADING: &str = "Loading";
    /// Some files could not be fetched.
    pub const FILES_FAILED: &str = "FilesFailed";
    /// A load waits for its schedule.
    pub const SCHEDULED: &str = "Scheduled";
    /// Several pools are annotated as the default.
    pub const SEVERAL_DEFAULT_POOLS: &str = "SeveralDefaultPools";
    /// A volume is unhealthy (Event at the pod).
    pub const VOLUME_ABNORMAL: &str = "VolumeConditionAbnormal";
    /// The volume is healthy again (Event at the pod).
    pub const VOLUME_NORMAL: &str = "VolumeConditionNormal";
    /// A part of the capacity is withheld to keep space on a node's disk free.
    pub const DISK_SHORT: &str = "DiskShort";
    /// A tier is not allowed, or a worker cannot use it.
    pub const TIER_REFUSED: &str = "TierRefused";
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It is not known whether it holds.
    Unknown,
}

impl Status {
    /// Returns the text of it in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// The new state of one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionUpdate {
    /// Its type: one of [`kind`].
    pub kind: &'static str,
    /// Whether it holds.
    pub status: Status,
    /// One of [`reason`].
    pub reason: &'static str,
    /// Names the field and the fix.
    pub message: String,
}

/// Returns the conditions after `updates`, in their order. A condition of `before` without an update is dropped.
pub fn update(
    before: &[Condition],
    updates: &[ConditionUpdate],
    observed_generation: Option<i64>,
    now: &Time,
) -> Vec<Condition> {
    updates
        .iter()
        .map(|update| {
            let known = before.iter().find(|condition| condition.type_ == update.kind);
            let last_transition_time = match known {
                Some(known) if known.status == update.status.as_str() => known.last_transition_time.clone(),
                _ => now.clone(),
            };
            Condition {
                type_: update.kind.to_owned(),
                status: update.status.as_str().to_owned(),
                reason: update.reason.to_owned(),
                message: update.message.clone(),
                observed_generation,
                last_transition_time,
            }
        })
        .collect()
}

/// Returns whether the condition of a type holds.
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

    fn ready(status: Status) -> ConditionUpdate {
        ConditionUpdate {
            kind: kind::READY,
            status,
            reason: reason::AS_EXPECTED,
            message: String::new(),
        }
    }

    #[test]
    fn a_condition_keeps_its_time_as_long_as_its_status() {
        let first = update(&[], &[ready(Status::False)], Some(1), &at(10));
        let second = update(&first, &[ready(Status::False)], Some(2), &at(20));
        assert_eq!(second[0].last_transition_time, at(10));
        assert_eq!(second[0].observed_generation, Some(2));
        let third = update(&second, &[ready(Status::True)], Some(2), &at(30));
        assert_eq!(third[0].last_transition_time, at(30));
        assert!(holds(&third, kind::READY));
        assert!(!holds(&second, kind::READY));
    }

    #[test]
    fn a_condition_without_an_update_is_dropped() {
        let first = update(&[], &[ready(Status::True)], None, &at(10));
        assert_eq!(update(&first, &[], None, &at(20)), []);
    }
}
