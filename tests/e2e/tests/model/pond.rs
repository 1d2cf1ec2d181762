//! A mount, the source under it, and what both must be.
//!
//! Which version of a file may show is known exactly for a kernel view: it is that of the generation that was mounted. A
//! FUSE view shows the newest generation, and the mount may list the source whenever it likes (after a start, after a kill,
//! after it met a changed object); so a path may show what it was at any moment since the last listing that is known,
//! but never go back. What an open file is, its own ETag says, and every byte of it is that version's.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use e2e::{Mount, MountCommand, Scratch, View, drop_caches, millpond, wait_until};

use crate::listing::{Expected, HeldDirectory};
use crate::modifying::{CALLS, FILE_CALLS};
use crate::operation::{Cache, Operation, PATHS, Part, Setting, Way};
use crate::reading::{Outcome, read};
use crate::source::{Content, Epoch, Source};
use crate::tree::{Node, Tree};

/// As many as are held at most; more are closed from the oldest on.
const MAX_HELD: usize = 12;

/// What a path or an open file showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// A version of a file.
    File(Content),
    /// A version of a file which cannot be had any more, as it should be.
    Stale(Content),
    /// A version which the source has again, after it had been gone: it can be had at the next try, or soon.
    StaleForNow(Content),
    /// A directory.
    Directory,
    /// Nothing: this error.
    Missing(i32),
}

struct HeldFile {
    file: File,
    path: &'static str,
    content: Content,
    direct: bool,
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

    // By path.

    fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    fn root(&self) -> &Path {
        self.mount.as_ref().expect("it is mounted").path()
    }

    fn stat(&self, path: &'static str) -> Result<Shown> {
        let shown = match std::fs::symlink_metadata(self.path(path)) {
            Ok(metadata) if metadata.is_dir() => Shown::Directory,
            Ok(metadata) => {
                let etag = xattr(&self.path(path), "user.millpond.etag");
                let Ok(etag) = etag else {
                    // It may have become something else between the two calls.
                    return self.stat_again(path, &metadata);
                };
                let content = self.content(&etag)?;
                if metadata.len() != content.size && self.view == View::Fuse {
                    return self.stat_again(path, &metadata);
                }
                ensure!(
                    metadata.len() == content.size,
                    "{path:?}: {} bytes, is {content:?}",
                    metadata.len()
                );
                Shown::File(content)
            }
            Err(error) => Shown::Missing(number(&error, path)?),
        };
        self.check(path, shown)
    }

    /// Where a generation came between two calls, they agree the second time.
    fn stat_again(&self, path: &'static str, before: &std::fs::Metadata) -> Result<Shown> {
        let metadata = std::fs::symlink_metadata(self.path(path));
        let shown = match &metadata {
            Ok(metadata) if metadata.is_dir() => Shown::Directory,
            Ok(metadata) => {
                let etag = xattr(&self.path(path), "user.millpond.etag")
                    .with_context(|| format!("{path:?} has no ETag"))?;
                let content = self.content(&etag)?;
                ensure!(
                    metadata.len() == content.size,
                    "{path:?}: {} bytes (before: {}), is {content:?}",
                    metadata.len(),
                    before.len()
                );
                Shown::File(content)
            }
            Err(error) => Shown::Missing(number(error, path)?),
        };
        self.check(path, shown)
    }

    fn content(&self, etag: &[u8]) -> Result<Content> {
        let etag = String::from_utf8_lossy(etag);
        self.source
            .content_of(&etag)
            .ok_or_else(|| anyhow!("no object ever had the ETag {etag}"))
    }

    fn list(&self, path: &'static str) -> Result<()> {
        let entries = match std::fs::read_dir(self.path(path)) {
            Ok(entries) => entries,
            Err(error) => {
                let number = number(&error, path)?;
                let is_file = self
                    .candidates(path)
                    .iter()
                    .any(|(_, tree)| matches!(tree.resolve(path), Ok(Node::File(_))));
                if number == libc::ENOTDIR && is_file {
                    return Ok(());
                }
                return self.check(path, Shown::Missing(number)).map(drop);
            }
        };
        let mut listed = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("listing {path:?}"))?;
            let kind = match entry.file_type()?.is_dir() {
                true => rustix::fs::FileType::Directory,
                false => rustix::fs::FileType::RegularFile,
            };
            let name = entry
                .file_name()
                .into_string()
                .map_err(|name| anyhow!("lists {name:?}"))?;
            listed.push((name, kind));
        }
        self.expected(path)?.check(path, &listed)
    }

    fn expected(&self, path: &str) -> Result<Expected> {
        let candidates = self.candidates(path);
        Expected::of(path, candidates.iter().map(|(_, tree)| *tree))
            .ok_or_else(|| anyhow!("{path:?} was opened as a directory"))
    }

    /// Opens a path and finds out what it is.
    fn open_path(&self, path: &'static str, direct: bool) -> Result<(Shown, Option<File>)> {
        let flags = if direct { libc::O_DIRECT } else { 0 };
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(self.path(path));
        let file = match opened {
            Ok(file) => file,
            Err(error) => {
                let number = number(&error, path)?;
                if number == libc::ESTALE {
                    return Ok((self.stale_open(path)?, None));
                }
                if number == libc::EINVAL && direct {
                    return Ok((self.refused_direct(path)?, None));
                }
                return Ok((self.check(path, Shown::Missing(number))?, None));
            }
        };
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Ok((self.check(path, Shown::Directory)?, Some(file)));
        }
        let etag =
            file_xattr(&file, "user.millpond.etag").with_context(|| format!("{path:?} has no ETag"))?;
        let content = self.content(&etag)?;
        ensure!(
            metadata.len() == content.size,
            "{path:?}: {} bytes, is {content:?}",
            metadata.len()
        );
        Ok((self.check(path, Shown::File(content))?, Some(file)))
    }

    /// O_DIRECT is refused for directories, and by a kernel view for empty files.
    fn refused_direct(&self, path: &'static str) -> Result<Shown> {
        let refused = self
            .candidates(path)
            .iter()
            .find_map(|(_, tree)| match tree.resolve(path) {
                Ok(Node::Directory(_)) => Some(Shown::Directory),
                Ok(Node::File(content)) if content.size == 0 && self.view == View::Kernel => {
                    Some(Shown::File(*content))
                }
                _ => None,
            });
        refused.ok_or_else(|| anyhow!("{path:?}: O_DIRECT is refused"))
    }

    /// An open that fetches may find its version gone: only a kernel view's does.
    fn stale_open(&self, path: &'static str) -> Result<Shown> {
        ensure!(
            self.view == View::Kernel,
            "{path:?}: an open of a FUSE view was stale"
        );
        let content = self
            .candidates(path)
            .iter()
            .find_map(|(_, tree)| match tree.resolve(path) {
                Ok(Node::File(content)) => Some(*content),
                _ => None,
            })
            .ok_or_else(|| anyhow!("{path:?}: stale, and is no file"))?;
        self.stale(path, content)
    }

    /// Reads a part of whatever is at a path.
    fn read_path(&self, path: &'static str, way: Way, part: Part) -> Result<Shown> {
        let once = || -> Result<Shown> {
            let (shown, file) = self.open_path(path, way == Way::Direct)?;
            match (shown, file) {
                (Shown::File(content), Some(file)) => {
                    let joins = self.files.iter().any(|held| held.path == path);
                    self.read_file(&file, path, content, way, part, joins)
                }
                (Shown::Directory, Some(file)) => {
                    let result = rustix::io::pread(&file, &mut [0; 10], 0);
                    ensure!(
                        result == Err(rustix::io::Errno::ISDIR),
                        "reading {path:?}: {result:?}"
                    );
                    Ok(shown)
                }
                (shown, _) => Ok(shown),
            }
        };
        until_settled(path, once)
    }

    /// Reads a part of an open file. `joins`: the file may share its inode with other opens.
    fn read_file(
        &self,
        file: &File,
        path: &str,
        content: Content,
        way: Way,
        part: Part,
        joins: bool,
    ) -> Result<Shown> {
        let outcome = read(file, content, way, part).with_context(|| format!("{path:?} by {way:?}"))?;
        match outcome {
            Outcome::Right { whole } => {
                // Of a kernel view a small object is whole before it is opened; else the last bytes may be on their way.
                if whole && self.view == View::Kernel && content.size <= 8 << 20 {
                    self.keep(path, content);
                }
                Ok(Shown::File(content))
            }
            Outcome::Failed(error) => match number(&error, path)? {
                libc::ESTALE => self.stale(path, content),
                // What a mapping cannot have is EFAULT in the copy of it.
                libc::EFAULT if matches!(way, Way::MapPrivate | Way::MapShared) => self.stale(path, content),
                libc::ENODEV if way == Way::MapShared => {
                    let whole = self.kept.borrow().contains(&(path.to_owned(), content));
                    ensure!(
                        joins || !whole,
                        "{path:?}: no shared mapping, and is whole in the cache: {content:?}"
                    );
                    Ok(Shown::File(content))
                }
                _ => bail!("{path:?} by {way:?}: {error}"),
            },
        }
    }

    fn xattrs(&self, path: &'static str) -> Result<()> {
        let shown = self.stat(path)?;
        let target = self.path(path);
        let unknown = xattr(&target, "user.nothing");
        match shown {
            Shown::Missing(_) => ensure!(unknown.is_err(), "{path:?} is missing and has xattrs"),
            _ => ensure!(
                matches!(&unknown, Err(error) if error.raw_os_error() == Some(libc::ENODATA)),
                "an unknown xattr of {path:?}: {unknown:?}"
            ),
        }
        if self.view == View::Fuse && self.candidates(path).len() > 1 {
            // It may become something else at any time.
            return Ok(());
        }
        if let Shown::File(_) = shown {
            let mut names = vec![0; 4_096];
            let length = rustix::fs::listxattr(&target, &mut names[..])?;
            let mut names: Vec<_> = names[..length].split(|byte| *byte == 0).collect();
            names.retain(|name| !name.is_empty());
            names.sort_unstable();
            let expected: [&[u8]; 2] = [b"user.millpond.etag", b"user.millpond.source"];
            ensure!(names == expected, "{path:?} lists {names:?}");
            let source = xattr(&target, "user.millpond.source")?;
            ensure!(
                source.starts_with(self.source.url().0.as_bytes()),
                "{path:?}: source {source:?}"
            );
        }
        Ok(())
    }

    fn statfs(&self, path: &'static str) -> Result<()> {
        let found = match nix::sys::statvfs::statvfs(&self.path(path)) {
            Ok(found) => found,
            Err(error) => {
                let number = number(&error.into(), path)?;
                return self.check(path, Shown::Missing(number)).map(drop);
            }
        };
        let shown = found.blocks() * found.fragment_size();
        let candidates = self.candidates("");
        // Whole blocks of each file, and the directories'.
        let fits = candidates
            .iter()
            .any(|(_, tree)| (tree.bytes()..=tree.bytes() + (1 << 20)).contains(&shown));
        ensure!(fits, "the file system shows {shown} bytes");
        ensure!(found.blocks_available() == 0, "something can be written");
        ensure!(
            found.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY),
            "not read-only"
        );
        Ok(())
    }

    fn modify(&self, path: &'static str, how: u16) -> Result<()> {
        let (name, call) = CALLS[usize::from(how) % CALLS.len()];
        if path.is_empty() {
            // Its parent is another file system's.
            return Ok(());
        }
        let before = self.stat(path)?;
        let found = match call(&self.path(path)) {
            Ok(()) => bail!("{name} of {path:?} succeeded"),
            Err(error) => error.raw_os_error(),
        };
        let right = match (before, found) {
            (_, Some(libc::EROFS)) => true,
            // What kind of thing it is may be found first.
            (Shown::Directory, Some(libc::EISDIR)) => name.starts_with("open") || name == "truncate",
            (Shown::Directory, Some(libc::EPERM)) => name == "link",
            // What is not there cannot be changed.
            (Shown::Missing(number), Some(found)) => number == found,
            _ => false,
        };
        let other = self.candidates(path).len() > 1 && matches!(found, Some(libc::ENOENT | libc::ENOTDIR));
        ensure!(right || other, "{name} of {path:?} ({before:?}): {found:?}");
        self.stat(path).map(drop)
    }

    /// Several readers read all files that may be there, each in an order of its own.
    fn read_all(&self, readers: u8) -> Result<()> {
        // What is learnt on the way is not shared between threads: they only read.
        let root = self.root().to_owned();
        let candidates = self.candidates("");
        let trees: Vec<&Tree> = candidates.iter().map(|(_, tree)| *tree).collect();
        let reads: Vec<Result<Vec<(String, Content)>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..usize::from(readers))
                .map(|reader| {
                    let (root, trees, source) = (&root, &trees, &self.source);
                    scope.spawn(move || read_each(root, trees, source, reader))
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect()
        });
        for stale in reads {
            for (path, content) in stale? {
                self.stale(&path, content)?;
            }
        }
        Ok(())
    }

    // On what is held open.

    fn open(&mut self, path: &'static str, direct: bool) -> Result<()> {
        if let (Shown::File(content), Some(file)) = self.open_path(path, direct)? {
            if self.files.len() == MAX_HELD {
                self.files.remove(0);
            }
            self.files.push(HeldFile {
                file,
                path,
                content,
                direct,
            });
        }
        Ok(())
    }

    fn read_open(&mut self, file: u16, way: Way, part: Part) -> Result<()> {
        let Some(place) = place(&self.files, file) else {
            return Ok(());
        };
        let HeldFile {
            file,
            path,
            content,
            direct,
        } = &self.files[place];
        // O_DIRECT is for the whole life of a descriptor, and wants alignment.
        let way = match (way, direct) {
            (Way::MapPrivate | Way::MapShared | Way::Holes, true) => way,
            (_, true) => Way::Direct,
            (Way::Direct, false) => Way::Positioned,
            (way, false) => way,
        };
        until_settled(path, || self.read_file(file, path, *content, way, part, true)).map(drop)
    }

    fn stat_open(&mut self, file: u16) -> Result<()> {
        if let Some(held) = pick(&mut self.files, file) {
            let metadata = held.file.metadata()?;
            ensure!(
                metadata.len() == held.content.size,
                "{:?} became {}",
                held.path,
                metadata.len()
            );
            let etag = file_xattr(&held.file, "user.millpond.etag")?;
            let content = self.source.content_of(&String::from_utf8_lossy(&etag));
            ensure!(
                content == Some(held.content),
                "{:?} became {content:?}",
                held.path
            );
        }
        Ok(())
    }

    fn modify_open(&mut self, file: u16, how: u16) -> Result<()> {
        if let Some(held) = pick(&mut self.files, file) {
            let (name, call) = FILE_CALLS[usize::from(how) % FILE_CALLS.len()];
            let result = call(&held.file);
            ensure!(
                matches!(&result, Err(error) if error.raw_os_error() == Some(libc::EROFS)),
                "{name} of {:?}: {result:?}",
                held.path
            );
        }
        Ok(())
    }

    fn open_directory(&mut self, path: &'static str) -> Result<()> {
        if let (Shown::Directory, Some(file)) = self.open_path(path, false)? {
            let expected = self.expected(path)?;
            if self.directories.len() == MAX_HELD {
                self.directories.remove(0);
            }
            let now = self.source.now();
            self.directories
                .push(HeldDirectory::new(file, path, expected, now));
        }
        Ok(())
    }

    fn list_on(&mut self, directory: u16, calls: u8) -> Result<()> {
        let now = self.source.now();
        let Some(place) = place(&self.directories, directory) else {
            return Ok(());
        };
        let held = &mut self.directories[place];
        if let Err(error) = held.list_on(calls)? {
            // Its generation may be gone where there is another one; a listing never just ends.
            ensure!(
                error == rustix::io::Errno::STALE && self.view == View::Fuse && held.opened < now,
                "listing on: {error}"
            );
            self.directories.remove(place);
        }
        Ok(())
    }

    // Of the mount.

    fn mount(&mut self, fresh: bool) -> Result<()> {
        let command = self.command.clone();
        let command = if fresh { command.switch("--fresh") } else { command };
        let first = self.seen.borrow().is_empty() && self.shown.is_none();
        let output = command.run();
        ensure!(
            output.status.success(),
            "millpond mount: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        self.mount = Some(command.made());
        if fresh || first {
            self.floor = self.source.now();
        }
        self.seen.borrow_mut().clear();
        if self.view == View::Kernel {
            self.shown = None;
            self.shown = Some(self.observe()?);
        }
        Ok(())
    }

    /// Finds the tree that a kernel view shows for its whole life.
    fn observe(&self) -> Result<Tree> {
        let mut shown = Vec::new();
        for path in PATHS {
            shown.push((*path, self.stat(path)?));
        }
        let tree = (self.floor..=self.source.now())
            .map(|epoch| self.source.tree(epoch))
            .find(|tree| {
                shown
                    .iter()
                    .all(|(path, shown)| match (tree.resolve(path), shown) {
                        (Ok(Node::File(known)), Shown::File(found)) => known == found,
                        (Ok(Node::Directory(_)), Shown::Directory) => true,
                        (Err(known), Shown::Missing(found)) => known == *found,
                        _ => false,
                    })
            });
        tree.cloned()
            .ok_or_else(|| anyhow!("the view shows what the source never was: {shown:?}"))
    }

    fn unmount(&mut self) -> Result<()> {
        self.files.clear();
        self.directories.clear();
        self.settle();
        if let Some(mount) = self.mount.take() {
            mount.unmount();
        }
        Ok(())
    }

    /// Commands need a server: waits for one that was not killed.
    fn settle(&mut self) {
        if std::mem::take(&mut self.killed)
            && let Some(mount) = &self.mount
        {
            wait_until("a successor of the server", || {
                mount.command(&["stats", "--json"]).status.success()
            });
        }
    }

    fn kill(&mut self) {
        if let Some(mount) = &self.mount {
            wait_until("a server to kill", || mount.kill_server().is_some());
            self.killed = true;
        }
    }

    fn refresh(&mut self) -> Result<()> {
        self.settle();
        let mount = self.mount.as_ref().expect("it is mounted");
        mount.succeed(&["refresh"]);
        self.floor = self.source.now();
        self.seen.borrow_mut().clear();
        Ok(())
    }

    fn warm_up(&mut self, path: &'static str) -> Result<()> {
        self.settle();
        let target = self.path(path);
        let output = millpond(self.scratch.path())
            .arg("warmup")
            .arg(&target)
            .output()
            .context("run millpond warmup")?;
        // It warms the newest generation, which is known where nothing changed since the last listing.
        if self.floor != self.source.now() {
            return Ok(());
        }
        let tree = self.source.tree(self.floor);
        let files: Vec<_> = tree
            .files()
            .filter(|(file, _)| {
                path.is_empty()
                    || file
                        .strip_prefix(path)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
            .collect();
        if files.is_empty() {
            return Ok(());
        }
        ensure!(
            output.status.success() || self.setting.cache != Cache::Roomy,
            "millpond warmup {path:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        if output.status.success() {
            for (file, content) in files {
                self.keep(file, content);
            }
        }
        Ok(())
    }

    /// The end of the mount's log, for who looks for a cause.
    pub(crate) fn log(&self) -> String {
        let Some(mount) = &self.mount else {
            return String::new();
        };
        mount.log()
    }
}

/// Reads every file of the trees once, starting from a place of the reader's own. Gives those that were stale.
fn read_each(root: &Path, trees: &[&Tree], source: &Source, reader: usize) -> Result<Vec<(String, Content)>> {
    let files: BTreeSet<&str> = trees
        .iter()
        .flat_map(|tree| tree.files().map(|(path, _)| path))
        .collect();
    let mut stale = Vec::new();
    let count = files.len();
    for path in files.iter().copied().cycle().skip(reader * 3).take(count) {
        let known: Vec<_> = trees.iter().map(|tree| tree.resolve(path)).collect();
        let contents = |known: &[Result<&Node, i32>]| -> Vec<Content> {
            known
                .iter()
                .filter_map(|node| match node {
                    Ok(Node::File(content)) => Some(*content),
                    _ => None,
                })
                .collect()
        };
        let file = match File::open(root.join(path)) {
            Ok(file) => file,
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => {
                stale.extend(
                    contents(&known)
                        .into_iter()
                        .take(1)
                        .map(|content| (path.to_owned(), content)),
                );
                continue;
            }
            Err(error) => {
                let number = number(&error, path)?;
                ensure!(known.contains(&Err(number)), "reading {path:?}: {error}");
                continue;
            }
        };
        if file.metadata()?.is_dir() {
            let may_be = known.iter().any(|node| matches!(node, Ok(Node::Directory(_))));
            ensure!(may_be, "{path:?} is a directory");
            continue;
        }
        let etag = file_xattr(&file, "user.millpond.etag")?;
        let content = source.content_of(&String::from_utf8_lossy(&etag));
        let content = content.filter(|content| contents(&known).contains(content));
        let content = content.ok_or_else(|| anyhow!("{path:?} is no version that it may be"))?;
        let part = Part {
            offset: 0,
            length: content.size,
        };
        match read(&file, content, Way::Positioned, part).with_context(|| path.to_owned())? {
            Outcome::Right { .. } => {}
            Outcome::Failed(error) if error.raw_os_error() == Some(libc::ESTALE) => {
                stale.push((path.to_owned(), content));
            }
            Outcome::Failed(error) => bail!("reading {path:?}: {error}"),
        }
    }
    Ok(stale)
}

/// Tries again while a version that the source has again is still said to be gone.
fn until_settled(path: &str, once: impl Fn() -> Result<Shown>) -> Result<Shown> {
    let mut last = once();
    if matches!(last, Ok(Shown::StaleForNow(_))) {
        wait_until(&format!("{path:?}, which the source has again"), || {
            last = once();
            !matches!(last, Ok(Shown::StaleForNow(_)))
        });
    }
    last
}

fn place<T>(held: &[T], index: u16) -> Option<usize> {
    usize::from(index).checked_rem(held.len())
}

fn pick<T>(held: &mut [T], index: u16) -> Option<&mut T> {
    place(held, index).map(|place| &mut held[place])
}

fn take<T>(held: &mut Vec<T>, index: u16) {
    if let Some(place) = place(held, index) {
        held.remove(place);
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
