//! Memory of processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use procfs::ProcError;
use procfs::process::Process;
use serde::Serialize;

use crate::{Error, Result};

/// Sampling interval of [`MemoryPeak`].
const INTERVAL: Duration = Duration::from_millis(50);

/// Resident memory in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Anonymous: heap and stacks.
    pub anonymous_bytes: u64,
    /// Shared: tmpfs and shared anonymous maps.
    pub shared_bytes: u64,
    /// Mapped files, which the kernel can reclaim.
    pub file_bytes: u64,
    /// Peak of all three together (`VmHWM`).
    pub high_water_bytes: u64,
}

impl Memory {
    /// Returns the bytes that cannot be reclaimed: anonymous and shared.
    pub fn held_bytes(self) -> u64 {
        self.anonymous_bytes + self.shared_bytes
    }

    fn plus(self, other: Self) -> Self {
        Self {
            anonymous_bytes: self.anonymous_bytes + other.anonymous_bytes,
            shared_bytes: self.shared_bytes + other.shared_bytes,
            file_bytes: self.file_bytes + other.file_bytes,
            high_water_bytes: self.high_water_bytes + other.high_water_bytes,
        }
    }

    fn of(pid: i32) -> Result<Self, ProcError> {
        let status = Process::new(pid)?.status()?;
        let bytes = |kib: Option<u64>| kib.unwrap_or_default() * 1024;
        Ok(Self {
            anonymous_bytes: bytes(status.rssanon),
            shared_bytes: bytes(status.rssshmem),
            file_bytes: bytes(status.rssfile),
            high_water_bytes: bytes(status.vmhwm),
        })
    }
}

/// Returns the memory of processes together; an exited one counts as zero.
///
/// # Errors
/// If a running one cannot be read.
pub fn memory(pids: &[i32]) -> Result<Memory> {
    let mut sum = Memory::default();
    for &pid in pids {
        match Memory::of(pid) {
            Ok(memory) => sum = sum.plus(memory),
            Err(ProcError::NotFound(_)) => {}
            Err(source) => return Err(Error::Process { pid, source }),
        }
    }
    Ok(sum)
}

/// Thread that samples the memory of changing processes twenty times a second.
#[derive(Debug)]
pub struct MemoryPeak {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Memory>,
}

impl MemoryPeak {
    /// Starts to sample the processes that `pids` returns at each sample.
    ///
    /// # Panics
    /// If no thread can be started.
    pub fn watch(pids: impl Fn() -> Vec<i32> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut peak = Memory::default();
            while !stopped.load(Ordering::Relaxed) {
                // A failed sample is skipped.
                if let Ok(now) = memory(&pids())
                    && now.held_bytes() >= peak.held_bytes()
                {
                    peak = now;
                }
                std::thread::park_timeout(INTERVAL);
            }
            peak
        });
        Self { stop, thread }
    }

    /// Stops, and returns the sample with the most memory.
    ///
    /// # Panics
    /// If the sampling thread panicked.
    pub fn finish(self) -> Memory {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().expect("the sampling thread does not panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_memory_is_anonymous_and_counted() {
        const BYTES: usize = 64 << 20;
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let peak = MemoryPeak::watch(move || vec![own]);
        let before = memory(&[own]).expect("read /proc").anonymous_bytes;
        let touched = std::hint::black_box(vec![1_u8; BYTES]);
        let after = memory(&[own]).expect("read /proc");
        assert!(after.anonymous_bytes >= before + BYTES as u64 / 2);
        assert!(after.high_water_bytes >= after.anonymous_bytes);
        drop(touched);
        assert!(peak.finish().held_bytes() > 0);
    }
}
