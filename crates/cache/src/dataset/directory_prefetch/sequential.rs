//! Detection of readers that access a directory sequentially.
//!
//! The catalog lists a directory in one order, and gives its files inode numbers in that order, so sequential
//! access (`cp -r`, `tar`, a loader without shuffling) appears as misses that move forward in small steps within
//! one directory. After a few such steps the next files are prefetched, twice as many each time the reader reaches
//! them. Misses in any other order reset the detection, so a shuffled epoch over a large directory prefetches
//! nothing.
//!
//! The kernel serves prefetched files without the worker: the next miss is at the first file behind them.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Directories tracked concurrently, each with a sequential reader.
const MAX_DIRECTORIES: usize = 64;

/// Steps forward before the first prefetch.
const STEPS_BEFORE: u32 = 3;

/// The first number of files to prefetch.
const MIN_FILES: usize = 4;

/// The largest number of files to prefetch: at 100 KB a file 25 MB.
const MAX_FILES: usize = 256;

/// Files to prefetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PrefetchRange {
    /// The inode number after which they follow.
    pub(super) after: u64,
    /// The directory cookie after that file, if it is known.
    pub(super) cookie: Option<u64>,
    /// Their largest number.
    pub(super) files: usize,
}

/// The directories that are accessed, most of them sequentially.
#[derive(Debug)]
pub(super) struct SequentialDetector {
    /// Distance in inode numbers within which a few parallel readers of one directory are.
    near: u64,
    /// The most recently used is at the back.
    accesses: Mutex<VecDeque<DirectoryAccess>>,
}

#[derive(Clone, Copy, Debug)]
struct DirectoryAccess {
    directory: u64,
    /// The furthest miss.
    last: u64,
    /// The last file that was prefetched; `last` if none was.
    until: u64,
    /// The directory cookie after `until`.
    cookie: Option<u64>,
    /// The inode number, between them, from which on the next batch is due.
    due: u64,
    steps: u32,
    files: usize,
}

impl DirectoryAccess {
    const fn new(directory: u64, inode: u64) -> Self {
        Self {
            directory,
            last: inode,
            until: inode,
            cookie: None,
            due: inode,
            steps: 0,
            files: MIN_FILES,
        }
    }

    fn step(&mut self, inode: u64, near: u64) -> Option<PrefetchRange> {
        if inode > self.until.saturating_add(near) || inode.saturating_add(near) < self.last {
            *self = Self::new(self.directory, inode);
            return None;
        }
        if inode <= self.last {
            return None;
        }
        self.last = inode;
        if inode > self.until {
            self.until = inode;
            self.cookie = None;
        }
        self.steps = self.steps.saturating_add(1);
        if self.steps < STEPS_BEFORE || inode < self.due {
            return None;
        }
        let prefetch = PrefetchRange {
            after: self.until,
            cookie: self.cookie,
            files: self.files,
        };
        self.files = self.files.saturating_mul(2).min(MAX_FILES);
        Some(prefetch)
    }
}

impl SequentialDetector {
    /// Returns an empty detector. `near` is the distance in inode numbers that still counts as a step.
    pub(super) const fn new(near: u64) -> Self {
        Self {
            near,
            accesses: Mutex::new(VecDeque::new()),
        }
    }

    /// Records a miss, and returns what to prefetch if the access is sequential.
    pub(super) fn on_miss(&self, directory: u64, inode: u64) -> Option<PrefetchRange> {
        let mut accesses = self.accesses.lock();
        let found = accesses.iter().rposition(|access| access.directory == directory);
        let mut access = match found.and_then(|at| accesses.remove(at)) {
            Some(access) => access,
            None => DirectoryAccess::new(directory, inode),
        };
        let prefetch = access.step(inode, self.near);
        if accesses.len() >= MAX_DIRECTORIES {
            accesses.pop_front();
        }
        accesses.push_back(access);
        prefetch
    }

    /// Records that the files up to `until` are being prefetched, after which the directory continues at `cookie`;
    /// the next batch is due at a miss of `due` or later.
    pub(super) fn on_prefetch(&self, directory: u64, due: u64, until: u64, cookie: u64) {
        let mut accesses = self.accesses.lock();
        if let Some(access) = accesses
            .iter_mut()
            .rfind(|access| access.directory == directory && access.until <= until)
        {
            access.until = until;
            access.cookie = Some(cookie);
            access.due = access.due.max(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten inode numbers a file, as in an image with short names.
    const STRIDE: u64 = 10;
    const NEAR: u64 = 160;

    /// Misses `files` in order, where prefetched ones are not missed; returns the batches.
    fn read(detector: &SequentialDetector, order: &[u64], follow: bool) -> Vec<PrefetchRange> {
        let mut prefetched = 0;
        let mut batches = Vec::new();
        for &file in order {
            if follow && file <= prefetched {
                continue;
            }
            if let Some(prefetch) = detector.on_miss(1, file * STRIDE) {
                prefetched = prefetch.after / STRIDE + u64::try_from(prefetch.files).unwrap();
                let half = prefetched - u64::try_from(prefetch.files).unwrap() / 2;
                detector.on_prefetch(1, half * STRIDE, prefetched * STRIDE, prefetched);
                batches.push(prefetch);
            }
        }
        batches
    }

    #[test]
    fn a_sequential_reader_prefetches_twice_as_many_each_time() {
        let order: Vec<u64> = (0..2_000).collect();
        let sizes: Vec<usize> = read(&SequentialDetector::new(NEAR), &order, true)
            .iter()
            .map(|prefetch| prefetch.files)
            .collect();
        assert_eq!(sizes[..8], [4, 8, 16, 32, 64, 128, 256, 256]);
    }

    #[test]
    fn sequential_access_by_several_readers_is_sequential() {
        let order: Vec<u64> = (0..50)
            .flat_map(|group| [2, 0, 3, 1].map(|i| group * 4 + i))
            .collect();
        assert!(read(&SequentialDetector::new(NEAR), &order, true).len() > 2);
    }

    #[test]
    fn a_shuffled_epoch_prefetches_nothing() {
        let files = 10_007_u64;
        let order: Vec<u64> = (0..files).map(|i| i * 7_919 % files).collect();
        assert_eq!(read(&SequentialDetector::new(NEAR), &order, false), []);
    }

    #[test]
    fn access_that_stops_being_sequential_starts_over() {
        let detector = SequentialDetector::new(NEAR);
        assert!(!read(&detector, &(0..100).collect::<Vec<_>>(), true).is_empty());
        assert_eq!(detector.on_miss(1, 5_000 * STRIDE), None);
        assert_eq!(detector.on_miss(1, 5_001 * STRIDE), None);
        assert_eq!(detector.on_miss(1, 5_002 * STRIDE), None);
        assert_eq!(
            detector.on_miss(1, 5_003 * STRIDE).map(|prefetch| prefetch.files),
            Some(MIN_FILES)
        );
    }

    #[test]
    fn many_directories_do_not_grow_the_table() {
        let detector = SequentialDetector::new(NEAR);
        for directory in 0..10_000 {
            detector.on_miss(directory, 1);
        }
        assert_eq!(detector.accesses.lock().len(), MAX_DIRECTORIES);
    }
}
