//! Remounts for many callers at once: whoever comes while a round of remounts runs shares the next one.
//!
//! A caller's objects are in the round that begins after its call, so what it unlinked before the call is let go of when
//! the round is over. The objects of a round that failed are in the next one again; so the result of the latest round
//! holds for everybody who waited for it or for an earlier one.
//!
//! Locks: a turn, then the wanted objects.

use std::sync::Arc;

use catalog::ObjectId;
use parking_lot::Mutex;
use protocol::ReleaseError;
use tokio::sync::Mutex as Turn;

/// Enough to see which views can have them; beyond that number all are taken.
const OBJECTS_LOOKED_AT: usize = 65_536;

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
            Self::Objects(objects) if objects.len().saturating_add(more.len()) <= OBJECTS_LOOKED_AT => {
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
struct Coming {
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
    coming: Mutex<Coming>,
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
