//! A mount, the source under it, and what both must be.
//!
//! Which version of a file may show is known exactly for a kernel view: it is that of the generation that was mounted. A
//! FUSE view shows the newest generation, and the mount may list the source whenever it likes (after a start, after a kill,
//! after it met a changed object); so a path may show what it was at any moment since the last listing that is known,
//! but never go back. What an open file is, its own ETag says, and every byte of it is that version's.

mod held;
mod life;
mod paths;
mod readers;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Result, anyhow, bail, ensure};
use harness::{Mount, MountCommand, Scratch, View, drop_caches};

use self::held::{HeldFile, pick, take};
use crate::model::listing::HeldDirectory;
use crate::model::operation::{Cache, Operation, Setting};
use crate::model::source::{Content, Epoch, Source};
use crate::model::tree::{Node, Tree};

/// What a path or an open file showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// A version of a file.
    File(Content),
    /// A version of a file which cannot be had any more, as it should be.
    Stale(Content),
    /// A version which the source has again, after it was deleted: it is readable at the next attempt, or soon.
    StaleForNow(Content),
    /// A directory.
    Directory,
    /// Nothing: this error.
    Missing(i32),
}

/// See the module.
pub(crate) struct Pond {
    view: View,
    setting: Setting,
    // In this order: a mount needs the source and the folder to end well.
    files: Vec<HeldFile>,
    directories: Vec<HeldDirectory>,
    mount: Option<Mount>,
    source: Source,
    scratch: Scratch,
    command: MountCommand,
    /// The newest generation is the source's state at this moment or later.
    floor: Epoch,
    /// What each path was seen to be: it does not go back behind that.
    seen: RefCell<BTreeMap<&'static str, Epoch>>,
    /// The tree that a kernel view shows.
    shown: Option<Tree>,
    /// Objects that are whole in the cache for certain: they cannot be stale.
    kept: RefCell<BTreeSet<(String, Content)>>,
    /// A server was killed and its successor not yet heard of.
    killed: bool,
}

impl Pond {
    /// Mounts a source that holds what the operations put.
    pub(crate) fn new(view: View, setting: Setting, puts: &[Operation]) -> Result<Self> {
        let scratch = Scratch::new();
        let mut source = Source::new();
        for put in puts {
            if let Operation::Put { key, content } = *put {
                source.put(key, content);
            }
        }
        let (url, endpoint) = source.url();
        let mut command = MountCommand::new(&scratch, &url, view)
            .with("--endpoint", endpoint)
            .switch("--anonymous");
        let (size, eviction) = match setting.cache {
            Cache::Roomy => ("1Gi", "never"),
            Cache::Small { eviction } => ("20Mi", eviction),
        };
        command.flag("--cache-size", size).flag("--eviction", eviction);
        if setting.memory {
            command.flag("--memory-size", "10Mi");
        }
        let mut pond = Self {
            view,
            setting,
            files: Vec::new(),
            directories: Vec::new(),
            mount: None,
            floor: source.now(),
            source,
            scratch,
            command,
            seen: RefCell::default(),
            shown: None,
            kept: RefCell::default(),
            killed: false,
        };
        pond.mount(false)?;
        Ok(pond)
    }

    /// Ends everything, and requires that nothing is left.
    pub(crate) fn end(mut self) -> Result<()> {
        self.unmount()?;
        let left = self.scratch.mounts();
        ensure!(left.is_empty(), "left mounted: {left:?}");
        Ok(())
    }

    /// Does one operation and checks what comes of it.
    pub(crate) fn apply(&mut self, operation: &Operation) -> Result<()> {
        match *operation {
            Operation::Put { key, content } => self.source.put(key, content),
            Operation::Delete { key } => self.source.delete(key),
            Operation::Stat { path } => drop(self.stat(path)?),
            Operation::List { path } => self.list(path)?,
            Operation::Read { path, way, part } => drop(self.read_path(path, way, part)?),
            Operation::Xattrs { path } => self.xattrs(path)?,
            Operation::Statfs { path } => self.statfs(path)?,
            Operation::Modify { path, how } => self.modify(path, how)?,
            Operation::ReadAll { readers } => self.read_all(readers)?,
            Operation::Open { path, direct } => self.open(path, direct)?,
            Operation::ReadOpen { file, way, part } => self.read_open(file, way, part)?,
            Operation::StatOpen { file } => self.stat_open(file)?,
            Operation::ModifyOpen { file, how } => self.modify_open(file, how)?,
            Operation::Close { file } => take(&mut self.files, file),
            Operation::OpenDirectory { path } => self.open_directory(path)?,
            Operation::ListOn { directory, calls } => self.list_on(directory, calls)?,
            Operation::SeekDirectory { directory, entry } => {
                if let Some(directory) = pick(&mut self.directories, directory) {
                    directory.seek(entry)?;
                }
            }
            Operation::CloseDirectory { directory } => take(&mut self.directories, directory),
            Operation::Refresh => self.refresh()?,
            Operation::Warmup { path } => self.warm_up(path)?,
            Operation::DropCaches => drop_caches(),
            Operation::Kill => self.kill(),
            Operation::Remount { fresh } => {
                self.unmount()?;
                self.mount(fresh)?;
            }
        }
        Ok(())
    }

    // What must be.

    /// The trees that a path may be of, oldest first, with their moments.
    fn candidates(&self, path: &str) -> Vec<(Epoch, &Tree)> {
        if let Some(shown) = &self.shown {
            return vec![(self.floor, shown)];
        }
        let seen = self.seen.borrow().get(path).copied().unwrap_or(0);
        (self.floor.max(seen)..=self.source.now())
            .map(|epoch| (epoch, self.source.tree(epoch)))
            .collect()
    }

    /// Requires that a path may show this, and notes that it did.
    fn check(&self, path: &'static str, shown: Shown) -> Result<Shown> {
        let candidates = self.candidates(path);
        let earliest = candidates
            .iter()
            .find(|(_, tree)| match (tree.resolve(path), shown) {
                (
                    Ok(Node::File(known)),
                    Shown::File(found) | Shown::Stale(found) | Shown::StaleForNow(found),
                ) => *known == found,
                (Ok(Node::Directory(_)), Shown::Directory) => true,
                (Err(known), Shown::Missing(found)) => known == found,
                _ => false,
            });
        let Some((epoch, _)) = earliest else {
            let expected: Vec<_> = candidates.iter().map(|(_, tree)| tree.resolve(path)).collect();
            bail!("{path:?} shows {shown:?}, and may be {expected:?}");
        };
        self.seen.borrow_mut().insert(path, *epoch);
        Ok(shown)
    }

    /// What it means that a version could not be had.
    fn stale(&self, path: &str, content: Content) -> Result<Shown> {
        ensure!(
            !self.kept.borrow().contains(&(path.to_owned(), content)),
            "{path:?}: stale, and is whole in the cache: {content:?}"
        );
        if self.source.current(path) != Some(content) {
            Ok(Shown::Stale(content))
        } else if self.source.was_ever_gone(path, content) {
            Ok(Shown::StaleForNow(content))
        } else {
            bail!("{path:?}: stale, and was never changed: {content:?}")
        }
    }

    /// Notes that an object is whole in the cache, which has room for all.
    fn keep(&self, path: &str, content: Content) {
        if self.setting.cache == Cache::Roomy {
            self.kept.borrow_mut().insert((path.to_owned(), content));
        }
    }
}

fn number(error: &io::Error, path: &str) -> Result<i32> {
    error.raw_os_error().ok_or_else(|| anyhow!("{path:?}: {error}"))
}

fn xattr(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let mut value = vec![0; 4_096];
    let length = rustix::fs::getxattr(path, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

fn file_xattr(file: &File, name: &str) -> io::Result<Vec<u8>> {
    let mut value = vec![0; 4_096];
    let length = rustix::fs::fgetxattr(file, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}
