//! Unlinked files whose space is not free yet.
//!
//! A file system frees an inode when the last of its names, descriptors and references of the kernel's own is dropped. A
//! write lease sees the descriptors only: a thread that is about to open the file, or is closing it (the kernel first
//! counts it out and then drops its reference to the inode), or a lookup in progress holds it unseen, for microseconds or,
//! on a busy machine, for as long as that thread waits for a processor. So after its last name was removed the inode
//! itself is looked up by its handle, and its space is released when there is none. Where that is not permitted (without
//! CAP_DAC_READ_SEARCH) it is released immediately.

use std::fs::File;
use std::sync::Arc;

use parking_lot::Mutex;

use super::accounting::SpaceReservation;
use super::directory::Directory;
use super::files::TierFiles;
use super::io::InodeHandle;

/// An unlinked file and its space.
#[derive(Debug)]
struct UnlinkedFile {
    inode: InodeHandle,
    #[expect(dead_code, reason = "released when dropped")]
    reservation: SpaceReservation,
}

impl UnlinkedFile {
    fn is_freed(&self, directory: &Directory) -> bool {
        self.inode.is_freed(directory.root()) != Some(false)
    }
}

/// The unlinked files of a tier; few, for a short time.
#[derive(Debug)]
pub(crate) struct UnlinkedFiles {
    files: Arc<TierFiles>,
    unlinked: Mutex<Vec<UnlinkedFile>>,
}

impl UnlinkedFiles {
    pub(super) fn new(files: &Arc<TierFiles>) -> Arc<Self> {
        Arc::new(Self {
            files: Arc::clone(files),
            unlinked: Mutex::default(),
        })
    }

    /// Returns whether there are any.
    pub(crate) fn has_any(&self) -> bool {
        !self.unlinked.lock().is_empty()
    }

    /// Releases the space of a file that was just unlinked, now or when its inode is freed. Returns whether it is.
    pub(super) fn release(&self, file: File, reservation: SpaceReservation) -> bool {
        let Some(inode) = InodeHandle::of(&file) else {
            drop(file);
            return true;
        };
        drop(file);
        let unlinked = UnlinkedFile { inode, reservation };
        let is_freed = unlinked.is_freed(&self.files.directory());
        if !is_freed {
            self.unlinked.lock().push(unlinked);
        }
        is_freed
    }

    /// Releases the space of files whose inodes are freed by now; returns whether there were any.
    pub(crate) fn sweep(&self) -> bool {
        let unlinked = std::mem::take(&mut *self.unlinked.lock());
        let directory = self.files.directory();
        let (freed, left): (Vec<_>, Vec<_>) =
            unlinked.into_iter().partition(|file| file.is_freed(&directory));
        self.unlinked.lock().extend(left);
        !freed.is_empty()
    }
}
