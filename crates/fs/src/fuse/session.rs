//! What is negotiated with the kernel about a connection, and how a new process joins one.
//!
//! `fuser` begins each session by waiting for the kernel's INIT, which an established connection never sends again. So a
//! successor passes it one end of a socket pair that holds a synthetic INIT, and replaces that socket by the real descriptor
//! before the first request is read. The kernel keeps to what it negotiated with the first server, so the synthetic INIT
//! offers exactly that.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use fuser::{Config, InitFlags, KernelConfig, Session, SessionACL};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use super::filesystem::FuseFilesystem;
use super::io::put_in_place;

/// Requests of the kernel's own (readahead, releases) in flight; its default of 12 underuses a network.
const MAX_BACKGROUND: u16 = 64;
/// The largest request (the kernel's own limit by default).
const MAX_REQUEST_BYTES: u32 = 1 << 20;
/// Passthrough to a file of an ordinary file system; one more layer, an overlay, may be stacked upon.
const STACK_DEPTH: u32 = 1;
/// The first version of the protocol with `FUSE_NOTIFY_INC_EPOCH`.
const EPOCH_MINOR: u32 = 44;

const NOTIFY_RESEND: i32 = 7;
const NOTIFY_INC_EPOCH: i32 = 8;

/// The result of the first INIT of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Negotiated {
    major: u32,
    minor: u32,
    max_readahead: u32,
    flags: u64,
}

impl Negotiated {
    fn has(&self, flag: InitFlags) -> bool {
        self.flags & flag.bits() == flag.bits()
    }

    /// Returns whether files may be opened by passthrough.
    pub(crate) fn passthrough(&self) -> bool {
        self.has(InitFlags::FUSE_PASSTHROUGH)
    }

    /// Returns whether the kernel can resend requests that a dead server had read.
    pub(crate) fn resends(&self) -> bool {
        self.has(InitFlags::FUSE_HAS_RESEND)
    }

    /// Returns whether one notification can invalidate all names.
    pub(crate) fn has_epochs(&self) -> bool {
        self.minor >= EPOCH_MINOR
    }
}

/// Negotiates what the server wants and the kernel offers.
///
/// With `idmap` a pod with its own user namespace can have a copy of the mount. The kernel then leaves the caller out of
/// nearly every request, so it is for mounts that all users may access.
pub(crate) fn negotiate(config: &mut KernelConfig, passthrough: bool, idmap: bool) -> Negotiated {
    let mut wanted = InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_ASYNC_DIO
        | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP
        | InitFlags::FUSE_HAS_RESEND;
    if passthrough {
        wanted |= InitFlags::FUSE_PASSTHROUGH;
    }
    if idmap {
        wanted |= InitFlags::FUSE_ALLOW_IDMAP;
    }
    let has = config.capabilities();
    let mut agreed = wanted & has;
    if agreed.contains(InitFlags::FUSE_PASSTHROUGH) && config.set_max_stack_depth(STACK_DEPTH).is_err() {
        agreed -= InitFlags::FUSE_PASSTHROUGH;
    }
    // None of these can fail: the flags are the kernel's own, the numbers are within its bounds.
    let _ = config.add_capabilities(agreed);
    let _ = config.set_max_background(MAX_BACKGROUND);
    let _ = config.set_max_write(MAX_REQUEST_BYTES);
    let max_readahead = match config.set_max_readahead(u32::MAX) {
        Ok(_) => u32::MAX,
        Err(offered) => {
            let _ = config.set_max_readahead(offered);
            offered
        }
    };
    // `fuser` requests these itself.
    let own = InitFlags::FUSE_ASYNC_READ | InitFlags::FUSE_BIG_WRITES | InitFlags::FUSE_MAX_PAGES;
    let version = config.kernel_abi();
    Negotiated {
        major: version.0,
        minor: version.1,
        max_readahead,
        flags: (agreed | own & has).bits(),
    }
}

/// Starts a session on a new connection.
pub(crate) fn begin(
    filesystem: FuseFilesystem,
    device: &OwnedFd,
    acl: SessionACL,
    threads: usize,
) -> io::Result<Session<FuseFilesystem>> {
    Session::from_fd(filesystem, device.try_clone()?, acl, config(threads))
}

/// Starts a session on a connection whose server died.
pub(crate) fn resume(
    filesystem: FuseFilesystem,
    device: &OwnedFd,
    acl: SessionACL,
    threads: usize,
    negotiated: &Negotiated,
) -> io::Result<Session<FuseFilesystem>> {
    let (kernel, server) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::send(&kernel, &init_request(negotiated), SendFlags::empty())?;
    let session = Session::from_fd(filesystem, server, acl, config(threads))?;
    put_in_place(device, &session)?;
    Ok(session)
}

/// Makes the kernel resend the requests that a dead server had read.
pub(crate) fn request_resend(device: &OwnedFd) -> io::Result<()> {
    notify(device, NOTIFY_RESEND)
}

/// Invalidates every name that the kernel has cached: it looks each up again at its next use.
pub(crate) fn invalidate_all_dentries(device: &OwnedFd) -> io::Result<()> {
    notify(device, NOTIFY_INC_EPOCH)
}

/// Sends a notification that consists of its header.
fn notify(device: &OwnedFd, code: i32) -> io::Result<()> {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&16_u32.to_ne_bytes());
    header[4..8].copy_from_slice(&code.to_ne_bytes());
    let written = rustix::io::write(device, &header)?;
    if written == header.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

fn config(threads: usize) -> Config {
    let mut config = Config::default();
    config.n_threads = Some(threads.max(1));
    // Requests read through a cloned descriptor fail when their server dies.
    config.clone_fd = false;
    config
}

/// `struct fuse_in_header` and `struct fuse_init_in`.
fn init_request(negotiated: &Negotiated) -> Vec<u8> {
    const OPCODE_INIT: u32 = 26;
    const LENGTH: u32 = 104;
    let flags = negotiated.flags | InitFlags::FUSE_INIT_EXT.bits();
    let low = u32::try_from(flags & u64::from(u32::MAX)).unwrap_or_default();
    let high = u32::try_from(flags >> 32).unwrap_or_default();
    let mut request = Vec::with_capacity(LENGTH as usize);
    request.extend(LENGTH.to_ne_bytes());
    request.extend(OPCODE_INIT.to_ne_bytes());
    request.extend(1_u64.to_ne_bytes());
    // Inode, uid, gid, pid, padding.
    request.extend([0; 24]);
    for word in [
        negotiated.major,
        negotiated.minor,
        negotiated.max_readahead,
        low,
        high,
    ] {
        request.extend(word.to_ne_bytes());
    }
    request.resize(LENGTH as usize, 0);
    request
}

/// Opens the device from which a FUSE connection is created.
pub(crate) fn open_device() -> io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/fuse")?.into())
}
