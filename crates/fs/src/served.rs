//! A Dataset that this process serves: its FUSE mount and its views, put together in the one order that is safe.
//!
//! 1. [`DatasetViews`] come before the worker, which sends them the objects to release.
//! 2. The worker comes before the FUSE mount: requests that a dead server had read wait for their answers.
//! 3. Every generation that is needed is pinned before the worker is connected: with its first report it may delete all
//!    others. [`ServedDataset::open`] pins those of the FUSE mount, its caller those of views that a predecessor recorded.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use millpond_core::{ObjectId, ReleaseError, Views, Worker};
use tokio::runtime::Handle;
use tracing::warn;

use crate::fuse::{FuseError, FuseMetrics, FuseOptions, FuseServer, Layout, Unmount};
use crate::keeper::KeeperClient;
use crate::mount::{MountTable, detach};
use crate::needed_generations::NeededGenerations;
use crate::view::{InUse, Registry, RegistryOptions, ViewError};

/// Backing ids of closed files that stay registered for the next open: 15,000 cost 4 descriptors (measured).
const MAX_IDLE_BACKING_IDS: usize = 16_384;

/// Threads that read the kernel's requests; none of them waits for the worker.
const FUSE_THREADS: usize = 2;

/// All references to a Dataset's objects on this node: its views and its FUSE mount. Clones are the same.
#[derive(Clone)]
pub struct DatasetViews {
    registry: Registry,
    /// Empty until it is mounted.
    fuse: Arc<OnceLock<Arc<FuseServer>>>,
}

impl DatasetViews {
    /// Creates the views of a Dataset, none yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// As [`Registry::new`].
    pub fn new(options: RegistryOptions) -> Result<Self, ViewError> {
        Ok(Self {
            registry: Registry::new(options)?,
            fuse: Arc::default(),
        })
    }

    /// The views.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

#[async_trait]
impl Views for DatasetViews {
    async fn release(&self, unlinked: &[ObjectId]) -> Result<(), ReleaseError> {
        // A backing id references its file like an open one.
        if let Some(fuse) = self.fuse.get() {
            fuse.release(unlinked);
        }
        self.registry.release(unlinked).await
    }
}

/// The directory at which a Dataset's FUSE file system is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mountpoint {
    /// A directory of Millpond's own, created if absent, an absolute path without links. The mount shows all generations and
    /// the layers of kernel views, and its reads bypass the server where they can. A mount there that the keeper does not
    /// hold is dead, and is detached.
    Private(PathBuf),
    /// The user's directory, which exists: without root nothing can be mounted on top of a FUSE mount. The mount shows the
    /// newest tree. Other mounts there are left alone.
    User(PathBuf),
}

impl Mountpoint {
    fn path(&self) -> &Path {
        match self {
            Self::Private(path) | Self::User(path) => path,
        }
    }
}

/// How a Dataset is served.
pub struct ServeOptions {
    /// Where its FUSE file system is mounted.
    pub mountpoint: Mountpoint,
    /// The mount's name at the keeper, and its source in the table of mounts.
    pub name: String,
    /// Whether its objects may be evicted: then closed files are not referenced.
    pub evicts: bool,
    /// Whether it may have kernel views.
    pub kernel_views: bool,
    /// The metrics of its FUSE mount.
    pub metrics: FuseMetrics,
    /// The keeper of its FUSE mount.
    pub keeper: Arc<KeeperClient>,
}

/// See the module's documentation.
pub struct ServedDataset {
    /// Its views.
    pub registry: Registry,
    /// Its FUSE mount.
    pub fuse: Arc<FuseServer>,
    /// Whether the FUSE mount was taken over from another server.
    pub taken_over: bool,
}

impl ServedDataset {
    /// Takes over the Dataset's FUSE mount from a predecessor or mounts it, and connects `views` to the worker. The second
    /// part of the result is to be [run](NeededGenerations::run) for as long as the Dataset is served.
    ///
    /// # Errors
    /// The FUSE file system cannot be mounted; the registry is stopped then.
    pub async fn open(
        views: &DatasetViews,
        worker: Arc<dyn Worker>,
        options: ServeOptions,
    ) -> Result<(Self, NeededGenerations), FuseError> {
        let ServeOptions {
            mountpoint,
            name,
            evicts,
            kernel_views,
            metrics,
            keeper,
        } = options;
        let registry = views.registry.clone();
        let is_private = matches!(mountpoint, Mountpoint::Private(_));
        let options = FuseOptions {
            mountpoint: mountpoint.path().to_owned(),
            name,
            layout: if is_private {
                Layout::Directories
            } else {
                Layout::Live
            },
            worker: Arc::clone(&worker),
            runtime: Handle::current(),
            passthrough: is_private,
            idle_backing_ids: if evicts { 0 } else { MAX_IDLE_BACKING_IDS },
            threads: FUSE_THREADS,
            metrics,
            // Without kernel views the worker sees all opens itself.
            kernel_views: kernel_views.then(|| registry.clone()),
            keeper: Some(keeper),
        };
        let mounting = tokio::task::spawn_blocking(move || take_over_or_mount(options, &mountpoint)).await;
        let mounted = mounting.unwrap_or_else(|error| Err(FuseError::Session(error.into())));
        let (fuse, taken_over) = match mounted {
            Ok((fuse, taken_over)) => (Arc::new(fuse), taken_over),
            Err(error) => {
                registry.stop().await;
                return Err(error);
            }
        };
        // Set once, here.
        let _empty = views.fuse.set(Arc::clone(&fuse));
        let needed = NeededGenerations::pin(Arc::clone(&fuse), registry.clone());
        registry.connect(worker);
        let served = Self {
            registry,
            fuse,
            taken_over,
        };
        Ok((served, needed))
    }

    /// Unmounts all views and the FUSE mount. Processes that use them keep what they have open until they close it.
    ///
    /// # Errors
    /// The FUSE mount cannot be unmounted.
    pub async fn unmount(&self) -> Result<(), FuseError> {
        for target in self.registry.targets() {
            if let Err(error) = self.registry.unmount(target, InUse::Detach).await {
                warn!(%error, "failed to unmount a view");
            }
        }
        let fuse = Arc::clone(&self.fuse);
        let unmounted = tokio::task::spawn_blocking(move || fuse.unmount(Unmount::Detach)).await;
        unmounted.unwrap_or_else(|error| Err(FuseError::Session(error.into())))
    }
}

/// Returns the server, and whether it was taken over.
fn take_over_or_mount(
    options: FuseOptions,
    mountpoint: &Mountpoint,
) -> Result<(FuseServer, bool), FuseError> {
    match mountpoint {
        Mountpoint::User(_) => {
            if let Some(server) = FuseServer::take_over(options.clone())? {
                return Ok((server, true));
            }
        }
        Mountpoint::Private(path) => {
            if is_mounted(path)? {
                if let Some(server) = FuseServer::take_over(options.clone())? {
                    return Ok((server, true));
                }
            } else if let Some(keeper) = &options.keeper {
                // It was unmounted while no server ran: what the keeper holds is of no use.
                keeper.unregister(&options.name)?;
            }
            // By the table alone: a mount without a server responds to no request, not even for its root.
            while is_mounted(path)? {
                warn!(mountpoint = %path.display(), "FUSE mount not registered with the keeper; detaching and mounting again");
                detach(path).map_err(|error| FuseError::Unmount {
                    path: path.clone(),
                    source: error.into(),
                })?;
            }
            std::fs::create_dir_all(path).map_err(mount_failed(path))?;
        }
    }
    Ok((FuseServer::mount(options)?, false))
}

fn is_mounted(path: &Path) -> Result<bool, FuseError> {
    let table = MountTable::read().map_err(mount_failed(path))?;
    // The table names no symbolic links, and `/run` may be one. The parent is no FUSE mount, whose server might not respond.
    let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
    let real = match (parent, path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    };
    Ok(table.top_at(&real).is_some())
}

fn mount_failed(path: &Path) -> impl FnOnce(std::io::Error) -> FuseError {
    let path = path.to_owned();
    move |source| FuseError::Mount { path, source }
}
