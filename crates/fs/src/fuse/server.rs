//! A FUSE server, from its mount or takeover to its end.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fuser::{INodeNo, SessionACL};
use millpond_core::ObjectId;
use millpond_core::{CatalogFile, Generation, Worker};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::filesystem::FuseFilesystem;
use super::handler::{HandlerParts, RequestHandler};
use super::live_tree::{LiveTreeUpdater, generations_of};
use super::metrics::FuseMetrics;
use super::mounting;
use super::node::Node;
use super::opens::Opens;
use super::session::{self, Negotiated};
use super::table::Table;
use super::tree::{FOREVER, Trees};
use crate::keeper::{KeeperClient, KeeperError};
use crate::mount::{abort_fuse_connection, fuse_connection};
use crate::view::Registry;

/// The TTL of names in the live root where the kernel has no notification that invalidates all of them.
const LIVE_TTL: Duration = Duration::from_secs(1);

/// The root of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// A directory of `gen-N`, `live`, `objects` and `last`.
    Directories,
    /// The newest tree itself.
    Live,
}

/// How to unmount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmount {
    /// Only if the mount is not in use.
    IfIdle,
    /// From the tree of names immediately; processes that use it keep it until they close it.
    Detach,
}

/// Errors of serving a mount.
#[derive(Debug, thiserror::Error)]
pub enum FuseError {
    /// It cannot be mounted.
    #[error("failed to mount a FUSE file system at {}", path.display())]
    Mount {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be unmounted; `ResourceBusy` when it is in use.
    #[error("failed to unmount {}", path.display())]
    Unmount {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The session with the kernel could not be started.
    #[error("failed to start a FUSE session")]
    Session(#[source] io::Error),
    /// The newest catalog cannot be read.
    #[error("failed to open the newest catalog")]
    Catalog(#[from] millpond_catalog::Error),
    /// The keeper failed.
    #[error("failed to register the mount with the keeper")]
    Keeper(#[from] KeeperError),
    /// The keeper returned what this server cannot interpret.
    #[error("failed to take over the mount: {reason}")]
    Foreign {
        /// What is wrong.
        reason: String,
    },
}

/// The options of a server.
#[derive(Clone)]
pub struct FuseOptions {
    /// An existing directory.
    pub mountpoint: PathBuf,
    /// The mount's name at the keeper, and its source in the list of mounts.
    pub name: String,
    /// The layout of the root.
    pub layout: Layout,
    /// The worker that has the objects.
    pub worker: Arc<dyn Worker>,
    /// The runtime of requests that wait.
    pub runtime: Handle,
    /// Whether to let the kernel read complete objects itself, where it can.
    pub passthrough: bool,
    /// The number of backing ids of closed files that stay registered for the next open. Each references its object: 0 for
    /// a Dataset that evicts.
    pub idle_backing_ids: usize,
    /// Threads that read requests.
    pub threads: usize,
    /// The metrics of the mount.
    pub metrics: FuseMetrics,
    /// The kernel views of which the mount is a layer: opens of theirs that the server answers are logged there, so that they
    /// are not counted twice, and objects that became complete meanwhile. `None`: there are none.
    pub kernel_views: Option<Registry>,
    /// The keeper of the mount, which outlives this process. `None`: the mount ends with this process.
    pub keeper: Option<Arc<KeeperClient>>,
}

/// What the keeper stores for the successor.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    mountpoint: PathBuf,
    layout: Layout,
    for_all: bool,
    negotiated: Negotiated,
}

/// A served mount. Dropping it unmounts, unless [`FuseServer::hand_over`] was called.
pub struct FuseServer {
    handler: Arc<RequestHandler>,
    mountpoint: PathBuf,
    name: String,
    keeper: Option<Arc<KeeperClient>>,
    connection: u32,
    /// [`Note`], as the keeper has it.
    note: String,
    cancel: CancellationToken,
    ended: watch::Receiver<bool>,
    live_generation: watch::Receiver<Option<Generation>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    mounted: AtomicBool,
}

impl FuseServer {
    /// Mounts and serves. With a keeper, the mount is registered before this returns.
    ///
    /// # Errors
    /// When it cannot; nothing is mounted then.
    pub fn mount(mut options: FuseOptions) -> Result<Self, FuseError> {
        let mount_error = |path: &Path| {
            let path = path.to_owned();
            move |source| FuseError::Mount { path, source }
        };
        options.mountpoint = options
            .mountpoint
            .canonicalize()
            .map_err(mount_error(&options.mountpoint))?;
        let table = Table::create().map_err(FuseError::Session)?;
        let mounted =
            mounting::mount(&options.mountpoint, &options.name).map_err(mount_error(&options.mountpoint))?;
        let unmount = UnmountOnDrop(Some(options.mountpoint.clone()));
        let device = Arc::new(mounted.device);
        let opens = Opens::new(table, Arc::clone(&device), options.idle_backing_ids);
        let acl = if mounted.for_all {
            SessionACL::All
        } else {
            SessionACL::Owner
        };
        let threads = options.threads;
        let start = Start::new(options, device, opens)?;
        let filesystem = FuseFilesystem {
            handler: Arc::clone(&start.handler),
            for_all: mounted.for_all,
        };
        let session =
            session::begin(filesystem, &start.handler.device, acl, threads).map_err(FuseError::Session)?;
        let server = start.run(session, mounted.for_all, false)?;
        unmount.disarm();
        mounting::widen_read_ahead(&server.mountpoint);
        info!(mountpoint = %server.mountpoint.display(), "mounted");
        Ok(server)
    }

    /// Continues where a dead server stopped, if the keeper holds a mount of that name. `None`: it does not.
    ///
    /// The mount stays as it was mounted: mountpoint, layout and what was negotiated are the first server's.
    ///
    /// # Errors
    /// The mount cannot be taken over; the keeper holds it for the next server once this process has ended.
    pub fn take_over(mut options: FuseOptions) -> Result<Option<Self>, FuseError> {
        let Some(keeper) = options.keeper.clone() else {
            return Ok(None);
        };
        let Some(recovered) = keeper.take_over(&options.name)? else {
            return Ok(None);
        };
        let note: Note = serde_json::from_str(&recovered.note).map_err(|error| FuseError::Foreign {
            reason: error.to_string(),
        })?;
        options.mountpoint.clone_from(&note.mountpoint);
        options.layout = note.layout;
        options.passthrough &= note.negotiated.passthrough();
        let (table, found) = Table::adopt(recovered.table).map_err(|error| FuseError::Foreign {
            reason: format!("table of opens: {error}"),
        })?;
        let device = Arc::new(recovered.device);
        let opens = Opens::adopt(table, &found, Arc::clone(&device), options.idle_backing_ids);
        let acl = if note.for_all {
            SessionACL::All
        } else {
            SessionACL::Owner
        };
        let threads = options.threads;
        let start = Start::new(options, device, opens)?;
        start.handler.resume();
        let filesystem = FuseFilesystem {
            handler: Arc::clone(&start.handler),
            for_all: note.for_all,
        };
        let session = session::resume(filesystem, &start.handler.device, acl, threads, &note.negotiated)
            .map_err(FuseError::Session)?;
        if note.negotiated.resends() {
            // Before the first request is read: what this process has read must not be resent.
            session::request_resend(&start.handler.device).map_err(FuseError::Session)?;
        } else {
            warn!("the kernel cannot resend requests; those that the dead server had read hang");
        }
        let server = start.run(session, note.for_all, true)?;
        info!(mountpoint = %server.mountpoint.display(), files = found.len(), "took over");
        Ok(Some(server))
    }

    /// The directory at which it is mounted. `objects/` and `last/` are below it in [`Layout::Directories`].
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// The generations of open files, and that of the live tree: their catalogs must be retained.
    pub fn needed_generations(&self) -> BTreeSet<Generation> {
        // In this order: a file that is opened in between is of the generation read first.
        let live = self.handler.trees.catalogs.newest().map(|open| open.generation);
        let mut generations = generations_of(&self.handler.opens.open_nodes());
        generations.extend(live);
        generations
    }

    /// The generation that new opens in the live tree see, now and later.
    pub fn live_generation(&self) -> watch::Receiver<Option<Generation>> {
        self.live_generation.clone()
    }

    /// Closes the idle backing ids of these objects, so that their space can be freed.
    pub fn release(&self, objects: &[ObjectId]) {
        self.handler.opens.release(objects);
    }

    /// Unmounts and ends the server.
    ///
    /// # Errors
    /// The mount is in use and must not be detached.
    pub fn unmount(&self, how: Unmount) -> Result<(), FuseError> {
        mounting::unmount(&self.mountpoint, how == Unmount::Detach).map_err(|source| FuseError::Unmount {
            path: self.mountpoint.clone(),
            source,
        })?;
        self.mounted.store(false, Ordering::Release);
        self.cancel.cancel();
        if let Some(keeper) = &self.keeper {
            keeper.unregister(&self.name)?;
        }
        Ok(())
    }

    /// Leaves the mount to the next server: this process must exit now, without the destructors that would unmount or
    /// reply. Requests that wait stay unanswered.
    ///
    /// # Errors
    /// The keeper cannot be reached.
    pub fn hand_over(&self) -> Result<(), FuseError> {
        self.mounted.store(false, Ordering::Release);
        self.cancel.cancel();
        if let Some(keeper) = &self.keeper {
            keeper.stopping()?;
        }
        Ok(())
    }

    /// Registers the mount with a keeper that has restarted.
    ///
    /// # Errors
    /// The keeper does not have it.
    pub fn reregister(&self) -> Result<(), FuseError> {
        if let Some(keeper) = &self.keeper {
            let (device, table) = (self.handler.device.as_fd(), self.handler.opens.table().file());
            keeper.register(&self.name, self.connection, &self.note, device, table.as_fd())?;
        }
        Ok(())
    }

    /// Aborts the connection: every request on it fails from now on.
    ///
    /// # Errors
    /// The kernel rejects it.
    pub fn abort(&self) -> io::Result<()> {
        abort_fuse_connection(self.connection)
    }

    /// Waits until the kernel has ended the session: it was unmounted, and its last user has closed it.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn wait(&self) {
        let mut ended = self.ended.clone();
        // The sender lives as long as the session's thread.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

impl Drop for FuseServer {
    fn drop(&mut self) {
        self.cancel.cancel();
        if self.mounted.swap(false, Ordering::AcqRel) && !*self.ended.borrow() {
            // Requests that still wait fail, instead of waiting for a server that has ended.
            if let Err(error) = abort_fuse_connection(self.connection) {
                warn!(%error, "failed to abort the connection; its readers may hang");
            }
            // It may be unmounted already.
            let _ = mounting::unmount(&self.mountpoint, true);
            if let Some(thread) = self.thread.lock().take()
                && thread.join().is_err()
            {
                error!("a thread of the FUSE session panicked");
            }
        }
    }
}

/// A mount whose server is not running yet.
struct UnmountOnDrop(Option<PathBuf>);

impl UnmountOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for UnmountOnDrop {
    fn drop(&mut self) {
        if let Some(mountpoint) = &self.0
            && let Err(error) = mounting::unmount(mountpoint, true)
        {
            warn!(mountpoint = %mountpoint.display(), %error, "failed to unmount");
        }
    }
}

/// A server before its session begins.
struct Start {
    handler: Arc<RequestHandler>,
    mountpoint: PathBuf,
    name: String,
    layout: Layout,
    keeper: Option<Arc<KeeperClient>>,
    catalogs: watch::Receiver<Option<Arc<CatalogFile>>>,
    runtime: Handle,
}

impl Start {
    fn new(options: FuseOptions, device: Arc<OwnedFd>, opens: Opens) -> Result<Self, FuseError> {
        let FuseOptions {
            mountpoint,
            name,
            layout,
            worker,
            runtime,
            passthrough,
            idle_backing_ids: _,
            threads: _,
            metrics,
            kernel_views,
            keeper,
        } = options;
        let trees = Trees::new(layout);
        let mut catalogs = worker.catalogs();
        let newest = catalogs.borrow_and_update().clone();
        if let Some(newest) = newest {
            trees
                .catalogs
                .update(&newest, &generations_of(&opens.open_nodes()))?;
        }
        let parts = HandlerParts {
            worker,
            trees,
            opens,
            metrics,
            device,
            runtime: runtime.clone(),
            passthrough,
            kernel_views,
        };
        let handler = Arc::new(RequestHandler::new(parts));
        Ok(Self {
            handler,
            mountpoint,
            name,
            layout,
            keeper,
            catalogs,
            runtime,
        })
    }

    fn run(
        self,
        session: fuser::Session<FuseFilesystem>,
        for_all: bool,
        resumed: bool,
    ) -> Result<FuseServer, FuseError> {
        let Self {
            handler,
            mountpoint,
            name,
            layout,
            keeper,
            catalogs,
            runtime,
        } = self;
        let negotiated = *handler.negotiated.get().ok_or_else(|| FuseError::Foreign {
            reason: "the session began without an INIT".to_owned(),
        })?;
        // FUSE_NOTIFY_INC_EPOCH invalidates every dentry of the mount; overlayfs then returns ESTALE for files that it
        // resolved through one. So: no epochs below kernel views.
        let epochs = negotiated.has_epochs() && !handler.has_kernel_views();
        handler
            .trees
            .set_live_ttl(if epochs { FOREVER } else { LIVE_TTL });
        let connection = fuse_connection(&mountpoint).map_err(FuseError::Session)?;
        let note = Note {
            mountpoint: mountpoint.clone(),
            layout,
            for_all,
            negotiated,
        };
        let note = serde_json::to_string(&note).map_err(|error| FuseError::Foreign {
            reason: error.to_string(),
        })?;
        if let Some(keeper) = &keeper {
            let table = handler.opens.table().file();
            keeper.register(&name, connection, &note, handler.device.as_fd(), table.as_fd())?;
        }
        let cancel = CancellationToken::new();
        let newest = handler.trees.catalogs.newest().map(|open| open.generation);
        let (sender, live_generation) = watch::channel(newest);
        let following = LiveTreeUpdater {
            handler: Arc::clone(&handler),
            catalogs,
            notifier: session.notifier(),
            live: INodeNo(if layout == Layout::Live {
                1
            } else {
                Node::Live.pack().unwrap_or(1)
            }),
            epochs,
            resumed,
            live_generation: sender,
        };
        let stop = cancel.clone();
        drop(handler.tasks.spawn_on(
            async move { stop.run_until_cancelled(following.run()).await },
            &runtime,
        ));
        let (sender, ended) = watch::channel(false);
        let stop = cancel.clone();
        let thread = std::thread::Builder::new()
            .name("fuse".to_owned())
            .spawn(move || {
                if let Err(error) = session.run() {
                    error!(%error, "the FUSE session failed");
                }
                stop.cancel();
                sender.send_replace(true);
            })
            .map_err(FuseError::Session)?;
        if let Some(keeper) = &keeper {
            keeper.ready()?;
        }
        Ok(FuseServer {
            handler,
            mountpoint,
            name,
            keeper,
            connection,
            note,
            cancel,
            ended,
            live_generation,
            thread: Mutex::new(Some(thread)),
            mounted: AtomicBool::new(true),
        })
    }
}
