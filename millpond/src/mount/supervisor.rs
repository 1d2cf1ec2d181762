//! Supervisor of a mount: the process that restarts its server, and does little else.
//!
//! It keeps the FUSE descriptors (as the keeper), creates the mounts that the server cannot create (as the mounter),
//! restarts the server when it exits, handles [`SupervisorCommand`]s, and unmounts on SIGTERM, SIGINT and SIGHUP, and
//! when the directory was unmounted. Its threads are four: this one, the keeper's, the mounter's, which has no access to
//! the FUSE descriptors, and one that sleeps until mounts change.
//!
//! - A server that is killed is replaced immediately; one that fails to start, after a growing backoff. If none is ready
//!   for two minutes the keeper aborts the connection, and no further server is started: cached files can still be read
//!   in the kernel view, other reads fail.
//! - An upgrade requests the server to hand over (SIGUSR1), starts the other program, and the old one again if that one
//!   fails to start.
//! - A failure of the first server is the failure of the mount.
//! - If the supervisor is killed, its server keeps serving as an [`orphan`](super::orphan).

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

use super::absence_timeout::server_absence_timeout;
use super::child::{ServerEvent, ServerProcess};
use super::cleanup::{self, UnmountMode};
use super::mount_watch::MountChanges;
use super::readiness::{self, EXIT_CONFIG, Report};
use super::restart::{Decision, Restarts, ServerExit};
use super::run_directory::{CacheDirectoryLock, RunDirectory};
use super::spec::Spec;
use super::start::{SELF, bound_log, name_process};
use super::supervisor_command::{self, CommandResult, SupervisorCommand, reply};
use super::upgrade::{AfterExit, Upgrade};

/// Runs the supervisor of the mount in `run_directory`.
pub(crate) fn run(run_directory: &Path, foreground: bool) -> Result<ExitCode> {
    name_process();
    millpond_process::telemetry::init(&millpond_process::telemetry::TelemetryOptions::default())?;
    if !foreground {
        rustix::process::setsid().context("failed to detach from the terminal")?;
    }
    let run_dir = RunDirectory::at(run_directory);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the supervisor")?;
    let result = runtime.block_on(async {
        let supervisor = Supervisor::new(run_dir.clone(), foreground)?;
        supervisor.run().await
    });
    if let Err(error) = &result
        && !foreground
    {
        // For the mount command, if it still waits; the error itself goes to the log.
        let _closed = readiness::send(&Report::Failed {
            reason: format!("{error:#}"),
        });
    }
    cleanup::remove(&run_dir)?;
    result
}

struct Supervisor {
    run_dir: RunDirectory,
    spec: Spec,
    keeper: KeeperServer,
    status: watch::Receiver<Status>,
    commands: UnixListener,
    mounts: MountChanges,
    restarts: Restarts,
    server: Option<ServerProcess>,
    /// Delay until the next server is started; `None`: no restart is scheduled.
    restart: Option<Pin<Box<Sleep>>>,
    /// Program of the servers.
    binary: PathBuf,
    upgrade: Option<Upgrade>,
    /// Servers started so far.
    started: u64,
    /// Device number of the mounted view; `None`: not mounted yet.
    view_device: Option<u64>,
    /// Whether the mount command still waits for the first server.
    is_awaited: bool,
    /// Whether restarts have ended: no further server is started.
    restarts_ended: bool,
    /// Locked as long as this process lives.
    cache: CacheDirectoryLock,
}

/// Event that the supervisor handles.
enum Event {
    Signal,
    Server(ServerEvent),
    Command(UnixStream),
    Mounts,
    Restart,
    UpgradeLate,
    Aborted,
}

/// What follows an event.
enum Next {
    Continue,
    /// The mount failed, for this reason.
    Failed(String),
    /// The mount ends; the result is sent to the client that requested it.
    End(Option<UnixStream>),
}

impl Supervisor {
    fn new(run_dir: RunDirectory, foreground: bool) -> Result<Self> {
        // Started first: its thread must not share descriptors opened from here on.
        mounter::start(&run_dir.mounter()).context("failed to start the mounter")?;
        let spec = Spec::read(&run_dir.spec())?;
        std::fs::write(run_dir.pid(), std::process::id().to_string())
            .with_context(|| format!("failed to write {}", run_dir.pid().display()))?;
        let cache = CacheDirectoryLock::new(&spec.cache.directory, &spec.directory)?;
        let keeper = KeeperServer::start(server_absence_timeout()).context("failed to start the keeper")?;
        let commands = UnixListener::bind(run_dir.orders())
            .with_context(|| format!("failed to listen at {}", run_dir.orders().display()))?;
        let mounts = MountChanges::watch().context("failed to watch the table of mounts")?;
        Ok(Self {
            run_dir,
            spec,
            status: keeper.status(),
            keeper,
            commands,
            mounts,
            restarts: Restarts::default(),
            server: None,
            restart: None,
            binary: PathBuf::from(SELF),
            upgrade: None,
            started: 0,
            view_device: None,
            is_awaited: !foreground,
            restarts_ended: false,
            cache,
        })
    }

    /// Runs until the mount ends, and stops its server.
    async fn run(mut self) -> Result<ExitCode> {
        let mut terminate = signal(SignalKind::terminate()).context("failed to handle signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("failed to handle signals")?;
        // Sent when the terminal of a foreground mount is closed.
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
                Next::Continue => {}
                Next::Failed(reason) => {
                    self.stop().await;
                    self.cache.discard();
                    bail!(reason);
                }
                Next::End(client) => {
                    self.stop().await;
                    cleanup::remove(&self.run_dir)?;
                    if let Some(client) = client {
                        reply(client, &CommandResult::Done).await;
                    }
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
    }

    /// Waits for the next event.
    ///
    /// # Cancel safety
    /// No event is lost when it is dropped.
    async fn next(&mut self) -> Event {
        let Self {
            server,
            restart,
            upgrade,
            commands,
            mounts,
            status,
            restarts_ended,
            ..
        } = self;
        tokio::select! {
            biased;
            event = next_server_event(server.as_mut()) => Event::Server(event),
            Ok((client, _)) = commands.accept() => Event::Command(client),
            () = sleep(restart.as_mut()) => Event::Restart,
            () = late(upgrade.as_mut()) => Event::UpgradeLate,
            Ok(_) = status.wait_for(|status| status.aborted > 0), if !*restarts_ended => Event::Aborted,
            () = mounts.next() => Event::Mounts,
        }
    }

    async fn handle(&mut self, event: Event) -> Result<Next> {
        match event {
            Event::Signal => {
                info!("received a termination signal; unmounting");
                return Ok(self.unmount(UnmountMode::Detach, None).await);
            }
            Event::Server(ServerEvent::OutputClosed) => {}
            Event::Server(ServerEvent::Line(line)) => return self.handle_report(&line).await,
            Event::Server(ServerEvent::Exited(status)) => {
                return self.server_exited(status.context("failed to wait for the server")?);
            }
            Event::Command(client) => return Ok(self.handle_command(client).await),
            Event::Mounts => {
                if let Some(device) = self.view_device
                    && !self.is_mounted(device)?
                {
                    info!(directory = %self.spec.directory.display(), "the directory was unmounted; shutting down");
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
                error!(
                    "no server within the limit, connection aborted; reads of uncached files fail until remounted"
                );
                self.end_restarts();
                if !self.restarts.ever_ready() {
                    return Ok(Next::Failed("no server became ready in time".to_owned()));
                }
            }
        }
        Ok(Next::Continue)
    }

    /// Returns whether the view is still mounted at its directory, even below other mounts.
    fn is_mounted(&self, device: u64) -> Result<bool> {
        let table = MountTable::read().context("failed to read the table of mounts")?;
        Ok(table
            .iter()
            .any(|mount| mount.point == self.spec.directory && mount.device == device))
    }

    fn end_restarts(&mut self) {
        self.restarts_ended = true;
        self.restart = None;
        self.kill();
    }

    fn kill(&mut self) {
        if let Some(server) = &mut self.server {
            server.kill();
        }
    }

    fn start_server(&mut self) -> Result<()> {
        bound_log(&self.run_dir);
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
        let server = ServerProcess::start(&self.binary, &self.run_dir, self.started, &self.keeper)?;
        self.started += 1;
        Ok(server)
    }

    /// Handles a report of the server.
    async fn handle_report(&mut self, line: &str) -> Result<Next> {
        let Ok(report) = serde_json::from_str::<Report>(line) else {
            warn!(line, "unparsable status line from the server; ignored");
            return Ok(Next::Continue);
        };
        match &report {
            Report::Ready(_) => {
                self.restarts.on_ready();
                self.view_device =
                    cleanup::mounted_view(&self.run_dir, &self.spec.directory)?.map(|mount| mount.device);
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
        if self.is_awaited {
            self.is_awaited = !matches!(report, Report::Ready(_));
            if readiness::send(&report).is_err() {
                info!("mount command disconnected; unmounting");
                return Ok(self.unmount(UnmountMode::Detach, None).await);
            }
        }
        Ok(Next::Continue)
    }

    fn server_exited(&mut self, status: ExitStatus) -> Result<Next> {
        self.server = None;
        if let Some(upgrade) = &mut self.upgrade {
            match upgrade.server_exited(&status.to_string(), &mut self.binary) {
                AfterExit::Start => {
                    self.start_server()?;
                    return Ok(Next::Continue);
                }
                AfterExit::Default => {}
            }
        }
        if self.restarts_ended {
            return Ok(Next::Continue);
        }
        let exit = match status.code() {
            Some(code) if code == i32::from(EXIT_CONFIG) => ServerExit::Permanent,
            Some(_) => ServerExit::Failed,
            None => ServerExit::Killed,
        };
        match self.restarts.on_exit(exit) {
            Decision::Restart(wait) => {
                warn!(%status, ?wait, "server exited; restarting it");
                self.restart = Some(Box::pin(tokio::time::sleep(wait)));
            }
            Decision::GiveUp if self.restarts.ever_ready() => {
                error!(%status, "server exited with a permanent error; not restarting");
                self.end_restarts();
                // Closes the descriptors of the old keeper, so that pending FUSE requests fail.
                self.keeper =
                    KeeperServer::start(server_absence_timeout()).context("failed to start the keeper")?;
            }
            Decision::GiveUp => {
                return Ok(Next::Failed(format!(
                    "the server exited ({status}): run with --foreground to see its log"
                )));
            }
        }
        Ok(Next::Continue)
    }

    async fn handle_command(&mut self, mut client: UnixStream) -> Next {
        let refuse = |reason: &str| CommandResult::Refused {
            reason: reason.to_owned(),
        };
        match supervisor_command::receive(&mut client).await {
            Ok(SupervisorCommand::Unmount { force }) => {
                let mode = if force {
                    UnmountMode::Detach
                } else {
                    UnmountMode::IfUnused
                };
                return self.unmount(mode, Some(client)).await;
            }
            Ok(SupervisorCommand::Upgrade { .. }) if self.upgrade.is_some() => {
                reply(
                    client,
                    &refuse("another upgrade is in progress: wait for its end"),
                )
                .await;
            }
            Ok(SupervisorCommand::Upgrade { binary }) => match self.request_handover() {
                Ok(()) => {
                    info!(binary = %binary.display(), "upgrading to another program");
                    self.upgrade = Some(Upgrade::start(client, binary));
                }
                Err(reason) => reply(client, &refuse(&reason)).await,
            },
            Err(error) => reply(client, &refuse(&format!("{error:#}"))).await,
        }
        Next::Continue
    }

    /// Requests the server to hand over the mount.
    fn request_handover(&self) -> Result<(), String> {
        let ready = self.status.borrow().ready;
        match &self.server {
            Some(server) if ready => server
                .request_handover()
                .map_err(|error| format!("failed to signal the server: {error}")),
            _ => Err("no server is ready: try again, or unmount and mount again".to_owned()),
        }
    }

    /// Unmounts the view; the rest is removed when the supervisor ends.
    async fn unmount(&mut self, mode: UnmountMode, client: Option<UnixStream>) -> Next {
        match (
            cleanup::unmount_view(&self.run_dir, &self.spec.directory, mode).await,
            client,
        ) {
            (Err(error), Some(client)) => {
                let reason = format!("{error:#}");
                reply(client, &CommandResult::Refused { reason }).await;
                Next::Continue
            }
            (Err(error), None) => {
                error!(error = format!("{error:#}"), "failed to unmount; shutting down");
                Next::End(None)
            }
            (Ok(()), client) => Next::End(client),
        }
    }

    /// Stops the server, if one is running.
    async fn stop(&mut self) {
        if let Some(server) = &mut self.server {
            server.stop().await;
        }
    }
}

async fn next_server_event(server: Option<&mut ServerProcess>) -> ServerEvent {
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
