//! Remounts for concurrent callers: all callers that arrive during a round of remounts share the next one.
//!
//! A caller's objects are in the round that begins after its call, so what it unlinked before the call is released when
//! the round is over. The objects of a failed round are in the next one again; so the result of the latest round
//! is valid for all callers that waited for it or for an earlier one.
//!
//! Locks: the round, then the objects of the next one.

use std::sync::Arc;

use millpond_core::ObjectId;
use millpond_core::ReleaseError;
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

/// Enough to find the views that can have resolved them; beyond that number all views are remounted.
const MAX_TRACKED_OBJECTS: usize = 65_536;

/// The objects for which views are remounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReleaseSet {
    /// These alone.
    Objects(Vec<ObjectId>),
    /// Too many to track each.
    All,
}

impl Default for ReleaseSet {
    fn default() -> Self {
        Self::Objects(Vec::new())
    }
}

impl ReleaseSet {
    pub(crate) fn add(&mut self, more: &[ObjectId]) {
        match self {
            Self::Objects(objects) if objects.len().saturating_add(more.len()) <= MAX_TRACKED_OBJECTS => {
                objects.extend_from_slice(more);
            }
            _ => *self = Self::All,
        }
    }

    fn add_all(&mut self, other: Self) {
        match other {
            Self::Objects(objects) => self.add(&objects),
            Self::All => *self = Self::All,
        }
    }
}

#[derive(Debug, Default)]
struct NextRound {
    objects: ReleaseSet,
    /// The number of the round that these objects will be in.
    round: u64,
}

#[derive(Debug, Default)]
struct LastRound {
    /// The rounds below this number are over.
    rounds: u64,
    /// The error of the latest; `None`: it succeeded.
    failure: Option<String>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    next: Mutex<NextRound>,
    done: Arc<AsyncMutex<LastRound>>,
}

impl Rounds {
    /// Waits until a round with `objects` is over; runs it by `remount` unless another caller does.
    ///
    /// # Cancel safety
    /// A round that has begun runs to its end when its caller is dropped, and others wait for it.
    pub(crate) async fn run_or_join<F>(
        self: &Arc<Self>,
        objects: &[ObjectId],
        remount: F,
    ) -> Result<(), ReleaseError>
    where
        F: FnOnce(&ReleaseSet) -> Result<(), String> + Send + 'static,
    {
        let round = {
            let mut next = self.next.lock();
            next.objects.add(objects);
            next.round
        };
        let mut done = Arc::clone(&self.done).lock_owned().await;
        if done.rounds <= round {
            let rounds = Arc::clone(self);
            let run = move || {
                rounds.run(&mut done, remount);
                done
            };
            done = match tokio::task::spawn_blocking(run).await {
                Ok(done) => done,
                Err(error) => {
                    return Err(ReleaseError {
                        reason: error.to_string(),
                    });
                }
            };
        }
        match &done.failure {
            None => Ok(()),
            Some(reason) => Err(ReleaseError {
                reason: reason.clone(),
            }),
        }
    }

    fn run(&self, done: &mut LastRound, remount: impl FnOnce(&ReleaseSet) -> Result<(), String>) {
        let (objects, round) = {
            let mut next = self.next.lock();
            let round = next.round;
            next.round = round.saturating_add(1);
            (std::mem::take(&mut next.objects), round)
        };
        let result = remount(&objects);
        done.rounds = round.saturating_add(1);
        done.failure = result.err();
        if done.failure.is_some() {
            self.next.lock().objects.add_all(objects);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn id(byte: u8) -> ObjectId {
        ObjectId::from_bytes([byte; 16])
    }

    fn ids(objects: &ReleaseSet) -> Vec<ObjectId> {
        match objects {
            ReleaseSet::Objects(objects) => objects.clone(),
            ReleaseSet::All => panic!("few objects are tracked each"),
        }
    }

    #[tokio::test]
    async fn whoever_comes_during_a_round_shares_the_next() {
        let rounds = Arc::new(Rounds::default());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (proceed, wait) = mpsc::sync_channel::<()>(1);
        let remount = |seen: &Arc<Mutex<Vec<_>>>| {
            let seen = Arc::clone(seen);
            move |objects: &ReleaseSet| {
                seen.lock().push(ids(objects));
                Ok(())
            }
        };
        let slow = remount(&seen);
        let objects_1 = [id(1)];
        let first = rounds.run_or_join(&objects_1, move |objects| {
            wait.recv().unwrap();
            slow(objects)
        });
        let (objects_2, objects_3) = ([id(2)], [id(3)]);
        let second = rounds.run_or_join(&objects_2, remount(&seen));
        let third = rounds.run_or_join(&objects_3, remount(&seen));
        tokio::pin!(first, second, third);
        // The first round removes its objects on another thread; the other calls follow that.
        assert!(futures::poll!(&mut first).is_pending());
        while rounds.next.lock().round == 0 {
            tokio::task::yield_now().await;
        }
        assert!(futures::poll!(&mut second).is_pending());
        assert!(futures::poll!(&mut third).is_pending());
        proceed.send(()).unwrap();
        let (first, second, third) = tokio::join!(first, second, third);
        assert!(first.is_ok() && second.is_ok() && third.is_ok());
        assert_eq!(*seen.lock(), [vec![id(1)], vec![id(2), id(3)]]);
    }

    #[tokio::test]
    async fn the_objects_of_a_failed_round_are_in_the_next() {
        let rounds = Arc::new(Rounds::default());
        let failed = rounds.run_or_join(&[id(1)], |_| Err("no".to_owned())).await;
        assert_eq!(failed.unwrap_err().reason, "no");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let also = Arc::clone(&seen);
        let remount = move |objects: &ReleaseSet| {
            also.lock().extend(ids(objects));
            Ok(())
        };
        rounds.run_or_join(&[id(2)], remount).await.unwrap();
        assert_eq!(*seen.lock(), [id(1), id(2)]);
    }

    #[test]
    fn too_many_objects_are_all() {
        let mut objects = ReleaseSet::default();
        objects.add(&vec![id(1); MAX_TRACKED_OBJECTS]);
        assert!(matches!(objects, ReleaseSet::Objects(_)));
        objects.add(&[id(2)]);
        assert_eq!(objects, ReleaseSet::All);
    }
}
