//! Reports of this node to the controller: its volumes, and the Datasets that have files here.
//!
//! Only the keys of changed volumes are queued; a report is made from the state at sending. So no report is outdated or
//! lost, and the queue is bounded by the number of volumes.

use std::collections::{BTreeMap, BTreeSet};

use millpond_wire::plan::driver_report::Report;
use millpond_wire::plan::{DriverReport, Present, Synced, View, ViewKey};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::record::{Record, VolumeKey};

/// State to report, and the changes that are not sent yet.
#[derive(Debug, Default)]
pub struct Reports {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    views: BTreeMap<VolumeKey, View>,
    present: BTreeSet<String>,
    /// What has changed since it was sent.
    dirty: BTreeSet<VolumeKey>,
    present_dirty: bool,
}

impl Reports {
    /// Records that a volume is published.
    pub(crate) fn volume_published(&self, record: &Record) {
        let key = record.key();
        let view = view(record);
        let mut state = self.state.lock();
        state.views.insert(key.clone(), view);
        state.dirty.insert(key);
        drop(state);
        self.changed.notify_one();
    }

    /// Records the result of a health check; `None`: the volume is healthy.
    pub(crate) fn record_health(&self, key: &VolumeKey, abnormal: Option<&str>) {
        let abnormal = abnormal.unwrap_or_default();
        let mut state = self.state.lock();
        match state.views.get_mut(key) {
            Some(view) if view.abnormal.as_deref() != Some(abnormal) => {
                view.abnormal = Some(abnormal.to_owned());
            }
            _ => return,
        }
        state.dirty.insert(key.clone());
        drop(state);
        self.changed.notify_one();
    }

    /// Records that a volume was unpublished.
    pub(crate) fn volume_unpublished(&self, key: &VolumeKey) {
        let mut state = self.state.lock();
        state.views.remove(key);
        state.dirty.insert(key.clone());
        drop(state);
        self.changed.notify_one();
    }

    /// Records the Datasets that have files on this node.
    pub(crate) fn present(&self, uids: BTreeSet<String>) {
        let mut state = self.state.lock();
        if state.present == uids {
            return;
        }
        state.present = uids;
        state.present_dirty = true;
        drop(state);
        self.changed.notify_one();
    }

    /// Returns the current reports of all views.
    pub fn views(&self) -> Vec<View> {
        self.state.lock().views.values().cloned().collect()
    }

    pub(super) async fn wait(&self) {
        self.changed.notified().await;
    }

    /// Sends all reports; returns `false` if the stream has ended.
    pub(super) async fn all(&self, stream: &mpsc::Sender<DriverReport>) -> bool {
        let mut reports: Vec<Report> = Vec::new();
        {
            let mut state = self.state.lock();
            state.dirty.clear();
            state.present_dirty = false;
            reports.push(present(&state.present));
            reports.extend(state.views.values().cloned().map(Report::PutView));
        }
        reports.push(Report::Synced(Synced {}));
        send(stream, reports).await
    }

    /// Sends the changes; returns `false` if the stream has ended.
    pub(super) async fn changes(&self, stream: &mpsc::Sender<DriverReport>) -> bool {
        let mut reports = Vec::new();
        {
            let mut state = self.state.lock();
            for key in std::mem::take(&mut state.dirty) {
                reports.push(match state.views.get(&key) {
                    Some(view) => Report::PutView(view.clone()),
                    None => Report::RemoveView(view_key(&key)),
                });
            }
            if std::mem::take(&mut state.present_dirty) {
                reports.push(present(&state.present));
            }
        }
        send(stream, reports).await
    }
}

async fn send(stream: &mpsc::Sender<DriverReport>, reports: Vec<Report>) -> bool {
    for report in reports {
        let report = DriverReport { report: Some(report) };
        if stream.send(report).await.is_err() {
            return false;
        }
    }
    true
}

fn present(uids: &BTreeSet<String>) -> Report {
    Report::Present(Present {
        dataset_uids: uids.iter().cloned().collect(),
    })
}

fn view_key(key: &VolumeKey) -> ViewKey {
    ViewKey {
        volume_id: key.volume_id.clone(),
        target: key.target.to_string_lossy().into_owned(),
    }
}

fn view(record: &Record) -> View {
    let pod = &record.request.pod;
    View {
        key: Some(view_key(&record.key())),
        dataset_uid: record.dataset.uid.clone(),
        generation: record.generation(),
        pod_namespace: pod.namespace.clone(),
        pod_name: pod.name.clone(),
        pod_uid: pod.uid.clone(),
        kernel: record.is_kernel(),
        abnormal: None,
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[tokio::test]
    async fn a_problem_of_a_volume_is_reported_once() {
        let reports = Reports::default();
        let key = VolumeKey {
            volume_id: "v".to_owned(),
            target: "/pods/a".into(),
        };
        let (sender, mut received) = mpsc::channel(8);
        reports.record_health(&key, Some("is not known here"));
        reports.state.lock().views.insert(key.clone(), View::default());
        let mut sent = async |abnormal| {
            reports.record_health(&key, abnormal);
            assert!(reports.changes(&sender).await);
            match received.try_recv().ok()?.report? {
                Report::PutView(view) => view.abnormal,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(sent(None).await.as_deref(), Some(""));
        assert_eq!(sent(None).await, None);
        assert_eq!(sent(Some("no worker")).await.as_deref(), Some("no worker"));
        assert_eq!(sent(Some("no worker")).await, None);
        assert_eq!(sent(None).await.as_deref(), Some(""));
    }
}
