//! Results of the doctor's checks, and the conditions that report a problem.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use millpond_api::condition::{kind, reason};

/// Result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CheckResult {
    pub(super) verdict: Verdict,
    /// What was checked.
    pub(super) subject: String,
    /// What was found.
    pub(super) detail: String,
    /// What the user can do; `None`: nothing to do.
    pub(super) fix: Option<String>,
}

/// Outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// It works, but worse than it could.
    Warning,
    /// Something does not work.
    Bad,
}

impl Verdict {
    pub(super) const fn mark(self) -> &'static str {
        match self {
            Self::Good => "ok     ",
            Self::Warning => "warning",
            Self::Bad => "WRONG  ",
        }
    }
}

impl CheckResult {
    pub(super) fn good(subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Verdict::Good, subject, detail, None)
    }

    pub(super) fn warning(subject: impl Into<String>, detail: impl Into<String>, fix: &str) -> Self {
        Self::new(Verdict::Warning, subject, detail, Some(fix))
    }

    pub(super) fn bad(subject: impl Into<String>, detail: impl Into<String>, fix: &str) -> Self {
        Self::new(Verdict::Bad, subject, detail, Some(fix))
    }

    fn new(
        verdict: Verdict,
        subject: impl Into<String>,
        detail: impl Into<String>,
        fix: Option<&str>,
    ) -> Self {
        Self {
            verdict,
            subject: subject.into(),
            detail: detail.into(),
            fix: fix.map(str::to_owned),
        }
    }
}

/// Returns the conditions that report a problem, `Ready` first, since it names the cause. Left out: conditions that
/// are only pending because of it (a listing), and optional ones (all of a Dataset in the cache).
pub(super) fn faults(conditions: &[Condition]) -> Vec<&Condition> {
    let is_wrong = |condition: &Condition| match condition.type_.as_str() {
        kind::WARM | kind::COMPLETE => false,
        kind::DELETION_BLOCKED => condition.status == "True",
        // A Dataset that pods can use may still have a problem: then the reason names it.
        kind::READY => condition.status == "False" || condition.reason != reason::AS_EXPECTED,
        _ => condition.status == "False",
    };
    let mut found: Vec<&Condition> = Vec::new();
    let ready = conditions
        .iter()
        .filter(|condition| condition.type_ == kind::READY);
    let others = conditions
        .iter()
        .filter(|condition| condition.type_ != kind::READY);
    for condition in ready.chain(others).filter(|condition| is_wrong(condition)) {
        let is_reported = found.iter().any(|other| other.reason == condition.reason);
        let follows = !found.is_empty() && condition.reason == reason::LISTING;
        if !is_reported && !follows {
            found.push(condition);
        }
    }
    found
}

/// Returns the first of [`faults`] in one line.
pub(super) fn first_fault(conditions: &[Condition]) -> Option<String> {
    let fault = *faults(conditions).first()?;
    Some(format!("{}: {}", fault.reason, fault.message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn condition(kind: &str, status: &str, reason: &str) -> Condition {
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: "why".to_owned(),
            last_transition_time: Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH),
            observed_generation: None,
        }
    }

    fn reasons(conditions: &[Condition]) -> Vec<&str> {
        faults(conditions)
            .iter()
            .map(|fault| fault.reason.as_str())
            .collect()
    }

    #[test]
    fn a_cause_is_reported_once_and_not_what_follows_from_it() {
        let conditions = [
            condition("SourceReachable", "False", "AccessDenied"),
            condition("CatalogReady", "False", "Listing"),
            condition("Warm", "False", "Loading"),
            condition("Ready", "False", "AccessDenied"),
        ];
        assert_eq!(reasons(&conditions), ["AccessDenied"]);
        assert_eq!(first_fault(&conditions).as_deref(), Some("AccessDenied: why"));
        assert_eq!(reasons(&conditions[1..3]), ["Listing"]);
        assert!(reasons(&conditions[2..3]).is_empty());
        let usable = [
            condition("Ready", "True", "TierRefused"),
            condition("SourceReachable", "True", "AsExpected"),
        ];
        assert_eq!(reasons(&usable), ["TierRefused"]);
        assert!(reasons(&[condition("Ready", "True", "AsExpected")]).is_empty());
        assert_eq!(
            reasons(&[condition("DeletionBlocked", "True", "InUse")]),
            ["InUse"]
        );
    }
}
