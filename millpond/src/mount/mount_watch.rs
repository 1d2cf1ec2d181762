//! Notifications of the kernel about changes of the mount table.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::sync::Notify;
use tracing::warn;

/// Longest wait of the watcher before it checks whether its [`MountChanges`] still exists.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Receiver of the notifications.
#[derive(Debug)]
pub(crate) struct MountChanges {
    changed: Arc<Notify>,
}

impl MountChanges {
    /// Starts the watcher, on a thread that exits within [`MAX_WAIT`] after this is dropped.
    ///
    /// # Errors
    /// If `/proc` is not mounted, or the thread cannot be started.
    pub(crate) fn watch() -> io::Result<Self> {
        let table = File::open("/proc/self/mountinfo")?;
        let changed = Arc::new(Notify::new());
        let listener = Arc::downgrade(&changed);
        let watch = move || {
            let wait = Timespec {
                tv_sec: i64::try_from(MAX_WAIT.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: 0,
            };
            while let Some(listener) = listener.upgrade() {
                // The kernel keeps the last state reported to each descriptor, so no change is lost between two calls.
                let mut polled = [PollFd::new(&table, PollFlags::PRI)];
                let result = rustix::event::poll(&mut polled, Some(&wait));
                // Also without a change: the listener checks the table again, in case a notification was lost.
                listener.notify_one();
                if let Err(error) = result
                    && error != rustix::io::Errno::INTR
                {
                    warn!(%error, "failed to watch the table of mounts");
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("mounts".to_owned())
            .spawn(watch)?;
        Ok(Self { changed })
    }

    /// Waits for the next change.
    ///
    /// # Cancel safety
    /// A change is not lost when it is dropped.
    pub(crate) async fn next(&self) {
        self.changed.notified().await;
    }
}
