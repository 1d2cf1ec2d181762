//! The keeper's side of its protocol.

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

use super::absence::Absence;
use super::message::{KeeperError, Request, Response, receive, send};
use crate::mount::abort_fuse_connection;
use crate::peer::pair;

/// The longest sleep of the keeper's thread.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The keeper's state, for a supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The registered mounts.
    pub mounts: Vec<String>,
    /// Whether a server is connected and serves.
    pub ready: bool,
    /// Whether the connected server exits on purpose.
    pub stopping: bool,
    /// How often mounts were aborted because no server connected in time.
    pub aborted: u64,
}

/// Holds the descriptors of mounts across restarts of their servers. One thread; it ends when this is dropped, and
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
    /// Closed by the owner to end the thread; written to wake it.
    wake: Mutex<Option<OwnedFd>>,
}

struct KeptMount {
    connection: u32,
    note: String,
    device: OwnedFd,
    table: OwnedFd,
    /// The number of the server that serves it; `None`: it has disconnected.
    server: Option<u64>,
}

struct Server {
    number: u64,
    socket: OwnedFd,
    ready: bool,
    stopping: bool,
    /// The mount that it waits for.
    waits_for: Option<String>,
}

struct KeeperLoop {
    inbox: Arc<Inbox>,
    woken: OwnedFd,
    mounts: BTreeMap<String, KeptMount>,
    servers: Vec<Server>,
    numbers: u64,
    absence: Absence,
    aborted: u64,
    status: watch::Sender<Status>,
}

impl KeeperServer {
    /// Starts the keeper. `timeout` is how long a mount may be without a server before its connection is aborted.
    ///
    /// # Errors
    /// The thread or its socket cannot be created.
    pub fn start(timeout: Duration) -> io::Result<Self> {
        let (wake, woken) = pair()?;
        let inbox = Arc::new(Inbox {
            new: Mutex::default(),
            wake: Mutex::new(Some(wake)),
        });
        let (sender, status) = watch::channel(Status::default());
        let keeper = KeeperLoop {
            inbox: Arc::clone(&inbox),
            woken,
            mounts: BTreeMap::new(),
            servers: Vec::new(),
            numbers: 0,
            absence: Absence::new(timeout),
            aborted: 0,
            status: sender,
        };
        let thread = std::thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || keeper.run())?;
        Ok(Self {
            inbox,
            status,
            thread: Some(thread),
        })
    }

    /// Creates the socket of a server that is about to start: the standard input of its process.
    ///
    /// # Errors
    /// No socket can be created.
    pub fn socket(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = pair()?;
        self.accept(ours)?;
        Ok(theirs)
    }

    /// Accepts a server that has connected over `socket`.
    ///
    /// # Errors
    /// The thread cannot be woken.
    pub fn accept(&self, socket: OwnedFd) -> io::Result<()> {
        self.inbox.new.lock().push(socket);
        if let Some(wake) = &*self.inbox.wake.lock() {
            rustix::io::write(wake, &[1])?;
        }
        Ok(())
    }

    /// The state, now and whenever it changes.
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
            warn!("the keeper's thread panicked");
        }
    }
}

impl KeeperLoop {
    fn run(mut self) {
        loop {
            self.absence.update(self.is_waiting(), Instant::now());
            self.publish();
            let (woken, readable) = match self.wait() {
                Ok(events) => events,
                Err(error) => {
                    warn!(%error, "failed to poll the servers; the keeper stops");
                    return;
                }
            };
            if woken && !self.accept() {
                return;
            }
            for number in readable {
                self.handle_message(number);
            }
            if self.absence.is_over(Instant::now()) {
                self.abort();
            }
        }
    }

    /// Returns whether a mount has no server.
    fn is_waiting(&self) -> bool {
        !self.mounts.values().all(|held| self.is_served(held))
    }

    fn is_served(&self, held: &KeptMount) -> bool {
        held.server.is_some_and(|number| {
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
        let wait = self
            .absence
            .remaining(Instant::now())
            .unwrap_or(MAX_WAIT)
            .min(MAX_WAIT);
        // Rounded up, so that the timeout has elapsed afterwards.
        let millis = u16::try_from(wait.as_millis().saturating_add(1)).unwrap_or(u16::MAX);
        match nix::poll::poll(&mut polled, PollTimeout::from(millis)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = polled.iter().map(|polled| polled.any().unwrap_or(false));
        let woken = ready.next().unwrap_or(false);
        let readable = ready
            .zip(&self.servers)
            .filter(|(ready, _)| *ready)
            .map(|(_, server)| server.number);
        Ok((woken, readable.collect()))
    }

    /// Accepts new servers; `false`: the owner has dropped the keeper.
    fn accept(&mut self) -> bool {
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
                waits_for: None,
            });
        }
        true
    }

    fn handle_message(&mut self, number: u64) {
        let Some(server) = self.servers.iter().find(|server| server.number == number) else {
            return;
        };
        match receive::<Request>(&server.socket) {
            Ok((request, descriptors)) => self.serve(number, request, descriptors),
            Err(KeeperError::Closed) => self.disconnect(number),
            Err(error) => {
                warn!(%error, "invalid message from the server; request refused");
                self.respond(
                    number,
                    &Response::Refused {
                        reason: error.to_string(),
                    },
                );
            }
        }
    }

    fn serve(&mut self, number: u64, request: Request, descriptors: Vec<OwnedFd>) {
        let response = match request {
            Request::Register {
                mount,
                connection,
                note,
            } => self.register(number, mount, connection, note, descriptors),
            Request::TakeOver { mount } => {
                if let Some(server) = self.server(number) {
                    server.waits_for = Some(mount);
                }
                return self.hand_over();
            }
            Request::Unregister { mount } => {
                self.mounts.remove(&mount);
                Response::Done
            }
            Request::Ready => {
                if let Some(server) = self.server(number) {
                    server.ready = true;
                }
                Response::Done
            }
            Request::Stopping => {
                if let Some(server) = self.server(number) {
                    server.stopping = true;
                }
                Response::Done
            }
        };
        self.absence.update(self.is_waiting(), Instant::now());
        self.publish();
        self.respond(number, &response);
    }

    fn register(
        &mut self,
        number: u64,
        mount: String,
        connection: u32,
        note: String,
        descriptors: Vec<OwnedFd>,
    ) -> Response {
        let Ok([device, table]) = <[OwnedFd; 2]>::try_from(descriptors) else {
            return Response::Refused {
                reason: "a mount has two descriptors".to_owned(),
            };
        };
        if self
            .mounts
            .get(&mount)
            .is_some_and(|held| held.server.is_some_and(|server| server != number))
        {
            return Response::Refused {
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
        Response::Done
    }

    /// Hands over mounts without a server to the servers that wait for them.
    fn hand_over(&mut self) {
        let waiting: Vec<(u64, String)> = self
            .servers
            .iter()
            .filter_map(|server| Some((server.number, server.waits_for.clone()?)))
            .collect();
        for (number, mount) in waiting {
            let response = match self.mounts.get_mut(&mount) {
                Some(held) if held.server.is_some_and(|server| server != number) => continue,
                Some(held) => {
                    held.server = Some(number);
                    Response::Mount {
                        note: held.note.clone(),
                    }
                }
                None => Response::Nothing,
            };
            if let Some(server) = self.server(number) {
                server.waits_for = None;
            }
            self.respond_with(
                number,
                &response,
                matches!(response, Response::Mount { .. }).then_some(&mount),
            );
        }
    }

    fn disconnect(&mut self, number: u64) {
        self.servers.retain(|server| server.number != number);
        for held in self.mounts.values_mut() {
            if held.server == Some(number) {
                held.server = None;
            }
        }
        self.hand_over();
    }

    fn abort(&mut self) {
        let (served, waiting) = std::mem::take(&mut self.mounts)
            .into_iter()
            .partition(|(_, held)| self.is_served(held));
        self.mounts = served;
        let waiting: BTreeMap<_, _> = waiting;
        for (mount, held) in waiting {
            match abort_fuse_connection(held.connection) {
                Ok(()) => {
                    info!(%mount, "no server within the timeout; connection aborted, reads of its mount fail")
                }
                Err(error) => {
                    warn!(%mount, %error, "failed to abort a mount's connection; it ends with its last descriptor")
                }
            }
            // With the last descriptor the connection ends in any case.
            drop((held.device, held.table));
        }
        self.aborted += 1;
    }

    fn respond(&mut self, number: u64, response: &Response) {
        self.respond_with(number, response, None);
    }

    fn respond_with(&self, number: u64, response: &Response, mount: Option<&String>) {
        let Some(server) = self.servers.iter().find(|server| server.number == number) else {
            return;
        };
        let held = mount.and_then(|mount| self.mounts.get(mount));
        let descriptors: Vec<_> = held
            .map(|held| vec![held.device.as_fd(), held.table.as_fd()])
            .unwrap_or_default();
        if let Err(error) = send(&server.socket, response, &descriptors) {
            // The next poll finds its socket closed.
            warn!(%error, "failed to respond to a server");
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
