//! State of this driver that the worker needs: generations of views, open files, counted opens.
//!
//! It is a state, not a queue: a worker that has just started receives all of it, a connected one the changes.
//! [`Worker::file_opened`](millpond_core::Worker::file_opened) and similar methods are called under locks, so nothing here
//! waits.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use millpond_core::ObjectId;
use millpond_core::{Generation, ObjectRef, OpenCount, StreamId};
use millpond_wire::worker as wire;
use parking_lot::Mutex;
use tokio::sync::Notify;
use wire::notice::Notice as Kind;

/// Most queued changes: with more the worker receives the complete state again instead.
const MAX_CHANGES: usize = 65_536;

/// Most objects with unsent opens. Opens of others are not counted, which makes eviction slightly less exact.
const MAX_OPENED: usize = 65_536;

/// Most opens in one notice.
const OPENS_IN_ONE: usize = 4_096;

#[derive(Debug, Default)]
struct State {
    /// Generations of views; `None` until they are set.
    in_use: Option<BTreeSet<Generation>>,
    open: HashMap<StreamId, ObjectRef>,
    opened: BTreeMap<ObjectId, u64>,
    changes: Vec<Change>,
    in_use_changed: bool,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Opened(StreamId, ObjectRef),
    Closed(StreamId, ObjectRef),
}

/// What the session sends next.
#[derive(Debug)]
pub(super) enum Next {
    /// These notices.
    Send(Vec<wire::Notice>),
    /// The complete state, on a new stream.
    Everything,
}

/// State and unsent changes.
#[derive(Debug, Default)]
pub(super) struct Notices {
    state: Mutex<State>,
    changed: Notify,
}

impl Notices {
    pub(super) fn in_use(&self, generations: &BTreeSet<Generation>) {
        let mut state = self.state.lock();
        state.in_use = Some(generations.clone());
        state.in_use_changed = true;
        self.changed.notify_one();
    }

    pub(super) fn reading(&self, object: ObjectRef, stream: StreamId) {
        let mut state = self.state.lock();
        state.open.insert(stream, object);
        state.change(Change::Opened(stream, object));
        self.changed.notify_one();
    }

    pub(super) fn closed(&self, object: ObjectRef, stream: StreamId) {
        let mut state = self.state.lock();
        state.open.remove(&stream);
        state.change(Change::Closed(stream, object));
        self.changed.notify_one();
    }

    pub(super) fn opened(&self, opens: &[OpenCount]) {
        let mut state = self.state.lock();
        for OpenCount { id, times } in opens {
            if state.opened.len() < MAX_OPENED || state.opened.contains_key(id) {
                let count = state.opened.entry(*id).or_insert(0);
                *count = count.saturating_add(*times);
            }
        }
        self.changed.notify_one();
    }

    /// Returns the complete state, for a worker that has just started.
    pub(super) fn everything(&self) -> Vec<wire::Notice> {
        let mut state = self.state.lock();
        state.changes.clear();
        let open: Vec<_> = state
            .open
            .iter()
            .map(|(stream, object)| Change::Opened(*stream, *object))
            .collect();
        state.changes.extend(open);
        state.in_use_changed = true;
        state.take()
    }

    /// Waits for changes.
    ///
    /// # Cancel safety
    /// Safe: changes stay queued until they are returned.
    pub(super) async fn next(&self) -> Next {
        loop {
            {
                let mut state = self.state.lock();
                if state.changes.len() >= MAX_CHANGES {
                    return Next::Everything;
                }
                let notices = state.take();
                if !notices.is_empty() {
                    return Next::Send(notices);
                }
            }
            self.changed.notified().await;
        }
    }
}

impl State {
    fn change(&mut self, change: Change) {
        if self.changes.len() < MAX_CHANGES {
            self.changes.push(change);
        }
    }

    fn take(&mut self) -> Vec<wire::Notice> {
        let mut notices = Vec::new();
        let mut push = |kind| notices.push(wire::Notice { notice: Some(kind) });
        if let (true, Some(in_use)) = (self.in_use_changed, &self.in_use) {
            push(Kind::InUse(wire::InUse {
                generations: in_use.iter().map(|generation| generation.0).collect(),
            }));
        }
        self.in_use_changed = false;
        for change in self.changes.drain(..) {
            push(match change {
                Change::Opened(stream, object) => Kind::Reading(wire::Reading {
                    object: Some(object.into()),
                    stream: stream.0,
                }),
                Change::Closed(stream, object) => Kind::Closed(wire::Closed {
                    object: Some(object.into()),
                    stream: stream.0,
                }),
            });
        }
        let opened: Vec<wire::Opens> = std::mem::take(&mut self.opened)
            .into_iter()
            .map(|(id, times)| OpenCount { id, times }.into())
            .collect();
        for opens in opened.chunks(OPENS_IN_ONE) {
            push(Kind::Opened(wire::Opened {
                opens: opens.to_vec(),
            }));
        }
        notices
    }
}

#[cfg(test)]
mod tests {
    use millpond_core::Inode;

    use super::*;

    fn object(byte: u8) -> ObjectRef {
        ObjectRef {
            generation: Generation(1),
            inode: Inode(2),
            id: ObjectId::from_bytes([byte; 16]),
            size_bytes: 3,
        }
    }

    fn texts(notices: Vec<wire::Notice>) -> Vec<String> {
        let word = |notice: wire::Notice| match notice.notice.unwrap() {
            Kind::Hello(_) => "hello".to_owned(),
            Kind::InUse(in_use) => format!("in use {:?}", in_use.generations),
            Kind::Reading(reading) => format!("reading {}", reading.stream),
            Kind::Closed(closed) => format!("closed {}", closed.stream),
            Kind::Opened(opened) => format!(
                "opened {}",
                opened.opens.iter().map(|open| open.times).sum::<u64>()
            ),
            Kind::Released(_) => "released".to_owned(),
        };
        notices.into_iter().map(word).collect()
    }

    #[tokio::test]
    async fn a_worker_receives_changes_and_a_new_one_everything() {
        let notices = Notices::default();
        notices.reading(object(1), StreamId(1));
        notices.reading(object(2), StreamId(2));
        notices.opened(&[OpenCount {
            id: object(1).id,
            times: 2,
        }]);
        notices.opened(&[OpenCount {
            id: object(1).id,
            times: 3,
        }]);
        let Next::Send(first) = notices.next().await else {
            panic!("few changes")
        };
        assert_eq!(texts(first), ["reading 1", "reading 2", "opened 5"]);
        notices.closed(object(1), StreamId(1));
        notices.in_use(&BTreeSet::from([Generation(7)]));
        let Next::Send(second) = notices.next().await else {
            panic!("few changes")
        };
        assert_eq!(texts(second), ["in use [7]", "closed 1"]);
        assert_eq!(texts(notices.everything()), ["in use [7]", "reading 2"]);
    }

    #[tokio::test]
    async fn too_many_changes_are_sent_as_everything() {
        let notices = Notices::default();
        for _ in 0..MAX_CHANGES {
            notices.reading(object(1), StreamId(1));
            notices.closed(object(1), StreamId(1));
        }
        assert!(matches!(notices.next().await, Next::Everything));
        assert!(texts(notices.everything()).is_empty());
    }
}
