//! Remounts for many callers at once: whoever comes while a round of remounts runs shares the next one.
//!
//! A caller's objects are in the round that begins after its call, so what it unlinked before the call is let go of when
//! the round is over. The objects of a round that failed are in the next one again; so the result of the latest round
//! holds for everybody who waited for it or for an earlier one.
//!
//! Locks: a turn, then the wanted objects.

use std::sync::Arc;

use millpond_core::ObjectId;
use millpond_core::ReleaseError;
use parking_lot::Mutex;
use tokio::sync::Mutex as Turn;

/// Enough to see which views can have them; beyond that number all are taken.
const MAX_TRACKED_OBJECTS: usize = 65_536;

/// Which objects views have to look up anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// These.
    Objects(Vec<ObjectId>),
    /// Too many to look at each.
    All,
}

impl Default for Wanted {
    fn default() -> Self {
        Self::Objects(Vec::new())
    }
}

impl Wanted {
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
    wanted: Wanted,
    /// The number of the round that these objects will be in.
    round: u64,
}

#[derive(Debug, Default)]
struct Done {
    /// The rounds below this number are over.
    rounds: u64,
    /// Why the latest failed; `None` where it did not.
    failure: Option<String>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    coming: Mutex<NextRound>,
    done: Arc<Turn<Done>>,
}

impl Rounds {
    /// Waits until a round with `objects` is over, running it by `remount` if nobody else does.
    ///
    /// # Cancel safety
    /// A round that has begun goes on to its end when its caller is dropped, and others wait for it.
    pub(crate) async fn take_part<F>(
        self: &Arc<Self>,
        objects: &[ObjectId],
        remount: F,
    ) -> Result<(), ReleaseError>
    where
        F: FnOnce(&Wanted) -> Result<(), String> + Send + 'static,
    {
        let round = {
            let mut coming = self.coming.lock();
            coming.wanted.add(objects);
            coming.round
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

    fn run(&self, done: &mut Done, remount: impl FnOnce(&Wanted) -> Result<(), String>) {
        let (wanted, round) = {
            let mut coming = self.coming.lock();
            let round = coming.round;
            coming.round = round.saturating_add(1);
            (std::mem::take(&mut coming.wanted), round)
        };
        let result = remount(&wanted);
        done.rounds = round.saturating_add(1);
        done.failure = result.err();
        if done.failure.is_some() {
            self.coming.lock().wanted.add_all(wanted);
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

    fn objects(wanted: &Wanted) -> Vec<ObjectId> {
        match wanted {
            Wanted::Objects(objects) => objects.clone(),
            Wanted::All => panic!("few objects are looked at each"),
        }
    }

    #[tokio::test]
    async fn whoever_comes_during_a_round_shares_the_next() {
        let rounds = Arc::new(Rounds::default());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (go_on, wait) = mpsc::sync_channel::<()>(1);
        let remount = |seen: &Arc<Mutex<Vec<_>>>| {
            let seen = Arc::clone(seen);
            move |wanted: &Wanted| {
                seen.lock().push(objects(wanted));
                Ok(())
            }
        };
        let slow = remount(&seen);
        let objects_1 = [id(1)];
        let first = rounds.take_part(&objects_1, move |wanted| {
            wait.recv().unwrap();
            slow(wanted)
        });
        let (objects_2, objects_3) = ([id(2)], [id(3)]);
        let second = rounds.take_part(&objects_2, remount(&seen));
        let third = rounds.take_part(&objects_3, remount(&seen));
        tokio::pin!(first, second, third);
        // The first round takes its objects on another thread; the others come after that.
        assert!(futures::poll!(&mut first).is_pending());
        while rounds.coming.lock().round == 0 {
            tokio::task::yield_now().await;
        }
        assert!(futures::poll!(&mut second).is_pending());
        assert!(futures::poll!(&mut third).is_pending());
        go_on.send(()).unwrap();
        let (first, second, third) = tokio::join!(first, second, third);
        assert!(first.is_ok() && second.is_ok() && third.is_ok());
        assert_eq!(*seen.lock(), [vec![id(1)], vec![id(2), id(3)]]);
    }

    #[tokio::test]
    async fn the_objects_of_a_failed_round_are_in_the_next() {
        let rounds = Arc::new(Rounds::default());
        let failed = rounds.take_part(&[id(1)], |_| Err("no".to_owned())).await;
        assert_eq!(failed.unwrap_err().reason, "no");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let also = Arc::clone(&seen);
        let remount = move |wanted: &Wanted| {
            also.lock().extend(objects(wanted));
            Ok(())
        };
        rounds.take_part(&[id(2)], remount).await.unwrap();
        assert_eq!(*seen.lock(), [id(1), id(2)]);
    }

    #[test]
    fn too_many_objects_are_all() {
        let mut wanted = Wanted::default();
        wanted.add(&vec![id(1); MAX_TRACKED_OBJECTS]);
        assert!(matches!(wanted, Wanted::Objects(_)));
        wanted.add(&[id(2)]);
        assert_eq!(wanted, Wanted::All);
    }
}
