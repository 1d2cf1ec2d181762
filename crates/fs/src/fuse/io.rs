//! The kernel's interfaces of the FUSE server beyond `fuser`'s safe API: memory shared with a successor, backing
//! ids, a descriptor that replaces another one, and mapped files.
#![expect(unsafe_code, reason = "shared memory, ioctls, dup3 and maps have no safe API")]

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use fuser::{BackingId, FileHandle, FopenFlags, ReplyOpen};
use memmap2::{Mmap, MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{Advice, madvise};

nix::ioctl_write_ptr!(
    /// Unregisters a backing id (`FUSE_DEV_IOC_BACKING_CLOSE`).
    backing_close,
    229,
    2,
    u32
);

/// Memory that outlives its process: an anonymous file of fixed size, of which the keeper holds a descriptor.
#[derive(Debug)]
pub(crate) struct SharedWords {
    file: OwnedFd,
    map: MmapRaw,
    words: usize,
}

impl SharedWords {
    /// Creates a new one, all zero. Pages that were never written occupy no memory.
    pub(crate) fn create(words: usize) -> io::Result<Self> {
        let file =
            rustix::fs::memfd_create("millpond-opens", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, (words * size_of::<u64>()) as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::adopt(file, words)
    }

    /// Maps one of another process.
    ///
    /// # Errors
    /// `InvalidData` where it has another size, or could shrink under the map.
    pub(crate) fn adopt(file: OwnedFd, words: usize) -> io::Result<Self> {
        let length = words * size_of::<u64>();
        let sealed = rustix::fs::fcntl_get_seals(&file)?.contains(SealFlags::SHRINK);
        let status = rustix::fs::fstat(&file)?;
        if !sealed || u64::try_from(status.st_size).ok() != Some(length as u64) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let map = MmapOptions::new().len(length).map_raw(&file)?;
        Ok(Self { file, map, words })
    }

    /// The file, for a successor.
    pub(crate) const fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// One word, or `None` beyond the end.
    pub(crate) fn word(&self, index: usize) -> Option<&AtomicU64> {
        // SAFETY: the map is page-aligned, `words` words long (checked in `adopt`, and sealed against shrinking),
        // lives as long as `self`, and every process reaches it through atomics only.
        (index < self.words).then(|| unsafe { &*self.map.as_ptr().cast::<AtomicU64>().add(index) })
    }
}

/// Unregisters `id`. An unknown id is a success.
pub(crate) fn close_backing(device: &OwnedFd, id: u32) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the kernel only reads the four bytes that the pointer leads to.
    match unsafe { backing_close(device.as_raw_fd(), &id) } {
        Ok(_) | Err(nix::errno::Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Replies to an open with a registered backing id, which stays registered.
pub(crate) fn reply_passthrough(reply: ReplyOpen, handle: FileHandle, flags: FopenFlags, id: u32) {
    // SAFETY: the id is registered with this connection, and the table of opens, which has the handle by now,
    // closes it only after that handle's release. `into_raw` keeps the wrapper from closing it.
    let backing: BackingId = unsafe { reply.wrap_backing(id) };
    reply.opened_passthrough(handle, flags, &backing);
    let _still_registered = backing.into_raw();
}

/// Makes the descriptor number of `place` refer to the file of `descriptor`, while other threads use the number.
pub(crate) fn put_in_place(descriptor: &OwnedFd, place: impl AsFd) -> io::Result<()> {
    // SAFETY: the number is open for the whole call, and `ManuallyDrop` keeps it from being closed here.
    let mut place = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(place.as_fd().as_raw_fd()) });
    rustix::io::dup3(descriptor, &mut place, rustix::io::DupFlags::CLOEXEC)?;
    Ok(())
}

/// Maps a complete object to serve reads from it.
pub(crate) fn map_object(file: &File) -> io::Result<Arc<Mmap>> {
    // SAFETY: objects are never written once they are complete. If one is truncated all the same, its bytes
    // are only ever read by the kernel ([`populate`], `writev` of a reply), which returns EFAULT instead of a signal.
    Ok(Arc::new(unsafe { Mmap::map(file) }?))
}

/// Reads mapped bytes into memory, so that a reply with them causes no page fault.
///
/// # Errors
/// The file cannot be read there, or was truncated. Kernels before 5.14 read nothing and return no error.
pub(crate) fn populate(bytes: &[u8]) -> io::Result<()> {
    let page = rustix::param::page_size();
    let before = bytes.as_ptr().addr() % page;
    let start = bytes.as_ptr().wrapping_sub(before).cast_mut();
    // SAFETY: the advice changes no memory, only what of it is present; the range lies in the mapping of `bytes`, whose
    // pages it rounds to.
    match unsafe { madvise(start.cast(), before + bytes.len(), Advice::LinuxPopulateRead) } {
        Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
