//! The fanotify group of one generation: receives every open in the marked views of it.
//!
//! One group per generation, because an event names an inode number of the generation's image and nothing that
//! distinguishes its views. Marks are on the file systems, not on mounts: a pod opens through a bind mount in its
//! own namespace. A mark ends with its file system.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use millpond_catalog::Catalog;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use parking_lot::Mutex;

use super::super::error::ViewError;
use super::super::spec::OverlayMode;
use super::event::{Event, Events};
use super::sink::{OpenSink, OpensByInode};

/// 1,600 events by handle in one read.
const BUFFER_BYTES: usize = 128 << 10;

/// A fanotify group that reports opens.
#[derive(Debug)]
pub(crate) struct OpenEvents {
    fanotify: Fanotify,
    mode: OverlayMode,
}

impl OpenEvents {
    pub(crate) fn new(mode: OverlayMode) -> Result<Self, ViewError> {
        let report = match mode {
            OverlayMode::Handles => InitFlags::from_bits_retain(libc::FAN_REPORT_FID),
            OverlayMode::Descriptors => InitFlags::empty(),
        };
        // Unlimited, because what the default of 16,384 events loses is lost silently. By thread, because the kernel merges
        // two events that are alike.
        let flags = InitFlags::FAN_CLASS_NOTIF
            | InitFlags::FAN_CLOEXEC
            | InitFlags::FAN_NONBLOCK
            | InitFlags::FAN_UNLIMITED_QUEUE
            | InitFlags::FAN_REPORT_TID
            | report;
        let fanotify = Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC)
            .map_err(refused("make a fanotify group"))?;
        Ok(Self { fanotify, mode })
    }

    /// Reports the opens of a view from now on, given any of its mounts.
    pub(crate) fn mark(&self, mount: BorrowedFd<'_>) -> Result<(), ViewError> {
        let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM;
        self.fanotify
            .mark(flags, MaskFlags::FAN_OPEN, mount, Some("."))
            .map_err(refused("count the opens of a view"))
    }

    /// Returns whether events wait to be read.
    pub(crate) fn is_pending(&self) -> Result<bool, ViewError> {
        let mut polled = [PollFd::new(self.fanotify.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut polled, PollTimeout::ZERO).map_err(refused("poll the events of opens"))? > 0)
    }
}

/// The opens of one generation's views. See the module's documentation.
pub(crate) struct Group {
    events: OpenEvents,
    catalog: Arc<Catalog>,
    /// Held while events are read and until they are counted: so a drain that returns has counted all that came before it.
    /// Reads do not wait.
    buffer: Mutex<Vec<u8>>,
}

impl Group {
    pub(crate) fn new(mode: OverlayMode, catalog: Arc<Catalog>) -> Result<Self, ViewError> {
        Ok(Self {
            events: OpenEvents::new(mode)?,
            catalog,
            buffer: Mutex::new(vec![0; BUFFER_BYTES]),
        })
    }

    /// Counts the opens of a view of this generation from now on, given any of its mounts.
    pub(crate) fn mark(&self, mount: BorrowedFd<'_>) -> Result<(), ViewError> {
        self.events.mark(mount)
    }

    /// Counts all that the queue holds now.
    pub(crate) fn drain(&self, sink: &OpenSink) {
        let mut buffer = self.buffer.lock();
        let mut opens = OpensByInode::new();
        match self.events.mode {
            OverlayMode::Handles => self.read_handles(&mut buffer, &mut opens, sink),
            OverlayMode::Descriptors => self.read_descriptors(&mut opens, sink),
        }
        sink.count(&self.catalog, &opens);
    }

    fn read_handles(&self, buffer: &mut [u8], opens: &mut OpensByInode, sink: &OpenSink) {
        loop {
            let read = match rustix::io::read(self.events.fanotify.as_fd(), &mut *buffer) {
                Ok(length) => buffer.get(..length).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => return,
                Err(error) => {
                    tracing::warn!(%error, "failed to read events of opens");
                    sink.metrics.events_lost.inc();
                    return;
                }
            };
            for event in Events::new(read) {
                match event {
                    Event::Opened(inode) => add(opens, inode),
                    Event::Unknown | Event::Overflow => sink.metrics.events_lost.inc(),
                }
            }
        }
    }

    /// Reads events of which each opens its file in this process, by the kernel, in the call that reads it: so few at a time
    /// are held. Where the file is in the FUSE mount of this very process, the call waits for this process, the one case that
    /// the mounter ([`crate::mounter`]) cannot prevent: this way of counting is for kernels whose overlays have no file handles.
    fn read_descriptors(&self, opens: &mut OpensByInode, sink: &OpenSink) {
        sink.fuse_opens
            .exclude(rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned());
        loop {
            let events = match self.events.fanotify.read_events() {
                Ok(events) => events,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return,
                Err(error) => {
                    tracing::warn!(%error, "failed to read events of opens");
                    sink.metrics.events_lost.inc();
                    return;
                }
            };
            for event in &events {
                let stat = event.fd().and_then(|fd| rustix::fs::fstat(fd).ok());
                match stat {
                    Some(stat) => add(opens, stat.st_ino),
                    None => sink.metrics.events_lost.inc(),
                }
            }
        }
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.fanotify.as_fd()
    }
}

fn add(opens: &mut OpensByInode, inode: u64) {
    let times = opens.entry(inode).or_insert(0);
    *times = times.saturating_add(1);
}

fn refused(action: &'static str) -> impl FnOnce(Errno) -> ViewError {
    move |error| ViewError::system(action)(error.into())
}
