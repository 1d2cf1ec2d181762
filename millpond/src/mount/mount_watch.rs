//! Changes of the table of mounts, as the kernel tells them.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::sync::Notify;
use tracing::warn;

/// The watcher looks at least this often whether anybody still listens.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Tells of changes as long as it lives.
#[derive(Debug)]
pub(crate) struct MountChanges {
    changed: Arc<Notify>,
}

impl MountChanges {
    /// Starts to watch, on a thread that ends soon after this is dropped.
    ///
    /// # Errors
    /// Where `/proc` is not mounted, or there is no thread.
    pub(crate) fn watch() -> io::Result<Self> {
        let table = File::open("/proc/self/mountinfo")?;
        let changed = Arc::new(Notify::new());
        let listener = Arc::downgrade(&changed);
        let watch = move || {
            let wait = Timespec {
                tv_sec: i64::try_from(LONGEST_WAIT.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: 0,
            };
            while let Some(listener) = listener.upgrade() {
                // The kernel keeps the last state that each descriptor was told of, so no change falls between two calls.
                let mut polled = [PollFd::new(&table, PollFlags::PRI)];
                let result = rustix::event::poll(&mut polled, Some(&wait));
                // Also without a change: whoever listens looks again, should one not have been told.
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
