//! What is right and what is wrong, in words for people.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use millpond_api::condition::{kind, reason};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    /// What was looked at.
    pub(super) subject: String,
    /// How it is.
    pub(super) detail: String,
    /// What to do about it.
    pub(super) fix: Option<String>,
}

/// How it is in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// It works, and not as well as it could.
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

impl Finding {
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

/// Conditions that say that something is wrong, the one that says it of the whole object first, which names the cause. What is still
/// to come because of it (a listing), and what need not be (all of a Dataset in the cache), is left out.
pub(super) fn faults(conditions: &[Condition]) -> Vec<&Condition> {
    let is_wrong = |condition: &Condition| match condition.type_.as_str() {
        kind::WARM | kind::COMPLETE => false,
        kind::DELETION_BLOCKED => condition.status == "True",
        _ => condition.status == "False",
    };
    let mut found: Vec<&Condition> = Vec::new();
    let whole = conditions
        .iter()
        .filter(|condition| condition.type_ == kind::READY);
    let parts = conditions
        .iter()
        .filter(|condition| condition.type_ != kind::READY);
    for condition in whole.chain(parts).filter(|condition| is_wrong(condition)) {
        let is_said = found.iter().any(|said| said.reason == condition.reason);
        let follows = !found.is_empty() && condition.reason == reason::LISTING;
        if !is_said && !follows {
            found.push(condition);
        }
    }
    found
}

/// The first of [`faults`], in one line.
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
    fn a_cause_is_told_once_and_not_what_follows_from_it() {
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
        assert_eq!(
            reasons(&[condition("DeletionBlocked", "True", "InUse")]),
            ["InUse"]
        );
    }
}
