//! The calls that Rust cannot check: mapping a cache file, write leases, and whether an inode is freed.
#![expect(
    unsafe_code,
    reason = "mmap, fcntl and file handles have no safe interface for what is needed here"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use memmap2::Mmap;

/// From asm-generic/fcntl.h; libc does not have it.
const F_SETSIG: libc::c_int = 10;

/// Maps all of a cache file for reading.
///
/// # Errors
/// The kernel's.
pub(super) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: a map is unsound where its bytes change under a `&[u8]`. Only ranges whose blocks are cached are handed
    // out; a cached block is never written again but with the very same bytes, and the file is never truncated. No other
    // process writes it: only the owner may, and the directory is locked by this one.
    unsafe { Mmap::map(file) }
}

/// Requests a write lease on `file`, which must be open for reading only. Granted exactly when it is open or mapped nowhere
/// else; refused where the file system knows no leases. It ends when the descriptor is closed.
///
/// A process that opens the file meanwhile waits until then, and the kernel sends this process a signal. It would be SIGIO,
/// deadly unless the whole process handles it; SIGURG, which is ignored by default, costs nothing.
pub(super) fn write_lease(file: &File) -> bool {
    let descriptor = file.as_raw_fd();
    // SAFETY: F_SETSIG takes an int and changes only the descriptor, which `file` keeps open.
    let signal = unsafe { libc::fcntl(descriptor, F_SETSIG, libc::SIGURG) };
    if signal != 0 {
        return false;
    }
    // SAFETY: F_SETLEASE takes an int and changes only the descriptor, which `file` keeps open.
    let lease = unsafe { libc::fcntl(descriptor, libc::F_SETLEASE, libc::F_WRLCK) };
    lease == 0
}

/// The kernel's handle of an inode, whether it has a name or not.
#[derive(Clone, Debug)]
pub(super) struct InodeHandle(Box<[u32; HANDLE_WORDS]>);

/// `struct file_handle` with `MAX_HANDLE_SZ` bytes behind it.
const HANDLE_WORDS: usize = 2 + HANDLE_BYTES as usize / 4;
const HANDLE_BYTES: u32 = 128;

impl InodeHandle {
    /// The handle of an open file; `None` where the file system has none.
    pub(super) fn of(file: &File) -> Option<Self> {
        let mut words = Box::new([0_u32; HANDLE_WORDS]);
        words[0] = HANDLE_BYTES;
        let mut mount_id = 0;
        // SAFETY: the words begin with a `file_handle` whose `handle_bytes` says how many bytes follow it, and are aligned
        // as one; the path is a string that lives long enough; `mount_id` is written once.
        let named = unsafe {
            libc::name_to_handle_at(
                file.as_raw_fd(),
                c"".as_ptr(),
                words.as_mut_ptr().cast(),
                &raw mut mount_id,
                libc::AT_EMPTY_PATH,
            )
        };
        (named == 0).then_some(Self(words))
    }

    /// Returns whether the file system has freed the inode, which it does when the last name, descriptor and reference of the
    /// kernel's own is dropped. `None` where this process lacks the permission. `directory` is any on the same file system.
    pub(super) fn is_freed(&self, directory: BorrowedFd<'_>) -> Option<bool> {
        let mut words = self.0.clone();
        // SAFETY: the words are as `name_to_handle_at` has left them, which this call only reads.
        let opened = unsafe {
            libc::open_by_handle_at(
                directory.as_raw_fd(),
                words.as_mut_ptr().cast(),
                libc::O_PATH | libc::O_CLOEXEC,
            )
        };
        if opened >= 0 {
            // SAFETY: the descriptor is new and has no other owner; it is closed immediately.
            drop(unsafe { OwnedFd::from_raw_fd(opened) });
            return Some(false);
        }
        (io::Error::last_os_error().raw_os_error() == Some(libc::ESTALE)).then_some(true)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn an_inode_is_freed_with_its_last_descriptor() {
        let folder = tempfile::TempDir::new().unwrap();
        let directory = File::open(folder.path()).unwrap();
        let path = folder.path().join("file");
        let file = File::create(&path).unwrap();
        let other = File::open(&path).unwrap();
        let handle = InodeHandle::of(&file).unwrap();
        let is_freed = || handle.is_freed(directory.as_fd());
        if is_freed().is_none() {
            assert!(!rustix::process::geteuid().is_root(), "root has the permission");
            return;
        }
        drop(file);
        assert_eq!(is_freed(), Some(false));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(is_freed(), Some(false), "it is open");
        drop(other);
        assert_eq!(is_freed(), Some(true));
    }
}
