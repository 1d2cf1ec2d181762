//! Events: what a person has to see, published once when it begins.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder};
use tokio::sync::broadcast::error::RecvError;
use tracing::warn;

use millpond_api::condition::{ConditionUpdate, Status, reason};

use crate::node_reports::NodeReports;

/// An Event's note holds 1 kB.
const MAX_NOTE_CHARACTERS: usize = 1_000;

/// Publishes an Event for each condition that has become a problem, and for each that is one no more.
pub(crate) async fn publish_condition_events<K>(
    recorder: &Recorder,
    object: &K,
    before: &[Condition],
    updates: &[ConditionUpdate],
) where
    K: Resource<DynamicType = ()>,
{
    for update in updates {
        let known = before.iter().find(|condition| condition.type_ == update.kind);
        if let Some(type_) = event_type(known, update) {
            publish(recorder, object, type_, update).await;
        }
    }
}

/// Returns the type of the Event that a change of a condition causes, if it causes one.
fn event_type(known: Option<&Condition>, update: &ConditionUpdate) -> Option<EventType> {
    let status = update.status.as_str();
    if known.is_some_and(|known| known.status == status && known.reason == update.reason) {
        return None;
    }
    if is_problem(status, update.reason) {
        return Some(EventType::Warning);
    }
    let was_problem = known.is_some_and(|known| is_problem(&known.status, &known.reason));
    (update.status == Status::True && was_problem).then_some(EventType::Normal)
}

/// Returns whether a condition needs a person's action: it is False and not in progress, or it is True with a problem as
/// its reason (a Dataset that is ready with its last valid spec).
fn is_problem(status: &str, reason: &str) -> bool {
    if status == Status::False.as_str() {
        !is_in_progress(reason)
    } else {
        status == Status::True.as_str() && reason != reason::AS_EXPECTED
    }
}

/// Returns whether a condition with this reason will hold without any action.
pub(crate) fn is_in_progress(reason: &str) -> bool {
    [
        reason::LISTING,
        reason::LOADING,
        reason::BINDING,
        reason::SCHEDULED,
    ]
    .contains(&reason)
}

/// Publishes a warning for a condition.
pub(crate) async fn publish_warning<K>(recorder: &Recorder, object: &K, update: &ConditionUpdate)
where
    K: Resource<DynamicType = ()>,
{
    publish(recorder, object, EventType::Warning, update).await;
}

/// Publishes an Event at a pod whose volume has become abnormal, or normal again. Never ends by itself.
pub(crate) async fn publish_volume_events(recorder: &Recorder, reports: &NodeReports) {
    let mut conditions = reports.conditions();
    loop {
        let view = match conditions.recv().await {
            Ok(view) => view,
            // The driver's next check of the volume reports it again.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let (type_, reason, note) = match view.abnormal.as_deref().unwrap_or_default() {
            "" => (
                EventType::Normal,
                reason::VOLUME_NORMAL,
                "the volume is healthy again".to_owned(),
            ),
            problem => (EventType::Warning, reason::VOLUME_ABNORMAL, note(problem)),
        };
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: "NodeGetVolumeStats".to_owned(),
            secondary: None,
        };
        let pod = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(view.pod_namespace),
            name: Some(view.pod_name),
            uid: Some(view.pod_uid),
            ..ObjectReference::default()
        };
        if let Err(error) = recorder.publish(&event, &pod).await {
            warn!(%error, reason = event.reason, "failed to publish an Event; dropped");
        }
    }
}

/// Returns as much of a text as a note holds.
fn note(text: &str) -> String {
    text.chars().take(MAX_NOTE_CHARACTERS).collect()
}

async fn publish<K>(recorder: &Recorder, object: &K, type_: EventType, update: &ConditionUpdate)
where
    K: Resource<DynamicType = ()>,
{
    let event = Event {
        type_,
        reason: update.reason.to_owned(),
        note: Some(note(&update.message)),
        action: update.kind.to_owned(),
        secondary: None,
    };
    if let Err(error) = recorder.publish(&event, &object.object_ref(&())).await {
        warn!(%error, reason = update.reason, "failed to publish an Event; dropped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_published_when_a_problem_begins_changes_or_ends() {
        use Status::{False, True, Unknown};
        let (warning, normal) = (Some(EventType::Warning), Some(EventType::Normal));
        for (before, now, expected) in [
            (None, (False, reason::LISTING), None),
            (None, (Unknown, reason::LISTING), None),
            (None, (True, reason::AS_EXPECTED), None),
            (None, (False, reason::ACCESS_DENIED), warning),
            (
                Some((False, reason::ACCESS_DENIED)),
                (False, reason::ACCESS_DENIED),
                None,
            ),
            (
                Some((False, reason::ACCESS_DENIED)),
                (False, reason::NO_WORKERS),
                warning,
            ),
            (
                Some((False, reason::ACCESS_DENIED)),
                (True, reason::AS_EXPECTED),
                normal,
            ),
            (Some((False, reason::LISTING)), (True, reason::AS_EXPECTED), None),
            (Some((False, reason::SCHEDULED)), (False, reason::LOADING), None),
            (
                Some((True, reason::AS_EXPECTED)),
                (False, reason::SCHEDULED),
                None,
            ),
            (
                Some((True, reason::AS_EXPECTED)),
                (True, reason::TIER_REFUSED),
                warning,
            ),
            (
                Some((True, reason::TIER_REFUSED)),
                (True, reason::TIER_REFUSED),
                None,
            ),
            (
                Some((True, reason::TIER_REFUSED)),
                (True, reason::AS_EXPECTED),
                normal,
            ),
        ] {
            let known = before.map(|(status, reason)| condition(status, reason));
            let update = ConditionUpdate {
                kind: "Ready",
                status: now.0,
                reason: now.1,
                message: String::new(),
            };
            let found = event_type(known.as_ref(), &update);
            assert_eq!(name(found), name(expected), "{before:?} -> {now:?}");
        }
    }

    fn condition(status: Status, reason: &str) -> Condition {
        let now =
            k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        Condition {
            type_: "Ready".to_owned(),
            status: status.as_str().to_owned(),
            reason: reason.to_owned(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: now,
        }
    }

    fn name(type_: Option<EventType>) -> String {
        format!("{type_:?}")
    }
}
