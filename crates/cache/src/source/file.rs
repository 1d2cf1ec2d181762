//! A directory of this host as a source.
//!
//! A user with write access to the directory must not reach the rest of the host: the kernel resolves every name
//! beneath the directory (`openat2`, `RESOLVE_BENEATH`), so neither `..` nor a symbolic link leads out of it, not
//! even in a race. Links to files inside are followed; links to directories are not, so that a listing ends. A
//! version is the modification time and the size; both are checked before the bytes are read and after.
//!
//! Limits: a directory is listed as one page, so its names are in memory together (some 200 bytes each). A file
//! that is overwritten in place within one tick of the file system's clock (some milliseconds), with its size
//! unchanged, is not noticed.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use millpond_core::{Time, Validator};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::page::{Entry, Page};
use super::{AttemptError, GetRequest, SourceError};

/// Reads of this size reach the disk's speed and hold little memory.
const CHUNK_BYTES: u64 = 1 << 20;

/// An open directory.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    root: Arc<OwnedFd>,
}

/// What a name refers to.
enum Target {
    File(Time, u64),
    LinkOutside,
    Special,
    Missing,
}

impl Directory {
    /// Opens the directory at `path`, which may itself be reached through links.
    pub(super) fn open(path: &PathBuf) -> Result<Self, SourceError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|error| {
            let field = "url".to_owned();
            let problem = format!("failed to open {}: {}", path.display(), io::Error::from(error));
            match error {
                Errno::NOENT => SourceError::NotFound { field, problem },
                Errno::ACCESS | Errno::PERM => SourceError::Denied { field, problem },
                _ => SourceError::Invalid {
                    field,
                    problem,
                    fix: "name a directory".to_owned(),
                },
            }
        })?;
        Ok(Self { root: Arc::new(root) })
    }

    /// Opens a name, if it leads to something inside. Never blocks on the other end of a pipe.
    fn beneath(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let name = if name.is_empty() { "." } else { name };
        let mut flags = flags | OFlags::CLOEXEC;
        if !flags.contains(OFlags::PATH) {
            flags |= OFlags::NONBLOCK | OFlags::NOCTTY;
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(&self.root, name, flags, Mode::empty(), resolve) {
                // A concurrent rename: the kernel could not decide whether the path stays beneath.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// Returns the entries directly below `prefix`, all in one page.
    pub(super) async fn page(&self, prefix: &str) -> Result<Page, AttemptError> {
        let directory = self.clone();
        let prefix = prefix.to_owned();
        off_thread(move || directory.read_directory(&prefix)).await
    }

    fn read_directory(&self, prefix: &str) -> Result<Page, AttemptError> {
        let opened = self.beneath(
            prefix.strip_suffix('/').unwrap_or(prefix),
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW,
        );
        let fd = match opened {
            Ok(fd) => fd,
            Err(error) => return Err(attempt_error(error)),
        };
        let mut page = Page::default();
        for item in rustix::fs::Dir::read_from(&fd).map_err(attempt_error)? {
            let item = item.map_err(attempt_error)?;
            let name = match item.file_name().to_str() {
                Ok("." | "..") => continue,
                Ok(name) => name.to_owned(),
                Err(_not_text) => {
                    let key = format!("{prefix}{}", item.file_name().to_string_lossy());
                    page.entries.push(Entry {
                        key,
                        damaged: true,
                        ..Entry::default()
                    });
                    continue;
                }
            };
            let key = format!("{prefix}{name}");
            let kind = match item.file_type() {
                FileType::Unknown => self.kind(&key),
                kind => kind,
            };
            if kind == FileType::Directory {
                page.prefixes.push(key + "/");
                continue;
            }
            page.entries.extend(self.entry(key, kind));
        }
        Ok(page)
    }

    /// Returns the kind, for file systems that do not report it in a listing.
    fn kind(&self, key: &str) -> FileType {
        let stat = self
            .beneath(key, OFlags::PATH | OFlags::NOFOLLOW)
            .and_then(|fd| rustix::fs::fstat(&fd));
        stat.map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
    }

    fn entry(&self, key: String, kind: FileType) -> Option<Entry> {
        let found = match kind {
            FileType::RegularFile | FileType::Symlink => self.inspect(&key),
            _ => Target::Special,
        };
        match found {
            Target::File(modified, size) => Some(Entry {
                key,
                size_bytes: Some(size),
                modified: Some(modified),
                ..Entry::default()
            }),
            Target::Missing => None,
            Target::LinkOutside => Some(Entry {
                key,
                link_outside: true,
                ..Entry::default()
            }),
            Target::Special => Some(Entry {
                key,
                special: true,
                ..Entry::default()
            }),
        }
    }

    /// Returns what a file or a link leads to. Not opened for reading: that may have side effects on a special
    /// file.
    fn inspect(&self, key: &str) -> Target {
        match self
            .beneath(key, OFlags::PATH)
            .and_then(|fd| rustix::fs::fstat(&fd))
        {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                let (Ok(nanos), Ok(size)) = (u32::try_from(stat.st_mtime_nsec), u64::try_from(stat.st_size))
                else {
                    return Target::Special;
                };
                Target::File(
                    Time {
                        secs: stat.st_mtime,
                        nanos,
                    },
                    size,
                )
            }
            Ok(_) => Target::Special,
            // A dangling link cannot be distinguished from one whose target is being deleted.
            Err(Errno::XDEV | Errno::LOOP | Errno::ACCESS) => Target::LinkOutside,
            Err(_) => Target::Missing,
        }
    }

    /// Returns the bytes of a range, if the file is and stays the requested version.
    pub(super) async fn get(
        &self,
        request: &GetRequest,
    ) -> Result<BoxStream<'static, Result<Bytes, AttemptError>>, AttemptError> {
        let directory = self.clone();
        let key = request.key.clone();
        let version = Version::of(request)?;
        let file = off_thread(move || directory.open_file(&key, version)).await?;
        let file = Arc::new(file);
        let rest = stream::try_unfold(request.range.clone(), move |range| {
            let file = Arc::clone(&file);
            async move {
                if range.is_empty() {
                    return Ok(None);
                }
                let end = range.end.min(range.start.saturating_add(CHUNK_BYTES));
                let chunk = off_thread(move || read(&file, range.start..end, version)).await?;
                Ok(Some((chunk, end..range.end)))
            }
        });
        Ok(rest.boxed())
    }

    fn open_file(&self, key: &str, version: Version) -> Result<File, AttemptError> {
        let file = File::from(self.beneath(key, OFlags::RDONLY).map_err(attempt_error)?);
        version.check(&file)?;
        Ok(file)
    }
}

/// The properties that identify a version.
#[derive(Clone, Copy, Debug)]
struct Version {
    modified: Time,
    size_bytes: u64,
}

impl Version {
    fn of(request: &GetRequest) -> Result<Self, AttemptError> {
        match request.validator {
            Validator::Modified { time } => Ok(Self {
                modified: time,
                size_bytes: request.size_bytes,
            }),
            // Files have no such validator: the catalog was built from another source.
            Validator::ETag(_) | Validator::VersionId(_) => Err(AttemptError::Changed),
        }
    }

    fn check(self, file: &File) -> Result<(), AttemptError> {
        let metadata = file
            .metadata()
            .map_err(|error| AttemptError::Failed(error.to_string()))?;
        let same = metadata.is_file()
            && metadata.len() == self.size_bytes
            && metadata.mtime() == self.modified.secs
            && metadata.mtime_nsec() == i64::from(self.modified.nanos);
        if same { Ok(()) } else { Err(AttemptError::Changed) }
    }
}

/// Reads all of `range`, and checks the version afterwards: bytes read before the check are of that version.
fn read(file: &File, range: std::ops::Range<u64>, version: Version) -> Result<Bytes, AttemptError> {
    let length = usize::try_from(range.end - range.start)
        .map_err(|_too_long| AttemptError::Permanent("a chunk does not fit into memory".to_owned()))?;
    let mut chunk = BytesMut::zeroed(length);
    let result = file.read_exact_at(&mut chunk, range.start);
    version.check(file)?;
    match result {
        Ok(()) => Ok(chunk.freeze()),
        Err(error) => Err(AttemptError::Failed(error.to_string())),
    }
}

fn attempt_error(error: Errno) -> AttemptError {
    let reason = io::Error::from(error).to_string();
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::ISDIR | Errno::XDEV | Errno::LOOP => AttemptError::Changed,
        Errno::ACCESS | Errno::PERM => AttemptError::Denied(reason),
        Errno::NOSYS => AttemptError::Unsupported(
            "directories as sources need openat2, that is Linux 5.6 or later".to_owned(),
        ),
        _ => AttemptError::Failed(reason),
    }
}

/// Runs blocking file system calls on a blocking thread.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AttemptError> + Send + 'static,
) -> Result<T, AttemptError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(ended) => Err(AttemptError::Failed(format!("the reading thread ended: {ended}"))),
    }
}

#[cfg(test)]
mod tests;
