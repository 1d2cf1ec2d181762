//! The directory of a tier, and every name in it.
//!
//! ```text
//! state.json          state.rs
//! objects/ab/cdef…    complete objects; `.cdef…`: one that is being evicted, `~cdef….N`: a corrupt one
//! landing/ab/cdef…    hard links to objects that were just fetched
//! partial/abcdef…     objects of which some blocks are here
//! seals/abcdef…       checksums of objects that are too large to carry them, and maps of partial ones
//! unverified/ab/cdef… objects that came through a crash of the machine
//! temporary/          files without a name yet; emptied on open
//! ```
//!
//! All goes by descriptors of these directories, never through a symbolic link, and only to regular files. Directories
//! are 0711 and files 0644, less the umask: the kernel view opens objects with the rights of whoever mounted it, which
//! need not be the worker that owns them. Nobody else can list ids, which are 128-bit hashes, or write. (The owner
//! must: a worker without root may not set an attribute on a file of mode 0444, nor go on with a partial one.)
//!
//! A descriptor of a directory that was deleted answers ENOENT; [`Directory::recreate`] makes it again.

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
const XATTR_BYTES_MAX: usize = 4096;

/// One of the directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Root,
    Objects,
    Landing,
    Partial,
    Seals,
    Unverified,
    Temporary,
}

impl Place {
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

/// The name under which an object is found in a place.
pub(crate) fn name_in(place: Place, id: ObjectId) -> String {
    match place {
        Place::Objects | Place::Landing | Place::Unverified => id.path(),
        Place::Root | Place::Partial | Place::Seals | Place::Temporary => id.to_string(),
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

/// Whether a file's name is that of an object with wrong bytes.
pub(crate) fn is_corrupt(name: &[u8]) -> bool {
    name.starts_with(b"~")
}

/// The object that a hidden file's directory and name mean.
pub(crate) fn evicting_id(directory: &[u8], name: &[u8]) -> Option<ObjectId> {
    ObjectId::from_components(directory, name.strip_prefix(b".")?)
}

impl Directory {
    /// Opens and locks a tier's directory, making what is not there.
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

    /// The same directory again, with what was deleted of it made anew; locked like the first, unless it is the same.
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
        let open = |place: Place| -> io::Result<OwnedFd> {
            match mkdirat(&root, place.name(), Mode::from_raw_mode(DIRECTORY_MODE)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Ok(openat(&root, place.name(), flags, Mode::empty())?)
        };
        Ok(Self {
            path: path.to_owned(),
            objects: open(Place::Objects)?,
            landing: open(Place::Landing)?,
            partial: open(Place::Partial)?,
            seals: open(Place::Seals)?,
            unverified: open(Place::Unverified)?,
            temporary: open(Place::Temporary)?,
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

    pub(crate) fn fd(&self, place: Place) -> BorrowedFd<'_> {
        match place {
            Place::Root => self.root.as_fd(),
            Place::Objects => self.objects.as_fd(),
            Place::Landing => self.landing.as_fd(),
            Place::Partial => self.partial.as_fd(),
            Place::Seals => self.seals.as_fd(),
            Place::Unverified => self.unverified.as_fd(),
            Place::Temporary => self.temporary.as_fd(),
        }
    }

    /// Opens a regular file for reading; `None` where there is none, or where it is being evicted right now.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn open(&self, place: Place, name: &str) -> io::Result<Option<File>> {
        self.open_for(place, name, OFlags::RDONLY)
    }

    /// Opens a regular file for reading and writing; `None` where there is none.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn open_writable(&self, place: Place, name: &str) -> io::Result<Option<File>> {
        self.open_for(place, name, OFlags::RDWR)
    }

    fn open_for(&self, place: Place, name: &str, access: OFlags) -> io::Result<Option<File>> {
        // NONBLOCK: neither a pipe that somebody put here nor a lease of ours makes us wait.
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
    pub(crate) fn stat(&self, place: Place, name: &str) -> Option<Stat> {
        let stat = statat(self.fd(place), name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then_some(stat)
    }

    /// Makes a new file in a flat place.
    ///
    /// # Errors
    /// The file system's; `EEXIST` where the name is taken.
    pub(crate) fn create(&self, place: Place, name: &str) -> io::Result<File> {
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
        let mut file = self.create(Place::Temporary, &name)?;
        let written = write_all(&mut file, content).and_then(|()| match xattr {
            Some(value) => Ok(fsetxattr(&file, SEAL_XATTR, value, XattrFlags::empty())?),
            None => Ok(()),
        });
        drop(file);
        match written {
            Ok(()) => Ok(name),
            Err(error) => {
                self.remove(Place::Temporary, &name).ok();
                Err(error)
            }
        }
    }

    /// Reads the seal that an object carries itself.
    pub(crate) fn xattr(file: &File) -> Option<Vec<u8>> {
        let mut value = vec![0; XATTR_BYTES_MAX];
        let length = rustix::fs::fgetxattr(file, SEAL_XATTR, &mut value[..]).ok()?;
        value.truncate(length);
        Some(value)
    }

    /// Gives a file a second name; whether that name was free.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn link(&self, from: (Place, &str), to: (Place, &str)) -> io::Result<bool> {
        let link = || linkat(self.fd(from.0), from.1, self.fd(to.0), to.1, AtFlags::empty());
        match self.with_shard(to, link) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Renames a file over whatever has the new name.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn rename(&self, from: (Place, &str), to: (Place, &str)) -> io::Result<()> {
        Ok(self.with_shard(to, || renameat(self.fd(from.0), from.1, self.fd(to.0), to.1))?)
    }

    /// Renames a file unless the new name is taken; whether it was free.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn rename_new(&self, from: (Place, &str), to: (Place, &str)) -> io::Result<bool> {
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

    /// Removes a name; whether it was there.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn remove(&self, place: Place, name: &str) -> io::Result<bool> {
        match unlinkat(self.fd(place), name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Does `change`, and again after making the directory `ab` of `ab/cdef…` where that was missing.
    fn with_shard(&self, to: (Place, &str), change: impl Fn() -> Result<(), Errno>) -> Result<(), Errno> {
        let changed = change();
        let (Err(Errno::NOENT), Some((shard, _))) = (changed, to.1.split_once('/')) else {
            return changed;
        };
        match mkdirat(self.fd(to.0), shard, Mode::from_raw_mode(DIRECTORY_MODE)) {
            Ok(()) | Err(Errno::EXIST) => change(),
            Err(error) => Err(error),
        }
    }

    /// The entries of a directory in a place (`.` for the place itself): name and, where the file system tells, type.
    ///
    /// # Errors
    /// The file system's; a directory that is not there has no entries.
    pub(crate) fn list(&self, place: Place, directory: &str) -> io::Result<Vec<(Vec<u8>, FileType)>> {
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
