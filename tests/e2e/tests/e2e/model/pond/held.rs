//! Operations on files and directories that are held open, during all other operations.

use std::fs::File;

use anyhow::{Result, ensure};
use harness::View;

use super::paths::until_settled;
use super::{Pond, Shown, file_xattr};
use crate::model::listing::HeldDirectory;
use crate::model::modifying::FILE_CALLS;
use crate::model::operation::{Part, Way};
use crate::model::source::Content;

/// As many as are held at most; more are closed from the oldest on.
const MAX_HELD: usize = 12;

pub(super) struct HeldFile {
    file: File,
    pub(super) path: &'static str,
    content: Content,
    direct: bool,
}

impl Pond {
    pub(super) fn open(&mut self, path: &'static str, direct: bool) -> Result<()> {
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

    pub(super) fn read_open(&mut self, file: u16, way: Way, part: Part) -> Result<()> {
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

    pub(super) fn stat_open(&mut self, file: u16) -> Result<()> {
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

    pub(super) fn modify_open(&mut self, file: u16, how: u16) -> Result<()> {
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

    pub(super) fn open_directory(&mut self, path: &'static str) -> Result<()> {
        if let (Shown::Directory, Some(file)) = self.open_path(path, false)? {
            let expected = self.expected(path)?;
            if self.directories.len() == MAX_HELD {
                self.directories.remove(0);
            }
            self.directories
                .push(HeldDirectory::new(file, path, expected, self.floor));
        }
        Ok(())
    }

    pub(super) fn list_on(&mut self, directory: u16, calls: u8) -> Result<()> {
        let now = self.source.now();
        let Some(place) = place(&self.directories, directory) else {
            return Ok(());
        };
        let held = &mut self.directories[place];
        if let Err(error) = held.list_on(calls)? {
            // Its generation may have been deleted where there is another one; a listing never just ends.
            ensure!(
                error == rustix::io::Errno::STALE && self.view == View::Fuse && held.since < now,
                "listing on: {error}"
            );
            self.directories.remove(place);
        }
        Ok(())
    }
}

fn place<T>(held: &[T], index: u16) -> Option<usize> {
    usize::from(index).checked_rem(held.len())
}

pub(super) fn pick<T>(held: &mut [T], index: u16) -> Option<&mut T> {
    place(held, index).map(|place| &mut held[place])
}

pub(super) fn take<T>(held: &mut Vec<T>, index: u16) {
    if let Some(place) = place(held, index) {
        held.remove(place);
    }
}
