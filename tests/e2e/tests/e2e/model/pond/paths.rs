//! Operations on what a path leads to.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use harness::{View, wait_until};

use super::{Pond, Shown, file_xattr, number, xattr};
use crate::model::listing::Expected;
use crate::model::modifying::CALLS;
use crate::model::operation::{Part, Way};
use crate::model::reading::{Outcome, read};
use crate::model::source::Content;
use crate::model::tree::Node;

impl Pond {
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    pub(super) fn root(&self) -> &Path {
        self.mount.as_ref().expect("it is mounted").path()
    }

    pub(super) fn stat(&self, path: &'static str) -> Result<Shown> {
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
    pub(super) fn stat_again(&self, path: &'static str, before: &std::fs::Metadata) -> Result<Shown> {
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

    pub(super) fn content(&self, etag: &[u8]) -> Result<Content> {
        let etag = String::from_utf8_lossy(etag);
        self.source
            .content_of(&etag)
            .ok_or_else(|| anyhow!("no object ever had the ETag {etag}"))
    }

    pub(super) fn list(&self, path: &'static str) -> Result<()> {
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

    pub(super) fn expected(&self, path: &str) -> Result<Expected> {
        let candidates = self.candidates(path);
        Expected::of(path, candidates.iter().map(|(_, tree)| *tree))
            .ok_or_else(|| anyhow!("{path:?} was opened as a directory"))
    }

    /// Opens a path and finds out what it is.
    pub(super) fn open_path(&self, path: &'static str, direct: bool) -> Result<(Shown, Option<File>)> {
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
    pub(super) fn refused_direct(&self, path: &'static str) -> Result<Shown> {
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
    pub(super) fn stale_open(&self, path: &'static str) -> Result<Shown> {
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
    pub(super) fn read_path(&self, path: &'static str, way: Way, part: Part) -> Result<Shown> {
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
    pub(super) fn read_file(
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
                // In a kernel view a small object is complete before it is opened; else the last bytes may be in flight.
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

    pub(super) fn xattrs(&self, path: &'static str) -> Result<()> {
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

    pub(super) fn statfs(&self, path: &'static str) -> Result<()> {
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

    pub(super) fn modify(&self, path: &'static str, how: u16) -> Result<()> {
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
}

/// Retries while a version that the source has again is still reported as deleted.
pub(super) fn until_settled(path: &str, once: impl Fn() -> Result<Shown>) -> Result<Shown> {
    let mut last = once();
    if matches!(last, Ok(Shown::StaleForNow(_))) {
        wait_until(&format!("{path:?}, which the source has again"), || {
            last = once();
            !matches!(last, Ok(Shown::StaleForNow(_)))
        });
    }
    last
}
