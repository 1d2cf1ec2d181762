//! Opens that the kernel serves alone, counted by fanotify.
//!
//! One thread reads the events of all generations ([`OpenCounter`]); their inode numbers become object ids by the catalog;
//! opens in which FUSE had a part are deducted ([`FuseOpenLog`]); the rest is reported to the worker.
//!
//! Limits: two opens of one file by one thread, in one view or in two of one generation, are one event if the first
//! was still unread at the second (the kernel merges equal events); the reader waits [`EVENT_BATCH_INTERVAL`] between two
//! reads. So readers that do not reopen a file within that time are counted exactly. Nothing is counted while no driver
//! runs.

mod event;
mod fuse_open_log;
mod group;
mod handle;
mod sink;

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::Mutex;

use super::error::ViewError;

pub(crate) use fuse_open_log::FuseOpenLog;
pub(crate) use group::{Group, OpenEvents};
pub(crate) use sink::OpenSink;

/// Between two reads: long enough that a busy view costs 200 wake-ups per second and not one per open.
const EVENT_BATCH_INTERVAL: Duration = Duration::from_millis(5);

/// The thread that reads the events of all groups of a Dataset.
pub(crate) struct OpenCounter {
    shared: Arc<Shared>,
    /// Wakes the thread: a byte after a change of the groups, the end of the stream to stop it.
    wake: Mutex<Option<UnixStream>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    groups: Mutex<Vec<Arc<Group>>>,
    sink: Arc<OpenSink>,
}

impl OpenCounter {
    /// Starts the thread.
    pub(crate) fn start(sink: Arc<OpenSink>) -> io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            groups: Mutex::default(),
            sink,
        });
        let reader = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("view-opens".to_owned())
            .spawn(move || reader.read(woken))?;
        Ok(Self {
            shared,
            wake: Mutex::new(Some(wake)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Reads the events of `group` too.
    pub(crate) fn add(&self, group: Arc<Group>) {
        self.shared.groups.lock().push(group);
        self.wake();
    }

    /// Counts what `group` has received up to now.
    pub(crate) fn drain(&self, group: &Group) {
        group.drain(&self.shared.sink);
    }

    /// Counts what is left in `group` and removes it.
    pub(crate) fn remove(&self, group: &Arc<Group>) {
        self.drain(group);
        self.shared
            .groups
            .lock()
            .retain(|known| !Arc::ptr_eq(known, group));
        self.wake();
    }

    fn wake(&self) {
        if let Some(wake) = self.wake.lock().as_mut() {
            // A full pipe wakes as well.
            let _full = wake.write(&[0]);
        }
    }

    /// Counts what is left and stops the thread.
    pub(crate) fn stop(&self) {
        drop(self.wake.lock().take());
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the reader of open events panicked");
        }
    }
}

impl Drop for OpenCounter {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn read(&self, mut woken: UnixStream) {
        loop {
            let groups = self.groups.lock().clone();
            let waited: Vec<BorrowedFd<'_>> = groups.iter().map(|group| group.as_fd()).collect();
            let ended = match wait(&woken, &waited, PollTimeout::NONE) {
                Ok(true) => is_ended(&mut woken),
                Ok(false) => false,
                Err(error) => {
                    tracing::error!(%error, "failed to poll open events; opens are not counted until a restart");
                    return;
                }
            };
            for group in &groups {
                group.drain(&self.sink);
            }
            if ended {
                return;
            }
            let interval = PollTimeout::try_from(EVENT_BATCH_INTERVAL).unwrap_or(PollTimeout::ZERO);
            if let Err(error) = wait(&woken, &[], interval) {
                tracing::debug!(%error, "failed to wait between two reads of open events");
            }
        }
    }
}

/// Waits for events or a wake-up; returns whether it was a wake-up.
fn wait(woken: &UnixStream, groups: &[BorrowedFd<'_>], timeout: PollTimeout) -> Result<bool, ViewError> {
    let mut descriptors = vec![PollFd::new(woken.as_fd(), PollFlags::POLLIN)];
    descriptors.extend(groups.iter().map(|group| PollFd::new(*group, PollFlags::POLLIN)));
    match poll(&mut descriptors, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(ViewError::system("wait for events")(error.into())),
    }
    Ok(descriptors.first().and_then(PollFd::any).unwrap_or(false))
}

/// Reads the wake-ups; returns whether the other end is closed.
fn is_ended(woken: &mut UnixStream) -> bool {
    let mut bytes = [0; 64];
    loop {
        match woken.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}
