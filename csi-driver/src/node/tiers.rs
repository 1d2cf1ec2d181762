//! Directories that workers need on this node, created before their pods can start.
//!
//! For each pool of which this node is a member: the directory of the worker's socket, each disk tier's directory, and a
//! tmpfs for the memory tier. They belong to the workers' user, and other users have no access. Only directories below the
//! configured roots are changed, no link is followed, and only what was created here is removed, when the pool is deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use millpond_wire::plan::{Medium, Pool};
use rustix::fs::{CWD, Gid, Mode, OFlags, ResolveFlags, Uid, fchmod, fchown, mkdirat, openat, openat2};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::datasets::Datasets;
use super::layout::Layout;
use super::plan::{Plan, write};
use millpond_fs::mount::{MEMORY_SOURCE, MountTable, detach, mount_memory, resize_memory};

/// Interval of retries.
const RETRY: std::time::Duration = std::time::Duration::from_secs(10);

/// Options of [`Tiers::new`].
#[derive(Clone, Debug)]
pub struct TiersOptions {
    /// Paths on the node.
    pub layout: Layout,
    /// Name of the node.
    pub node: String,
    /// Directories below which disk tiers may lie.
    pub roots: Vec<PathBuf>,
    /// User and group id of workers.
    pub owner: u32,
}

/// Disk tiers' directories prepared for a pool.
type Prepared = BTreeMap<String, BTreeSet<PathBuf>>;

/// Prepared directories of this node's pools.
pub struct Tiers {
    options: TiersOptions,
    prepared: Prepared,
    /// Problems that are already logged.
    complaints: BTreeSet<String>,
}

impl Tiers {
    /// Reads which directories were prepared by previous drivers.
    pub fn new(options: TiersOptions) -> Self {
        let file = options.layout.prepared();
        let prepared = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                warn!(file = %file.display(), %error, "failed to read the list of prepared tiers; they will not be removed");
                Prepared::new()
            }),
            // Nothing prepared yet.
            Err(_) => Prepared::new(),
        };
        Self {
            options,
            prepared,
            complaints: BTreeSet::new(),
        }
    }

    /// Applies the plan until `stop`.
    pub async fn run(
        mut self,
        mut plan: watch::Receiver<Arc<Plan>>,
        datasets: Arc<Datasets>,
        stop: CancellationToken,
    ) {
        loop {
            let now = Arc::clone(&plan.borrow_and_update());
            let in_use = datasets.all();
            let in_use = in_use
                .iter()
                .map(|dataset| dataset.on_node.pool.clone())
                .collect();
            let turn = tokio::task::spawn_blocking(move || {
                self.apply(&now, &in_use);
                self
            });
            self = match turn.await {
                Ok(tiers) => tiers,
                Err(error) => {
                    warn!(%error, "the preparation of tiers panicked; stopped");
                    return;
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
                changed = plan.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Creates missing directories and removes unneeded ones. `in_use` are pools with Datasets open here. Blocks.
    pub fn apply(&mut self, plan: &Plan, in_use: &BTreeSet<String>) {
        let mut complaints = BTreeSet::new();
        for pool in plan.pools.values() {
            if pool.members.iter().any(|member| member.node == self.options.node)
                && let Err(problem) = self.prepare(pool)
            {
                complaints.insert(format!("pool {}: {problem}", pool.name));
            }
        }
        if plan.synced {
            let deleted: Vec<_> = self
                .prepared
                .keys()
                .filter(|name| !plan.pools.contains_key(*name))
                .cloned()
                .collect();
            for name in deleted {
                if in_use.contains(&name) {
                    continue;
                }
                if let Err(error) = self.remove(&name) {
                    complaints.insert(format!("pool {name}: {error}"));
                }
            }
        }
        for complaint in complaints.difference(&self.complaints) {
            warn!(complaint, "failed to prepare a tier; retrying");
        }
        self.complaints = complaints;
    }

    fn prepare(&mut self, pool: &Pool) -> io::Result<()> {
        let layout = &self.options.layout;
        let mut disks = BTreeSet::new();
        for tier in &pool.tiers {
            if tier.medium() == Medium::Disk {
                disks.insert(self.disk(Path::new(&tier.path), &pool.name)?);
            }
        }
        // Recorded first, so that everything created is removed later in any case.
        let known = self.prepared.entry(pool.name.clone()).or_default();
        let before = known.len();
        known.extend(disks.iter().map(|(_, path)| path.clone()));
        if known.len() != before || before == 0 {
            self.write_prepared()?;
        }
        for (root, path) in &disks {
            self.make(root, path)?;
        }
        let host = layout.driver().parent().map(Path::to_owned).unwrap_or_default();
        for tier in &pool.tiers {
            if tier.medium() == Medium::Memory {
                self.memory(&host, &pool.name, tier.capacity_bytes)?;
            }
        }
        // Created last: from here on the worker's pod can start.
        self.make(&host, &layout.worker(&pool.name))
    }

    /// Returns the root and the directory of a disk tier.
    fn disk(&self, tier: &Path, pool: &str) -> io::Result<(PathBuf, PathBuf)> {
        let plain = tier
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        let root = self.options.roots.iter().find(|root| tier.starts_with(root));
        match root {
            Some(root) if plain && tier.is_absolute() => Ok((root.clone(), tier.join(pool))),
            _ => Err(io::Error::other(format!(
                "the tier {} is not below one of the allowed host directories ({}): see the chart's value for them",
                tier.display(),
                self.options
                    .roots
                    .iter()
                    .map(|root| root.display().to_string())
                    .collect::<Vec<_>>()
                    .join(", ")
            ))),
        }
    }

    fn memory(&self, host: &Path, pool: &str, size_bytes: u64) -> io::Result<()> {
        let point = self.options.layout.memory_mount(pool);
        let table = MountTable::read()?;
        match table.top_at(&point) {
            Some(found) if found.file_system == "tmpfs" && found.source == MEMORY_SOURCE => {
                let size = found
                    .values("size")
                    .next()
                    .and_then(|size| kibibytes(size.to_str()?));
                if size != Some(size_bytes.div_ceil(1024)) {
                    resize_memory(&point, size_bytes).map_err(io::Error::other)?;
                    info!(pool, size_bytes, "changed the size of a memory tier");
                }
            }
            Some(found) => {
                return Err(io::Error::other(format!(
                    "{} is a mount already, of {}",
                    point.display(),
                    found.source.display()
                )));
            }
            None => {
                self.make(host, &point)?;
                mount_memory(&point, size_bytes, self.options.owner).map_err(io::Error::other)?;
                info!(pool, size_bytes, "mounted a memory tier");
            }
        }
        self.make(host, &self.options.layout.memory(pool))
    }

    /// Creates a directory below `root` for the workers, with its parents.
    fn make(&self, root: &Path, path: &Path) -> io::Result<()> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let below = path.strip_prefix(root).map_err(io::Error::other)?;
        let directory = make_below(root, below).map_err(named)?;
        let (user, group) = (
            Uid::from_raw(self.options.owner),
            Gid::from_raw(self.options.owner),
        );
        fchown(directory.as_fd(), Some(user), Some(group)).map_err(|error| named(error.into()))?;
        fchmod(directory.as_fd(), Mode::RWXU).map_err(|error| named(error.into()))
    }

    fn remove(&mut self, pool: &str) -> io::Result<()> {
        let layout = &self.options.layout;
        let memory = layout.memory_mount(pool);
        let is_mounted = |table: &MountTable| {
            table
                .top_at(&memory)
                .is_some_and(|found| found.source == MEMORY_SOURCE)
        };
        while is_mounted(&MountTable::read()?) {
            detach(&memory).map_err(io::Error::other)?;
        }
        remove_all(&memory)?;
        remove_all(&layout.worker(pool))?;
        for disk in self.prepared.get(pool).into_iter().flatten() {
            if self.options.roots.iter().any(|root| disk.starts_with(root)) {
                remove_all(disk)?;
            }
        }
        self.prepared.remove(pool);
        info!(pool, "removed a deleted pool's directories on this node");
        self.write_prepared()
    }

    fn write_prepared(&self) -> io::Result<()> {
        let bytes = serde_json::to_vec(&self.prepared).map_err(io::Error::other)?;
        write(&self.options.layout.prepared(), &bytes)
    }
}

/// Opens a directory below `root`, creating missing ones, and following no links.
fn make_below(root: &Path, below: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut directory = openat(CWD, root, flags, Mode::empty())?;
    for part in below.components() {
        let name = part.as_os_str();
        match mkdirat(directory.as_fd(), name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        directory = openat2(directory.as_fd(), name, flags, Mode::empty(), resolve)?;
    }
    Ok(directory)
}

/// Removes a tree, if it exists. The standard library follows no links in it.
fn remove_all(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Parses the mount table's `size=1024k`.
fn kibibytes(size: &str) -> Option<u64> {
    size.strip_suffix('k')?.parse().ok()
}
