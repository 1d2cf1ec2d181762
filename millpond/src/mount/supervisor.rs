//! The process that keeps a mount alive, and does little else.
//!
//! It holds the FUSE descriptors (it is the keeper), makes the mounts that the server cannot make itself (it is the
//! mounter), starts the server again when it dies, obeys [`SupervisorCommand`]s, and takes the mount away on SIGTERM, SIGINT, SIGHUP or
//! when somebody unmounted the directory. Its threads are four: this one, the keeper's, the mounter's, which knows nothing
//! of the FUSE descriptors, and one that sleeps until mounts change.
//!
//! - A server that is killed is replaced at once; one that does not come up after longer and longer waits. Where none
//!   is ready for two minutes the keeper aborts the connection, and no further server is started: what is cached can
//!   still be read in the kernel view, the rest is an error.
//! - An upgrade asks the server to leave (SIGUSR1), starts the other program, and the old one again if that one does
//!   not come up.
//! - The first server's failure is the mount's.
//! - It may be killed itself: its server then serves on as an [`orphan`](super::orphan).

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{ExitCode, ExitStatus};

use anyhow::{Context, Result, bail};
use millpond_fs::keeper::{KeeperServer, Status};
use millpond_fs::mount::MountTable;
use millpond_fs::mounter;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Sleep;
use tracing::{error, info, warn};

use super::absence_timeout::successor_limit;
use super::child::{ServerEvent, ServerProcess};
use super::cleanup::{self, UnmountMode};
use super::mount_watch::MountChanges;
use super::readiness::{self, EXIT_CONFIG, Report};
use super::restart::{Decision, End, Restarts};
use super::run_directory::{CacheDirectoryLock, Place};
use super::spec::Spec;
use super::start::{SELF, bound_log, name_process};
use super::supervisor_command::{self, CommandResult, SupervisorCommand, answer};
use super::upgrade::{AfterEnd, Upgrade};

/// Runs the supervisor of the mount in `run_directory`.
pub(crate) fn run(run_directory: &Path, foreground: bool) -> Result<ExitCode> {
    name_process();
    millpond_process::telemetry::init(&millpond_process::telemetry::TelemetryOptions::default())?;
    if !foreground {
        rustix::process::setsid().context("failed to leave the terminal")?;
    }
    let place = Place::at(run_directory);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the supervisor")?;
    let result = runtime.block_on(async {
        let supervisor = Supervisor::new(place.clone(), foreground)?;
        supervisor.run().await
    });
    if let Err(error) = &result
        && !foreground
    {
        // Whoever waits shall know; the error itself goes to the log.
        let _gone = readiness::tell(&Report::Failed {
            reason: format!("{error:#}"),
        });
    }
    cleanup::remove(&place)?;
    result
}

struct Supervisor {
    place: Place,
    spec: Spec,
    holder: KeeperServer,
    status: watch::Receiver<Status>,
    orders: UnixListener,
    mounts: MountChanges,
    restarts: Restarts,
    server: Option<ServerProcess>,
    /// When the next server is started; `None`: when this one has ended, or never.
    restart: Option<Pin<Box<Sleep>>>,
    /// The program of the servers.
    binary: PathBuf,
    upgrade: Option<Upgrade>,
    /// Servers started so far.
    started: u64,
    /// The device number of what is shown, once it is.
    shown: Option<u64>,
    /// Somebody still waits for the first server.
    awaited: bool,
    /// No further server is started.
    given_up: bool,
    /// Held as long as this process lives.
    cache: CacheDirectoryLock,
}

/// What happened.
enum Event {
    Signal,
    Server(ServerEvent),
    Order(UnixStream),
    Mounts,
    Restart,
    UpgradeLate,
    Aborted,
}

/// How it goes on.
enum Next {
    GoOn,
    /// There will be no mount.
    Failed(String),
    /// The mount is to be taken away; the client who asked for it is told when it is.
    End(Option<UnixStream>),
}

impl Supervisor {
    fn new(place: Place, foreground: bool) -> Result<Self> {
        // First: what is opened from here on its threads do not hold.
        mounter::start(&place.mounter()).context("failed to start the mounter")?;
        let spec = Spec::read(&place.spec())?;
        std::fs::write(place.pid(), std::process::id().to_string())
            .with_context(|| format!("failed to write {}", place.pid().display()))?;
        let cache = CacheDirectoryLock::new(&spec.cache.directory, &spec.directory)?;
        let holder = KeeperServer::start(successor_limit()).context("failed to start the keeper")?;
        let orders = UnixListener::bind(place.orders())
            .with_context(|| format!("failed to listen at {}", place.orders().display()))?;
        let mounts = MountChanges::watch().context("failed to watch the table of mounts")?;
        Ok(Self {
            place,
            spec,
            status: holder.status(),
            holder,
            orders,
            mounts,
            restarts: Restarts::default(),
            server: None,
            restart: None,
            binary: PathBuf::from(SELF),
            upgrade: None,
            started: 0,
            shown: None,
            awaited: !foreground,
            given_up: false,
            cache,
        })
    }

    /// Supervises until the mount is to end, and ends its server.
    async fn run(mut self) -> Result<ExitCode> {
        let mut terminate = signal(SignalKind::terminate()).context("failed to handle signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("failed to handle signals")?;
        // The terminal of a foreground mount was closed.
        let mut hangup = signal(SignalKind::hangup()).context("failed to handle signals")?;
        self.start_server()?;
        loop {
            let event = tokio::select! {
                _ = terminate.recv() => Event::Signal,
                _ = interrupt.recv() => Event::Signal,
                _ = hangup.recv() => Event::Signal,
                event = self.next() => event,
            };
            match self.handle(event).await? {
                Next::GoOn => {}
                Next::Failed(reason) => {
                    self.stop().await;
                    self.cache.give_up();
                    bail!(reason);
                }
                Next::End(client) => {
                    self.stop().await;
                    cleanup::remove(&self.place)?;
                    if let Some(client) = client {
                        answer(client, &CommandResult::Done).await;
                    }
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
    }

    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    async fn next(&mut self) -> Event {
        let Self {
            server,
            restart,
            upgrade,
            orders,
            mounts,
            status,
            given_up,
            ..
        } = self;
        tokio::select! {
            biased;
            happened = of_server(server.as_mut()) => Event::Server(happened),
            Ok((client, _)) = orders.accept() => Event::Order(client),
            () = sleep(restart.as_mut()) => Event::Restart,
            () = late(upgrade.as_mut()) => Event::UpgradeLate,
            Ok(_) = status.wait_for(|status| status.aborted > 0), if !*given_up => Event::Aborted,
            () = mounts.next() => Event::Mounts,
        }
    }

    async fn handle(&mut self, event: Event) -> Result<Next> {
        match event {
            Event::Signal => {
                info!("told to end");
                return Ok(self.unmount(UnmountMode::Yes, None).await);
            }
            Event::Server(ServerEvent::Silent) => {}
            Event::Server(ServerEvent::Said(line)) => return self.hear(&line).await,
            Event::Server(ServerEvent::Ended(status)) => {
                return self.server_ended(status.context("failed to wait for the server")?);
            }
            Event::Order(client) => return Ok(self.obey(client).await),
            Event::Mounts => {
                if let Some(device) = self.shown
                    && !self.is_mounted(device)?
                {
                    info!(directory = %self.spec.directory.display(), "was unmounted");
                    return Ok(Next::End(None));
                }
            }
            Event::Restart => {
                self.restart = None;
                self.start_server()?;
            }
            Event::UpgradeLate => {
                if let Some(upgrade) = self.upgrade.take() {
                    self.upgrade = upgrade.overdue().await;
                    if self.upgrade.is_some() {
                        self.kill();
                    }
                }
            }
            Event::Aborted => {
                error!("no server came in time: the mount is given up until it is unmounted");
                self.give_up();
                if !self.restarts.ever_ready() {
                    return Ok(Next::Failed("no server came up in time".to_owned()));
                }
            }
        }
        Ok(Next::GoOn)
    }

    /// Whether what is shown is still at its directory, whatever lies on top.
    fn is_mounted(&self, device: u64) -> Result<bool> {
        let table = MountTable::read().context("failed to read the table of mounts")?;
        Ok(table
            .iter()
            .any(|mount| mount.point == self.spec.directory && mount.device == device))
    }

    fn give_up(&mut self) {
        self.given_up = true;
        self.restart = None;
        self.kill();
    }

    fn kill(&mut self) {
        if let Some(server) = &mut self.server {
            server.kill();
        }
    }

    fn start_server(&mut self) -> Result<()> {
        bound_log(&self.place);
        let mut server = self.spawn();
        if let (Err(error), Some(upgrade)) = (&server, &mut self.upgrade)
            && upgrade.cannot_be_run(error, &mut self.binary)
        {
            server = self.spawn();
        }
        self.server = Some(server.context("failed to start the server")?);
        Ok(())
    }

    fn spawn(&mut self) -> io::Result<ServerProcess> {
        let server = ServerProcess::start(&self.binary, &self.place, self.started, &self.holder)?;
        self.started += 1;
        Ok(server)
    }

    /// Takes in what the server says of itself.
    async fn hear(&mut self, line: &str) -> Result<Next> {
        let Ok(report) = serde_json::from_str::<Report>(line) else {
            warn!(line, "the server said something else than a report");
            return Ok(Next::GoOn);
        };
        match &report {
            Report::Ready(_) => {
                self.restarts.ready();
                self.shown = cleanup::shown(&self.place, &self.spec.directory)?.map(|shown| shown.device);
                if let Some(upgrade) = self.upgrade.take() {
                    self.upgrade = upgrade.server_is_ready().await;
                }
            }
            Report::Failed { reason } => {
                error!(reason, "the server failed");
                if !self.restarts.ever_ready() {
                    return Ok(Next::Failed(reason.clone()));
                }
                if let Some(upgrade) = &mut self.upgrade {
                    upgrade.failed(reason);
                }
            }
            Report::Note { text } => info!("{text}"),
            Report::Listing { .. } => {}
        }
        if self.awaited {
            self.awaited = !matches!(report, Report::Ready(_));
            if readiness::tell(&report).is_err() {
                info!("nobody waits for the mount any more");
                return Ok(self.unmount(UnmountMode::Yes, None).await);
            }
        }
        Ok(Next::GoOn)
    }

    fn server_ended(&mut self, status: ExitStatus) -> Result<Next> {
        self.server = None;
        if let Some(upgrade) = &mut self.upgrade {
            match upgrade.server_ended(&status.to_string(), &mut self.binary) {
                AfterEnd::Start => {
                    self.start_server()?;
                    return Ok(Next::GoOn);
                }
                AfterEnd::AsEver => {}
            }
        }
        if self.given_up {
            return Ok(Next::GoOn);
        }
        let end = match status.code() {
            Some(code) if code == i32::from(EXIT_CONFIG) => End::Hopeless,
            Some(_) => End::Failed,
            None => End::Died,
        };
        match self.restarts.ended(end) {
            Decision::Restart(wait) => {
                warn!(%status, ?wait, "the server ended: another one is started");
                self.restart = Some(Box::pin(tokio::time::sleep(wait)));
            }
            Decision::GiveUp if self.restarts.ever_ready() => {
                error!(%status, "the server ended, and another one would do no better");
                self.give_up();
                // The descriptors of the old keeper are closed, so that nobody waits for an answer.
                self.holder = KeeperServer::start(successor_limit()).context("failed to start the keeper")?;
            }
            Decision::GiveUp => {
                return Ok(Next::Failed(format!(
                    "the server ended ({status}): run with --foreground to see its log"
                )));
            }
        }
        Ok(Next::GoOn)
    }

    async fn obey(&mut self, mut client: UnixStream) -> Next {
        let refuse = |reason: &str| CommandResult::Refused {
            reason: reason.to_owned(),
        };
        match supervisor_command::receive(&mut client).await {
            Ok(SupervisorCommand::Unmount { force }) => {
                let force = if force { UnmountMode::Yes } else { UnmountMode::No };
                return self.unmount(force, Some(client)).await;
            }
            Ok(SupervisorCommand::Upgrade { .. }) if self.upgrade.is_some() => {
                answer(client, &refuse("another upgrade is under way: wait for its end")).await;
            }
            Ok(SupervisorCommand::Upgrade { binary }) => match self.server_to_leave() {
                Ok(()) => {
                    info!(binary = %binary.display(), "another program is to take over");
                    self.upgrade = Some(Upgrade::begin(client, binary));
                }
                Err(reason) => answer(client, &refuse(&reason)).await,
            },
            Err(error) => answer(client, &refuse(&format!("{error:#}"))).await,
        }
        Next::GoOn
    }

    /// Asks the server to leave the mount to another one.
    fn server_to_leave(&self) -> Result<(), String> {
        let ready = self.status.borrow().ready;
        match &self.server {
            Some(server) if ready => server
                .ask_to_leave()
                .map_err(|error| format!("failed to signal the server: {error}")),
            _ => Err("no server is up at the moment: try again, or unmount and mount again".to_owned()),
        }
    }

    /// Takes the view away; the rest follows when the supervisor ends.
    async fn unmount(&mut self, force: UnmountMode, client: Option<UnixStream>) -> Next {
        match (
            cleanup::hide(&self.place, &self.spec.directory, force).await,
            client,
        ) {
            (Err(error), Some(client)) => {
                let reason = format!("{error:#}");
                answer(client, &CommandResult::Refused { reason }).await;
                Next::GoOn
            }
            (Err(error), None) => {
                error!(error = format!("{error:#}"), "failed to unmount");
                Next::End(None)
            }
            (Ok(()), client) => Next::End(client),
        }
    }

    /// Ends the server: in order, if it can.
    async fn stop(&mut self) {
        if let Some(server) = &mut self.server {
            server.stop().await;
        }
    }
}

async fn of_server(server: Option<&mut ServerProcess>) -> ServerEvent {
    match server {
        Some(server) => server.next().await,
        None => std::future::pending().await,
    }
}

async fn late(upgrade: Option<&mut Upgrade>) {
    match upgrade {
        Some(upgrade) => upgrade.late().await,
        None => std::future::pending().await,
    }
}

async fn sleep(timer: Option<&mut Pin<Box<Sleep>>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}
