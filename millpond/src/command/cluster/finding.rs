//! What is right and what is wrong, in words for people.

use api::condition::kind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

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

/// Conditions that say that something is wrong: those that are False, but for the whole Dataset being cached, which need not be, and
/// for Ready, which follows from the others where there are others.
pub(super) fn faults(conditions: &[Condition]) -> Vec<&Condition> {
    let is_wrong = |condition: &&Condition| match condition.type_.as_str() {
        kind::WARM | kind::COMPLETE => false,
        kind::DELETION_BLOCKED => condition.status == "True",
        _ => condition.status == "False",
    };
    let wrong: Vec<_> = conditions.iter().filter(is_wrong).collect();
    let causes: Vec<_> = wrong
        .iter()
        .copied()
        .filter(|condition| condition.type_ != kind::READY)
        .collect();
    if causes.is_empty() { wrong } else { causes }
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

    fn condition(kind: &str, status: &str) -> Condition {
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: format!("{kind}Reason"),
            message: "why".to_owned(),
            last_transition_time: Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH),
            observed_generation: None,
        }
    }

    #[test]
    fn a_cause_stands_for_what_follows_from_it() {
        let conditions = [
            condition("Ready", "False"),
            condition("Warm", "False"),
            condition("SourceReachable", "False"),
        ];
        assert_eq!(
            first_fault(&conditions).as_deref(),
            Some("SourceReachableReason: why")
        );
        assert_eq!(first_fault(&conditions[..2]).as_deref(), Some("ReadyReason: why"));
        assert_eq!(first_fault(&conditions[1..2]), None);
        assert_eq!(
            first_fault(&[condition("DeletionBlocked", "True")]).as_deref(),
            Some("DeletionBlockedReason: why")
        );
    }
}
