//! Files without a name whose space is not free yet.
//!
//! A file system gives an inode up when all of its names, all descriptors and all of the kernel's own references are gone. A
//! write lease sees the descriptors only: a thread that is about to open the file, or in the middle of closing it (the
//! kernel first counts it out and then lets the inode go), or a lookup under way holds it unseen, for microseconds or,
//! on a busy machine, for as long as that thread waits for a processor. So after its last name was removed the inode
//! itself is asked for by its handle, and its room is given back when there is none. Where we may not ask (without
//! CAP_DAC_READ_SEARCH) it is given back at once.

use std::fs::File;

use parking_lot::Mutex;

use super::Tier;
use super::accounting::SpaceReservation;
use super::directory::Directory;
use super::io::InodeHandle;

/// A file without a name, and its room.
#[derive(Debug)]
struct Unlinked {
    inode: InodeHandle,
    #[expect(dead_code, reason = "given back when dropped")]
    room: SpaceReservation,
}

impl Unlinked {
    fn is_gone(&self, directory: &Directory) -> bool {
        self.inode.is_freed(directory.root()) != Some(false)
    }
}

/// Those of one tier; few, for a short time.
#[derive(Debug, Default)]
pub(crate) struct UnlinkedFiles {
    files: Mutex<Vec<Unlinked>>,
}

impl UnlinkedFiles {
    /// Whether there are any.
    pub(crate) fn is_any(&self) -> bool {
        !self.files.lock().is_empty()
    }
}

impl Tier {
    /// Gives the room of a file that was just unlinked back, now or when its space is free. Whether it is.
    pub(super) fn unlinked(&self, file: File, room: SpaceReservation) -> bool {
        let Some(inode) = InodeHandle::of(&file) else {
            drop(file);
            return true;
        };
        drop(file);
        let unlinked = Unlinked { inode, room };
        let is_gone = unlinked.is_gone(&self.directory());
        if !is_gone {
            self.lingering.files.lock().push(unlinked);
        }
        is_gone
    }

    /// Gives the room back of files that are gone by now; whether there were any.
    pub(crate) fn sweep_lingering(&self) -> bool {
        let files = std::mem::take(&mut *self.lingering.files.lock());
        let directory = self.directory();
        let (gone, left): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.is_gone(&directory));
        self.lingering.files.lock().extend(left);
        !gone.is_empty()
    }

    pub(crate) const fn lingering(&self) -> &UnlinkedFiles {
        &self.lingering
    }
}
