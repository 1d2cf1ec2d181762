//! Sessions of one Dataset's drivers: their open files and generations, and release requests to them.
//!
//! A session is a stream of a driver. When it ends the driver may have been killed while pods still read, so the state of
//! the session stays valid for [`SESSION_GRACE`]: the next session of the node reports it again meanwhile, and state that
//! was not reported again by then is dropped.
//!
//! Locks: `state`, never held over a call of the Dataset that may call back into this.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use millpond_core::ObjectId;
use millpond_core::{Generation, ObjectRef, OpenCount, ReleaseError, StreamId, Views, Worker};
use millpond_wire::convert;
use millpond_wire::worker as wire;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use millpond_cache::dataset::Dataset;

/// How long the state of an ended session stays valid: the keeper keeps a killed driver's mounts for 120 s, after which
/// reads fail.
const SESSION_GRACE: Duration = Duration::from_secs(150);

/// Interval of sweeps of expired sessions.
const SESSION_SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Timeout of a release request: enough to remount thousands of views.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(60);

/// Sender of a session's announcements.
pub(super) type Announcements = mpsc::Sender<Result<wire::Announcement, tonic::Status>>;

/// Id of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SessionId(u64);

/// Location of a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DriverLocation {
    /// On this node.
    Here,
    /// On a node without a worker.
    Elsewhere,
}

#[derive(Debug)]
struct Session {
    location: DriverLocation,
    announcements: Announcements,
    in_use: BTreeSet<Generation>,
    releases: HashMap<u64, oneshot::Sender<Result<(), String>>>,
    /// When its stream ended; `None`: it is open.
    ended: Option<Instant>,
}

#[derive(Debug)]
struct Open {
    object: ObjectRef,
    stream: StreamId,
    /// Latest session that reported it.
    session: SessionId,
}

/// Release request that is ready to be sent to a driver.
struct PendingRelease {
    announcements: Announcements,
    announcement: wire::Announcement,
    response: oneshot::Receiver<Result<(), String>>,
}

#[derive(Debug, Default)]
struct State {
    numbers: u64,
    sessions: HashMap<SessionId, Session>,
    /// By the driver's id and its own number of the stream.
    open: HashMap<(u64, u64), Open>,
    /// Streams that were read before they were reported as open.
    early: HashMap<(u64, u64), StreamId>,
}

/// Sessions of one Dataset's drivers.
#[derive(Debug)]
pub struct Drivers {
    dataset: OnceLock<Weak<Dataset>>,
    state: Mutex<State>,
    /// Before this, drivers of the previous worker may not have reconnected.
    complete_from: Instant,
    stop: CancellationToken,
}

impl Default for Drivers {
    fn default() -> Self {
        Self {
            dataset: OnceLock::new(),
            state: Mutex::default(),
            complete_from: Instant::now() + SESSION_GRACE,
            stop: CancellationToken::new(),
        }
    }
}

impl Drivers {
    /// Sets the Dataset that receives the drivers' notices.
    pub fn connect(&self, dataset: &Arc<Dataset>) {
        // Connected once, by the task that opened it.
        let _again = self.dataset.set(Arc::downgrade(dataset));
    }

    /// Sweeps expired sessions periodically. Never returns.
    pub async fn run(&self) {
        let mut interval = tokio::time::interval(SESSION_SWEEP_INTERVAL);
        loop {
            interval.tick().await;
            self.sweep(Instant::now());
        }
    }

    /// Ends all sessions, also later ones: the Dataset is closed.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until [`Self::stop`] is called.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Returns the number of open sessions.
    pub fn session_count(&self) -> usize {
        let state = self.state.lock();
        state
            .sessions
            .values()
            .filter(|session| session.ended.is_none())
            .count()
    }

    /// Returns whether any driver has an object open through FUSE.
    pub fn is_open(&self, id: ObjectId) -> bool {
        let state = self.state.lock();
        state.open.values().any(|open| open.object.id == id)
    }

    pub(super) fn open_session(&self, location: DriverLocation, announcements: Announcements) -> SessionId {
        let mut state = self.state.lock();
        let id = SessionId(state.number());
        let session = Session {
            location,
            announcements,
            in_use: BTreeSet::new(),
            releases: HashMap::new(),
            ended: None,
        };
        state.sessions.insert(id, session);
        id
    }

    /// Marks a session as ended.
    pub(super) fn close_session(&self, id: SessionId) {
        let mut state = self.state.lock();
        if let Some(session) = state.sessions.get_mut(&id) {
            session.ended = Some(Instant::now());
            // Pending release requests fail.
            session.releases.clear();
        }
    }

    /// Handles one notice of the driver `driver`.
    ///
    /// # Errors
    /// If it is invalid.
    pub(super) fn handle_notice(
        &self,
        id: SessionId,
        driver: u64,
        notice: wire::notice::Notice,
    ) -> Result<(), convert::InvalidMessage> {
        use wire::notice::Notice;
        match notice {
            Notice::Hello(_) => {}
            Notice::InUse(wire::InUse { generations }) => {
                if let Some(session) = self.state.lock().sessions.get_mut(&id) {
                    session.in_use = generations.into_iter().map(Generation).collect();
                }
                self.retain_generations_in_use(Instant::now());
            }
            Notice::Reading(wire::Reading { object, stream }) => {
                self.file_opened(id, (driver, stream), convert::object(object)?);
            }
            Notice::Closed(wire::Closed { object, stream }) => {
                self.file_closed((driver, stream), convert::object(object)?);
            }
            Notice::Opened(wire::Opened { opens }) => {
                let opens: Vec<OpenCount> = opens.iter().map(convert::opens).collect::<Result<_, _>>()?;
                if let Some(dataset) = self.dataset() {
                    dataset.count_kernel_opens(&opens);
                }
            }
            Notice::Released(wire::Released { round, failure }) => {
                let waiting = {
                    let mut state = self.state.lock();
                    let session = state.sessions.get_mut(&id);
                    session.and_then(|session| session.releases.remove(&round))
                };
                if let Some(waiting) = waiting {
                    let result = if failure.is_empty() { Ok(()) } else { Err(failure) };
                    // The waiter may have timed out.
                    let _timed_out = waiting.send(result);
                }
            }
        }
        Ok(())
    }

    /// Returns the Dataset's id for a driver's stream.
    pub(super) fn stream(&self, driver: u64, stream: u64) -> StreamId {
        let mut state = self.state.lock();
        let key = (driver, stream);
        if let Some(open) = state.open.get(&key) {
            return open.stream;
        }
        if let Some(stream) = state.early.get(&key) {
            return *stream;
        }
        let id = StreamId(state.number());
        state.early.insert(key, id);
        id
    }

    fn file_opened(&self, session: SessionId, key: (u64, u64), object: ObjectRef) {
        let stream = {
            let mut state = self.state.lock();
            if let Some(open) = state.open.get_mut(&key) {
                open.session = session;
                return;
            }
            let stream = match state.early.remove(&key) {
                Some(stream) => stream,
                None => StreamId(state.number()),
            };
            let open = Open {
                object,
                stream,
                session,
            };
            state.open.insert(key, open);
            stream
        };
        if let Some(dataset) = self.dataset() {
            dataset.file_opened(object, stream, None);
        }
    }

    fn file_closed(&self, key: (u64, u64), object: ObjectRef) {
        let stream = {
            let mut state = self.state.lock();
            let early = state.early.remove(&key);
            state.open.remove(&key).map(|open| open.stream).or(early)
        };
        if let (Some(stream), Some(dataset)) = (stream, self.dataset()) {
            dataset.file_closed(object, stream);
        }
    }

    fn sweep(&self, now: Instant) {
        let closed: Vec<Open> = {
            let mut state = self.state.lock();
            let State { sessions, open, .. } = &mut *state;
            sessions.retain(|_, session| session.ended.is_none_or(|ended| ended + SESSION_GRACE > now));
            open.extract_if(|_, open| !sessions.contains_key(&open.session))
                .map(|(_, open)| open)
                .collect()
        };
        if let Some(dataset) = self.dataset() {
            for Open { object, stream, .. } in closed {
                dataset.file_closed(object, stream);
            }
        }
        self.retain_generations_in_use(now);
    }

    fn retain_generations_in_use(&self, now: Instant) {
        if now < self.complete_from {
            return;
        }
        let in_use: BTreeSet<Generation> = {
            let state = self.state.lock();
            state
                .sessions
                .values()
                .flat_map(|session| session.in_use.iter().copied())
                .collect()
        };
        if let Some(dataset) = self.dataset() {
            dataset.retain_generations(&in_use);
        }
    }

    fn dataset(&self) -> Option<Arc<Dataset>> {
        self.dataset.get()?.upgrade()
    }

    /// Registers a release request with every driver of this node.
    fn request_release(&self, unlinked: &[ObjectId]) -> Vec<PendingRelease> {
        let ids: Vec<_> = unlinked.iter().map(|id| convert::id_bytes(*id)).collect();
        let mut state = self.state.lock();
        let round = state.number();
        let here = state
            .sessions
            .values_mut()
            .filter(|session| session.location == DriverLocation::Here && session.ended.is_none());
        here.map(|session| {
            let (sender, response) = oneshot::channel();
            session.releases.insert(round, sender);
            let release = wire::Release {
                round,
                ids: ids.clone(),
            };
            let announcement = wire::Announcement {
                announcement: Some(wire::announcement::Announcement::Release(release)),
            };
            PendingRelease {
                announcements: session.announcements.clone(),
                announcement,
                response,
            }
        })
        .collect()
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}

#[async_trait]
impl Views for Drivers {
    async fn release(&self, unlinked: &[ObjectId]) -> Result<(), ReleaseError> {
        let mut requests = JoinSet::new();
        for PendingRelease {
            announcements,
            announcement,
            response,
        } in self.request_release(unlinked)
        {
            requests.spawn(async move {
                if announcements.send(Ok(announcement)).await.is_err() {
                    return Err("a driver disconnected".to_owned());
                }
                match tokio::time::timeout(RELEASE_TIMEOUT, response).await {
                    Ok(Ok(result)) => result,
                    Ok(Err(_disconnected)) => Err("a driver disconnected".to_owned()),
                    Err(_elapsed) => Err("a driver did not respond in time".to_owned()),
                }
            });
        }
        if requests.is_empty() {
            // Its views may exist nevertheless.
            return Err(ReleaseError {
                reason: "no driver of this node attends".to_owned(),
            });
        }
        while let Some(result) = requests.join_next().await {
            let result = result.unwrap_or_else(|error| Err(error.to_string()));
            result.map_err(|reason| ReleaseError { reason })?;
        }
        Ok(())
    }
}
