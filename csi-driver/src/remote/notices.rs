//! What the worker has to know of this driver: which generations are shown, which files are open, what was opened.
//!
//! It is kept as a state, not as a queue: a worker that has just started is told all of it, and one that is there what
//! changed since. [`Worker::reading`](millpond_core::Worker::reading) and its like are called under locks, so nothing here waits.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use millpond_core::ObjectId;
use millpond_core::{Generation, ObjectRef, OpenCount, StreamId};
use millpond_wire::worker as wire;
use parking_lot::Mutex;
use tokio::sync::Notify;
use wire::notice::Notice as Kind;

/// More changes than that and the worker is told the whole state anew instead.
const MAX_CHANGES: usize = 65_536;

/// Objects whose opens wait to be told. Those of others are not counted: it costs the eviction a bit of its knowledge.
const MAX_OPENED: usize = 65_536;

/// Opens in one notice.
const OPENS_IN_ONE: usize = 4_096;

#[derive(Debug, Default)]
struct State {
    /// `None` until somebody has said it.
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

/// What to tell the worker next.
#[derive(Debug)]
pub(super) enum Next {
    /// This.
    Tell(Vec<wire::Notice>),
    /// Everything, on a new stream.
    Everything,
}

/// See the module's documentation.
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

    /// Everything, for a worker that knows nothing.
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
    /// Safe: changes stay until they are taken by the answer.
    pub(super) async fn next(&self) -> Next {
        loop {
            {
                let mut state = self.state.lock();
                if state.changes.len() >= MAX_CHANGES {
                    return Next::Everything;
                }
                let notices = state.take();
                if !notices.is_empty() {
                    return Next::Tell(notices);
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
        let mut tell = |kind| notices.push(wire::Notice { notice: Some(kind) });
        if let (true, Some(in_use)) = (self.in_use_changed, &self.in_use) {
            tell(Kind::InUse(wire::InUse {
                generations: in_use.iter().map(|generation| generation.0).collect(),
            }));
        }
        self.in_use_changed = false;
        for change in self.changes.drain(..) {
            tell(match change {
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
            tell(Kind::Opened(wire::Opened {
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

    fn told(notices: Vec<wire::Notice>) -> Vec<String> {
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
    async fn a_worker_is_told_what_changed_and_a_new_one_everything() {
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
        let Next::Tell(first) = notices.next().await else {
            panic!("few changes")
        };
        assert_eq!(told(first), ["reading 1", "reading 2", "opened 5"]);
        notices.closed(object(1), StreamId(1));
        notices.in_use(&BTreeSet::from([Generation(7)]));
        let Next::Tell(second) = notices.next().await else {
            panic!("few changes")
        };
        assert_eq!(told(second), ["in use [7]", "closed 1"]);
        assert_eq!(told(notices.everything()), ["in use [7]", "reading 2"]);
    }

    #[tokio::test]
    async fn too_many_changes_are_told_as_everything() {
        let notices = Notices::default();
        for _ in 0..MAX_CHANGES {
            notices.reading(object(1), StreamId(1));
            notices.closed(object(1), StreamId(1));
        }
        assert!(matches!(notices.next().await, Next::Everything));
        assert!(told(notices.everything()).is_empty());
    }
}
