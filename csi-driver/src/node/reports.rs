//! What the controller is told of this node: which volumes show what, and whose things lie here.
//!
//! Only which volume changed is remembered, not how: what is sent is how it is then. So no report is ever late or lost, and what
//! waits is bounded by the volumes that there are.

use std::collections::{BTreeMap, BTreeSet};

use millpond_wire::plan::driver_report::Report;
use millpond_wire::plan::{DriverReport, Present, Synced, View, ViewKey};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::record::{Record, VolumeKey};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Reports {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    views: BTreeMap<VolumeKey, View>,
    present: BTreeSet<String>,
    /// What has changed since it was told.
    dirty: BTreeSet<VolumeKey>,
    present_dirty: bool,
}

impl Reports {
    /// A volume is shown.
    pub(crate) fn shown(&self, record: &Record) {
        let key = record.key();
        let view = view(record);
        let mut state = self.state.lock();
        state.views.insert(key.clone(), view);
        state.dirty.insert(key);
        drop(state);
        self.changed.notify_one();
    }

    /// A volume was looked at: what is wrong with it, or nothing.
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

    /// A volume is gone.
    pub(crate) fn gone(&self, key: &VolumeKey) {
        let mut state = self.state.lock();
        state.views.remove(key);
        state.dirty.insert(key.clone());
        drop(state);
        self.changed.notify_one();
    }

    /// These Datasets' things are on this node.
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

    /// What is told now, for tests and for people.
    pub fn views(&self) -> Vec<View> {
        self.state.lock().views.values().cloned().collect()
    }

    pub(super) async fn wait(&self) {
        self.changed.notified().await;
    }

    /// Tells everything; `false`: nobody hears it.
    pub(super) async fn all(&self, line: &mpsc::Sender<DriverReport>) -> bool {
        let mut reports: Vec<Report> = Vec::new();
        {
            let mut state = self.state.lock();
            state.dirty.clear();
            state.present_dirty = false;
            reports.push(present(&state.present));
            reports.extend(state.views.values().cloned().map(Report::PutView));
        }
        reports.push(Report::Synced(Synced {}));
        tell(line, reports).await
    }

    /// Tells what has changed; `false`: nobody hears it.
    pub(super) async fn changes(&self, line: &mpsc::Sender<DriverReport>) -> bool {
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
        tell(line, reports).await
    }
}

async fn tell(line: &mpsc::Sender<DriverReport>, reports: Vec<Report>) -> bool {
    for report in reports {
        let report = DriverReport { report: Some(report) };
        if line.send(report).await.is_err() {
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
    async fn what_is_wrong_with_a_volume_is_told_once() {
        let reports = Reports::default();
        let key = VolumeKey {
            volume_id: "v".to_owned(),
            target: "/pods/a".into(),
        };
        let (line, mut heard) = mpsc::channel(8);
        reports.record_health(&key, Some("is not known here"));
        reports.state.lock().views.insert(key.clone(), View::default());
        let mut told = async |abnormal| {
            reports.record_health(&key, abnormal);
            assert!(reports.changes(&line).await);
            match heard.try_recv().ok()?.report? {
                Report::PutView(view) => view.abnormal,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(told(None).await.as_deref(), Some(""));
        assert_eq!(told(None).await, None);
        assert_eq!(told(Some("no worker")).await.as_deref(), Some("no worker"));
        assert_eq!(told(Some("no worker")).await, None);
        assert_eq!(told(None).await.as_deref(), Some(""));
    }
}
