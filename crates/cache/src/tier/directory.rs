//! The directory of a tier, and every name in it.
//!
//! ```text
//! state.json          state.rs
//! objects/ab/cdef…    complete objects; `.cdef…`: one that is being evicted, `~cdef….N`: a corrupt one
//! landing/ab/cdef…    hard links to objects that were just fetched
//! partial/abcdef…     objects of which some blocks are cached
//! seals/abcdef…       checksums of objects that are too large to carry them, and maps of partial ones
//! unverified/ab/cdef… objects that survived a crash of the machine
//! temporary/          files without a name yet; emptied on open
//! ```
//!
//! All calls go by descriptors of these directories, never through a symbolic link, and only to regular files. Directories
//! are 0711 and files 0644, less the umask: the kernel view opens objects with the rights of the process that mounted it,
//! which need not be the worker that owns them. Other users can neither list ids, which are 128-bit hashes, nor write. (The
//! owner must: a worker without root may not set an attribute on a file of mode 0444, nor continue a partial one.)
//!
//! Calls on a directory that was deleted fail with ENOENT; [`Directory::recreate`] creates it again.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use millpond_core::ObjectId;
use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags, Stat, XattrFlags, flock,
    fsetxattr, fstat, linkat, mkdirat, openat, openat2, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use super::seal::SEAL_XATTR;

const DIRECTORY_MODE: u32 = 0o711;
const FILE_MODE: u32 = 0o644;

/// The extended attribute of a sealed object has at most this many bytes.
const MAX_XATTR_BYTES: usize = 4096;

/// One of the directories of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TierDir {
    Root,
    Objects,
    Landing,
    Partial,
    Seals,
    Unverified,
    Temporary,
}

impl TierDir {
    /// All but the root.
    pub(crate) const BELOW: [Self; 6] = [
        Self::Objects,
        Self::Landing,
        Self::Partial,
        Self::Seals,
        Self::Unverified,
        Self::Temporary,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Root => ".",
            Self::Objects => "objects",
            Self::Landing => "landing",
            Self::Partial => "partial",
            Self::Seals => "seals",
            Self::Unverified => "unverified",
            Self::Temporary => "temporary",
        }
    }
}

/// The opened directories of one tier. Holds the lock on it.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    root: OwnedFd,
    objects: OwnedFd,
    landing: OwnedFd,
    partial: OwnedFd,
    seals: OwnedFd,
    unverified: OwnedFd,
    temporary: OwnedFd,
    temporaries: AtomicU64,
}

/// The name of an object in a place.
pub(crate) fn name_in(place: TierDir, id: ObjectId) -> String {
    match place {
        TierDir::Objects | TierDir::Landing | TierDir::Unverified => id.path(),
        TierDir::Root | TierDir::Partial | TierDir::Seals | TierDir::Temporary => id.to_string(),
    }
}

/// The name of an object that is being evicted, in `objects/`.
pub(crate) fn evicting_name(id: ObjectId) -> String {
    let mut name = id.path();
    name.insert(3, '.');
    name
}

/// The name of an object with wrong bytes, in `objects/`.
pub(crate) fn corrupt_name(id: ObjectId, number: u64) -> String {
    let mut name = id.path();
    name.insert(3, '~');
    format!("{name}.{number:x}")
}

/// Returns whether a file's name is that of an object with wrong bytes.
pub(crate) fn is_corrupt(name: &[u8]) -> bool {
    name.starts_with(b"~")
}

/// The object that is being evicted under a name in a directory.
pub(crate) fn evicting_id(directory: &[u8], name: &[u8]) -> Option<ObjectId> {
    ObjectId::from_components(directory, name.strip_prefix(b".")?)
}

impl Directory {
    /// Opens and locks a tier's directory, creating what does not exist.
    ///
    /// # Errors
    /// `EWOULDBLOCK` where it is locked; else the file system's.
    pub(crate) fn lock(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        flock(&root, FlockOperation::NonBlockingLockExclusive)?;
        Self::below(path, root)
    }

    /// Opens the directory again, creating what was deleted of it; locks it like the first, unless it is the same.
    ///
    /// # Errors
    /// As [`lock`](Self::lock).
    pub(crate) fn recreate(&self) -> io::Result<Self> {
        std::fs::create_dir_all(&self.path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&self.path, flags, Mode::empty())?;
        let (was, is) = (fstat(&self.root)?, fstat(&root)?);
        if (was.st_dev, was.st_ino) == (is.st_dev, is.st_ino) {
            // The lock belongs to the open file, which a duplicate shares.
            return Self::below(&self.path, self.root.try_clone()?);
        }
        flock(&root, FlockOperation::NonBlockingLockExclusive)?;
        Self::below(&self.path, root)
    }

    fn below(path: &Path, root: OwnedFd) -> io::Result<Self> {
        let open = |place: TierDir| -> io::Result<OwnedFd> {
            match mkdirat(&root, place.name(), Mode::from_raw_mode(DIRECTORY_MODE)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Ok(openat(&root, place.name(), flags, Mode::empty())?)
        };
        Ok(Self {
            path: path.to_owned(),
            objects: open(TierDir::Objects)?,
            landing: open(TierDir::Landing)?,
            partial: open(TierDir::Partial)?,
            seals: open(TierDir::Seals)?,
            unverified: open(TierDir::Unverified)?,
            temporary: open(TierDir::Temporary)?,
            temporaries: AtomicU64::new(0),
            root,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    pub(crate) fn fd(&self, place: TierDir) -> BorrowedFd<'_> {
        match place {
            TierDir::Root => self.root.as_fd(),
            TierDir::Objects => self.objects.as_fd(),
            TierDir::Landing => self.landing.as_fd(),
            TierDir::Partial => self.partial.as_fd(),
            TierDir::Seals => self.seals.as_fd(),
            TierDir::Unverified => self.unverified.as_fd(),
            TierDir::Temporary => self.temporary.as_fd(),
        }
    }

    /// Opens a regular file for reading; `None` where there is none, or where it is being evicted.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn open(&self, place: TierDir, name: &str) -> io::Result<Option<File>> {
        self.open_for(place, name, OFlags::RDONLY)
    }

    /// Opens a regular file for reading and writing; `None` where there is none.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn open_writable(&self, place: TierDir, name: &str) -> io::Result<Option<File>> {
        self.open_for(place, name, OFlags::RDWR)
    }

    fn open_for(&self, place: TierDir, name: &str, access: OFlags) -> io::Result<Option<File>> {
        // NONBLOCK: neither a pipe that another process put here nor a write lease of this process makes the call wait.
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = match openat2(self.fd(place), name, flags, Mode::empty(), resolve) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::AGAIN | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let is_regular = FileType::from_raw_mode(fstat(&file)?.st_mode) == FileType::RegularFile;
        Ok(is_regular.then(|| File::from(file)))
    }

    /// The attributes of a regular file; `None` where there is none.
    pub(crate) fn stat(&self, place: TierDir, name: &str) -> Option<Stat> {
        let stat = statat(self.fd(place), name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then_some(stat)
    }

    /// Creates a file in a flat place.
    ///
    /// # Errors
    /// The file system's; `EEXIST` where the name is taken.
    pub(crate) fn create(&self, place: TierDir, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(openat(
            self.fd(place),
            name,
            flags,
            Mode::from_raw_mode(FILE_MODE),
        )?))
    }

    /// Writes a file under a temporary name, which is returned. The file is closed for writing.
    ///
    /// # Errors
    /// The file system's; nothing is left behind.
    pub(crate) fn write_temporary(&self, content: &[Bytes], xattr: Option<&[u8]>) -> io::Result<String> {
        let name = format!("{:x}", self.temporaries.fetch_add(1, Ordering::Relaxed));
        let mut file = self.create(TierDir::Temporary, &name)?;
        let written = write_all(&mut file, content).and_then(|()| match xattr {
            Some(value) => Ok(fsetxattr(&file, SEAL_XATTR, value, XattrFlags::empty())?),
            None => Ok(()),
        });
        drop(file);
        match written {
            Ok(()) => Ok(name),
            Err(error) => {
                self.remove(TierDir::Temporary, &name).ok();
                Err(error)
            }
        }
    }

    /// Reads the seal that an object carries itself.
    pub(crate) fn xattr(file: &File) -> Option<Vec<u8>> {
        let mut value = vec![0; MAX_XATTR_BYTES];
        let length = rustix::fs::fgetxattr(file, SEAL_XATTR, &mut value[..]).ok()?;
        value.truncate(length);
        Some(value)
    }

    /// Gives a file a second name; returns whether that name was free.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn link(&self, from: (TierDir, &str), to: (TierDir, &str)) -> io::Result<bool> {
        let link = || linkat(self.fd(from.0), from.1, self.fd(to.0), to.1, AtFlags::empty());
        match self.with_shard(to, link) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Renames a file, replacing one that has the new name.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn rename(&self, from: (TierDir, &str), to: (TierDir, &str)) -> io::Result<()> {
        Ok(self.with_shard(to, || renameat(self.fd(from.0), from.1, self.fd(to.0), to.1))?)
    }

    /// Renames a file unless the new name is taken; returns whether it was free.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn rename_new(&self, from: (TierDir, &str), to: (TierDir, &str)) -> io::Result<bool> {
        let rename = || {
            renameat_with(
                self.fd(from.0),
                from.1,
                self.fd(to.0),
                to.1,
                RenameFlags::NOREPLACE,
            )
        };
        match self.with_shard(to, rename) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a name; returns whether it existed.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn remove(&self, place: TierDir, name: &str) -> io::Result<bool> {
        match unlinkat(self.fd(place), name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Calls `change`, and again after creating the directory `ab` of `ab/cdef…` where that was missing.
    fn with_shard(&self, to: (TierDir, &str), change: impl Fn() -> Result<(), Errno>) -> Result<(), Errno> {
        let changed = change();
        let (Err(Errno::NOENT), Some((shard, _))) = (changed, to.1.split_once('/')) else {
            return changed;
        };
        match mkdirat(self.fd(to.0), shard, Mode::from_raw_mode(DIRECTORY_MODE)) {
            Ok(()) | Err(Errno::EXIST) => change(),
            Err(error) => Err(error),
        }
    }

    /// The entries of a directory in a place (`.` for the place itself): name and, where the file system reports it, type.
    ///
    /// # Errors
    /// The file system's; a directory that does not exist has no entries.
    pub(crate) fn list(&self, place: TierDir, directory: &str) -> io::Result<Vec<(Vec<u8>, FileType)>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match openat(self.fd(place), directory, flags, Mode::empty()) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut entries = Vec::new();
        for entry in Dir::new(opened)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                entries.push((name.to_vec(), entry.file_type()));
            }
        }
        Ok(entries)
    }

    /// The names of a place's subdirectories: the shards that there are.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn subdirectories(&self, place: TierDir) -> io::Result<Vec<String>> {
        let entries = self.list(place, ".")?;
        Ok(entries
            .into_iter()
            .filter_map(|(name, _)| String::from_utf8(name).ok())
            .collect())
    }

    /// Removes everything in a place.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn empty(&self, place: TierDir) -> io::Result<()> {
        for name in self.subdirectories(place)? {
            let path = self.path.join(place.name()).join(&name);
            match self.remove(place, &name) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EISDIR) => std::fs::remove_dir_all(path)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Returns whether the name of a directory still leads to the one that is open.
    pub(super) fn has_name(&self, place: TierDir) -> bool {
        let named = rustix::fs::stat(self.path.join(place.name()));
        let opened = fstat(self.fd(place));
        match (named, opened) {
            (Ok(named), Ok(opened)) => (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino),
            (Err(_), _) | (_, Err(_)) => false,
        }
    }
}

fn write_all(file: &mut File, content: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<_> = content
        .iter()
        .filter(|chunk| !chunk.is_empty())
        .map(|chunk| IoSlice::new(chunk))
        .collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
