//! Events: what a person must see, told once when it begins to be so.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder};
use tokio::sync::broadcast::error::RecvError;
use tracing::warn;

use millpond_api::condition::{ConditionUpdate, Status, reason};

use crate::node_reports::NodeReports;

/// An event holds 1 kB.
const NOTE_CHARACTERS: usize = 1_000;

/// Tells of every condition that is another than before, and of none that was never otherwise than it should be.
pub(crate) async fn publish_condition_events<K>(
    recorder: &Recorder,
    object: &K,
    before: &[Condition],
    found: &[ConditionUpdate],
) where
    K: Resource<DynamicType = ()>,
{
    for finding in found {
        let known = before.iter().find(|condition| condition.type_ == finding.kind);
        let same = known
            .is_some_and(|known| known.status == finding.status.as_str() && known.reason == finding.reason);
        let news = match finding.status {
            Status::True => known.is_some_and(|known| {
                known.status == Status::False.as_str() && !is_in_progress(&known.reason)
            }),
            Status::False => !is_in_progress(finding.reason),
            Status::Unknown => false,
        };
        if same || !news {
            continue;
        }
        let type_ = match finding.status {
            Status::True => EventType::Normal,
            Status::False | Status::Unknown => EventType::Warning,
        };
        tell(recorder, object, type_, finding).await;
    }
}

/// Not as it should be yet, and nobody's concern.
pub(crate) fn is_in_progress(why: &str) -> bool {
    [reason::LISTING, reason::LOADING, reason::BINDING].contains(&why)
}

/// Tells that a deletion has to wait.
pub(crate) async fn tell_blocked<K>(recorder: &Recorder, object: &K, found: &[ConditionUpdate])
where
    K: Resource<DynamicType = ()>,
{
    for finding in found {
        tell(recorder, object, EventType::Warning, finding).await;
    }
}

/// Tells pods when their volumes come to be abnormal, and when they are normal again. Ends with the fleet.
pub(crate) async fn tell_of_volumes(recorder: &Recorder, fleet: &NodeReports) {
    let mut conditions = fleet.conditions();
    loop {
        let view = match conditions.recv().await {
            Ok(view) => view,
            // Whoever looks at the volume again is told again.
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let (type_, reason, note) = match view.abnormal.as_deref().unwrap_or_default() {
            "" => (
                EventType::Normal,
                reason::VOLUME_NORMAL,
                "the volume is well again".to_owned(),
            ),
            wrong => (EventType::Warning, reason::VOLUME_ABNORMAL, short(wrong)),
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
            warn!(%error, reason = event.reason, "failed to tell an event");
        }
    }
}

/// As much of a text as an event holds.
fn short(text: &str) -> String {
    text.chars().take(NOTE_CHARACTERS).collect()
}

async fn tell<K>(recorder: &Recorder, object: &K, kind: EventType, finding: &ConditionUpdate)
where
    K: Resource<DynamicType = ()>,
{
    let event = Event {
        type_: kind,
        reason: finding.reason.to_owned(),
        note: Some(short(&finding.message)),
        action: finding.kind.to_owned(),
        secondary: None,
    };
    if let Err(error) = recorder.publish(&event, &object.object_ref(&())).await {
        warn!(%error, reason = finding.reason, "failed to tell an event");
    }
}
