//! The memory of the mounts' processes, watched as long as they live.

use std::sync::Arc;

use millpond_measure::{Memory, MemoryPeak, program_below};
use parking_lot::Mutex;
use serde::Serialize;

/// Millpond's processes are called so.
pub(crate) const PROGRAM: &str = "millpond";

/// The most that the processes of one mount held at once.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Peak {
    /// What was done with the mount.
    pub(crate) during: String,
    #[serde(flatten)]
    pub(crate) memory: Memory,
}

/// Watches the processes of one mount.
#[derive(Debug)]
pub(crate) struct Watch {
    /// `None`: they come and go, and are looked for each time.
    known: Arc<Mutex<Option<Vec<i32>>>>,
    /// `None`: it was finished.
    peak: Option<MemoryPeak>,
}

impl Watch {
    pub(crate) fn start() -> Self {
        let known = Arc::new(Mutex::new(None));
        let shared = Arc::clone(&known);
        let peak = MemoryPeak::watch(move || {
            let known: Option<Vec<i32>> = shared.lock().clone();
            known.unwrap_or_else(|| processes().unwrap_or_default())
        });
        Self {
            known,
            peak: Some(peak),
        }
    }

    /// From now on only these are watched, which costs the machine next to nothing.
    pub(crate) fn settle(&self, pids: &[i32]) {
        *self.known.lock() = Some(pids.to_vec());
    }

    pub(crate) fn finish(mut self) -> Memory {
        self.peak.take().map_or_else(Memory::default, MemoryPeak::finish)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(peak) = self.peak.take() {
            peak.finish();
        }
    }
}

/// Millpond's processes that this one started, at some remove.
pub(crate) fn processes() -> millpond_measure::Result<Vec<i32>> {
    program_below(rustix::process::getpid().as_raw_nonzero().get(), PROGRAM)
}
