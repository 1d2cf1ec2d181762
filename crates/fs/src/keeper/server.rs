//! The keeper's side.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{info, warn};

use super::absence::Limit;
use super::message::{Answer, KeeperError, Request, receive, send};
use crate::mount::abort_fuse_connection;
use crate::peer::pair;

/// Longest sleep of the holder's thread, in case the clock is far away.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// What a supervisor wants to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The mounts that are kept.
    pub mounts: Vec<String>,
    /// A server is connected and serves.
    pub ready: bool,
    /// The connected server ends on purpose.
    pub stopping: bool,
    /// How often mounts were given up because no server came in time.
    pub aborted: u64,
}

/// Holds the descriptors of mounts for servers that come and go. One thread; it ends when this is dropped, and
/// the descriptors are closed with it.
#[derive(Debug)]
pub struct KeeperServer {
    inbox: Arc<Inbox>,
    status: watch::Receiver<Status>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Inbox {
    new: Mutex<Vec<OwnedFd>>,
    /// Closed by the holder's owner to end the thread; written to wake it.
    wake: Mutex<Option<OwnedFd>>,
}

struct KeptMount {
    connection: u32,
    note: String,
    device: OwnedFd,
    table: OwnedFd,
    /// The number of the server that serves it; `None`: it is gone.
    server: Option<u64>,
}

struct Server {
    number: u64,
    socket: OwnedFd,
    ready: bool,
    stopping: bool,
    /// The mount that it waits for.
    wants: Option<String>,
}

struct KeeperLoop {
    inbox: Arc<Inbox>,
    woken: OwnedFd,
    mounts: BTreeMap<String, KeptMount>,
    servers: Vec<Server>,
    numbers: u64,
    limit: Limit,
    aborted: u64,
    status: watch::Sender<Status>,
}

impl KeeperServer {
    /// Starts holding. `limit` is how long a mount may be without a server before its connection is aborted.
    ///
    /// # Errors
    /// When the thread or its socket cannot be made.
    pub fn start(limit: Duration) -> io::Result<Self> {
        let (wake, woken) = pair()?;
        let inbox = Arc::new(Inbox {
            new: Mutex::default(),
            wake: Mutex::new(Some(wake)),
        });
        let (sender, status) = watch::channel(Status::default());
        let keeping = KeeperLoop {
            inbox: Arc::clone(&inbox),
            woken,
            mounts: BTreeMap::new(),
            servers: Vec::new(),
            numbers: 0,
            limit: Limit::new(limit),
            aborted: 0,
            status: sender,
        };
        let thread = std::thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || keeping.run())?;
        Ok(Self {
            inbox,
            status,
            thread: Some(thread),
        })
    }

    /// A socket for a server that is about to be started: give it to the process as its standard input.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn socket(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = pair()?;
        self.accept(ours)?;
        Ok(theirs)
    }

    /// Takes in a server that has connected over `socket`.
    ///
    /// # Errors
    /// When the thread cannot be woken.
    pub fn accept(&self, socket: OwnedFd) -> io::Result<()> {
        self.inbox.new.lock().push(socket);
        if let Some(wake) = &*self.inbox.wake.lock() {
            rustix::io::write(wake, &[1])?;
        }
        Ok(())
    }

    /// What is kept and who serves, now and whenever it changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }
}

impl Drop for KeeperServer {
    fn drop(&mut self) {
        self.inbox.wake.lock().take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the keeper's thread had panicked");
        }
    }
}

impl KeeperLoop {
    fn run(mut self) {
        loop {
            self.limit.update(self.waits(), Instant::now());
            self.publish();
            let (woken, speaking) = match self.wait() {
                Ok(events) => events,
                Err(error) => {
                    warn!(%error, "the keeper failed to wait for its servers");
                    return;
                }
            };
            if woken && !self.take_in() {
                return;
            }
            for number in speaking {
                self.hear(number);
            }
            if self.limit.is_over(Instant::now()) {
                self.abort();
            }
        }
    }

    /// Whether mounts are kept that nobody serves.
    fn waits(&self) -> bool {
        !self.mounts.values().all(|kept| self.is_served(kept))
    }

    fn is_served(&self, kept: &KeptMount) -> bool {
        kept.server.is_some_and(|number| {
            self.servers
                .iter()
                .any(|server| server.number == number && server.ready)
        })
    }

    fn wait(&self) -> io::Result<(bool, Vec<u64>)> {
        let mut polled = vec![PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
        polled.extend(
            self.servers
                .iter()
                .map(|server| PollFd::new(server.socket.as_fd(), PollFlags::POLLIN)),
        );
        let wait = self.limit.left(Instant::now()).unwrap_or(MAX_WAIT).min(MAX_WAIT);
        // Rounded up, so that the time is over afterwards.
        let millis = u16::try_from(wait.as_millis().saturating_add(1)).unwrap_or(u16::MAX);
        match nix::poll::poll(&mut polled, PollTimeout::from(millis)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = polled.iter().map(|polled| polled.any().unwrap_or(false));
        let woken = ready.next().unwrap_or(false);
        let speaking = ready
            .zip(&self.servers)
            .filter(|(ready, _)| *ready)
            .map(|(_, server)| server.number);
        Ok((woken, speaking.collect()))
    }

    /// Takes in new servers. `false`: the owner is gone.
    fn take_in(&mut self) -> bool {
        let mut bytes = [0; 16];
        match rustix::io::read(&self.woken, &mut bytes) {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
        for socket in std::mem::take(&mut *self.inbox.new.lock()) {
            self.numbers += 1;
            self.servers.push(Server {
                number: self.numbers,
                socket,
                ready: false,
                stopping: false,
                wants: None,
            });
        }
        true
    }

    fn hear(&mut self, number: u64) {
        let Some(server) = self.servers.iter().find(|server| server.number == number) else {
            return;
        };
        match receive::<Request>(&server.socket) {
            Ok((request, descriptors)) => self.serve(number, request, descriptors),
            Err(KeeperError::Closed) => self.disconnect(number),
            Err(error) => {
                warn!(%error, "a server speaks in riddles");
                self.answer(
                    number,
                    &Answer::Refused {
                        reason: error.to_string(),
                    },
                );
            }
        }
    }

    fn serve(&mut self, number: u64, request: Request, descriptors: Vec<OwnedFd>) {
        let answer = match request {
            Request::Give {
                mount,
                connection,
                note,
            } => self.take_care(number, mount, connection, note, descriptors),
            Request::Take { mount } => {
                if let Some(server) = self.server(number) {
                    server.wants = Some(mount);
                }
                return self.hand_over();
            }
            Request::Drop { mount } => {
                self.mounts.remove(&mount);
                Answer::Done
            }
            Request::Ready => {
                if let Some(server) = self.server(number) {
                    server.ready = true;
                }
                Answer::Done
            }
            Request::Stopping => {
                if let Some(server) = self.server(number) {
                    server.stopping = true;
                }
                Answer::Done
            }
        };
        self.limit.update(self.waits(), Instant::now());
        self.publish();
        self.answer(number, &answer);
    }

    fn take_care(
        &mut self,
        number: u64,
        mount: String,
        connection: u32,
        note: String,
        descriptors: Vec<OwnedFd>,
    ) -> Answer {
        let Ok([device, table]) = <[OwnedFd; 2]>::try_from(descriptors) else {
            return Answer::Refused {
                reason: "a mount is two descriptors".to_owned(),
            };
        };
        if self
            .mounts
            .get(&mount)
            .is_some_and(|kept| kept.server.is_some_and(|server| server != number))
        {
            return Answer::Refused {
                reason: "another server serves this mount".to_owned(),
            };
        }
        self.mounts.insert(
            mount,
            KeptMount {
                connection,
                note,
                device,
                table,
                server: Some(number),
            },
        );
        Answer::Done
    }

    /// Answers the servers that wait for mounts which nobody serves any more.
    fn hand_over(&mut self) {
        let waiting: Vec<(u64, String)> = self
            .servers
            .iter()
            .filter_map(|server| Some((server.number, server.wants.clone()?)))
            .collect();
        for (number, mount) in waiting {
            let answer = match self.mounts.get_mut(&mount) {
                Some(kept) if kept.server.is_some_and(|server| server != number) => continue,
                Some(kept) => {
                    kept.server = Some(number);
                    Answer::Kept {
                        note: kept.note.clone(),
                    }
                }
                None => Answer::Nothing,
            };
            if let Some(server) = self.server(number) {
                server.wants = None;
            }
            self.answer_with(
                number,
                &answer,
                matches!(answer, Answer::Kept { .. }).then_some(&mount),
            );
        }
    }

    fn disconnect(&mut self, number: u64) {
        self.servers.retain(|server| server.number != number);
        for kept in self.mounts.values_mut() {
            if kept.server == Some(number) {
                kept.server = None;
            }
        }
        self.hand_over();
    }

    fn abort(&mut self) {
        let (served, waiting) = std::mem::take(&mut self.mounts)
            .into_iter()
            .partition(|(_, kept)| self.is_served(kept));
        self.mounts = served;
        let waiting: BTreeMap<_, _> = waiting;
        for (mount, kept) in waiting {
            match abort_fuse_connection(kept.connection) {
                Ok(()) => info!(%mount, "no server came in time: the mount's connection is aborted"),
                Err(error) => warn!(%mount, %error, "failed to abort a mount's connection"),
            }
            // With the last descriptor the connection ends in any case.
            drop((kept.device, kept.table));
        }
        self.aborted += 1;
    }

    fn answer(&mut self, number: u64, answer: &Answer) {
        self.answer_with(number, answer, None);
    }

    fn answer_with(&self, number: u64, answer: &Answer, mount: Option<&String>) {
        let Some(server) = self.servers.iter().find(|server| server.number == number) else {
            return;
        };
        let kept = mount.and_then(|mount| self.mounts.get(mount));
        let descriptors: Vec<_> = kept
            .map(|kept| vec![kept.device.as_fd(), kept.table.as_fd()])
            .unwrap_or_default();
        if let Err(error) = send(&server.socket, answer, &descriptors) {
            // Its end shows as a closed socket next.
            warn!(%error, "failed to answer a server");
        }
    }

    fn server(&mut self, number: u64) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.number == number)
    }

    fn publish(&self) {
        let status = Status {
            mounts: self.mounts.keys().cloned().collect(),
            ready: self.servers.iter().any(|server| server.ready),
            stopping: self.servers.iter().any(|server| server.stopping),
            aborted: self.aborted,
        };
        self.status.send_if_modified(|known| {
            let changed = *known != status;
            *known = status;
            changed
        });
    }
}
