//! Readers that walk a directory: their next files are fetched before they ask.
//!
//! The catalog lists a directory in one order, and gives its files inode numbers in that order, so a walk (`cp -r`,
//! `tar`, a loader without shuffling) shows as misses that go forward in small steps within one directory. After a
//! few such steps the next files are fetched ahead, twice as many each time the walk reaches them. Misses in any
//! other order reset it at once, so a shuffled epoch over a large directory fetches nothing ahead.
//!
//! What was fetched ahead is served by the kernel without a word to the worker: the walk shows again only at the
//! first file behind it.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Directories remembered at once: as many as readers walk different directories at the same time.
const MAX_WALKS: usize = 64;

/// Steps forward before anything is fetched ahead.
const STEPS_BEFORE: u32 = 3;

/// The first number of files ahead.
const MIN_FILES: usize = 4;

/// The largest number of files ahead: at 100 KB a file 25 MB.
const MAX_FILES: usize = 256;

/// What to fetch ahead of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PrefetchRange {
    /// The files that follow the one with this inode number.
    pub(super) after: u64,
    /// Where the directory's listing goes on after that file, where that is known.
    pub(super) cookie: Option<u64>,
    /// How many of them at most.
    pub(super) files: usize,
}

/// The walks that are going on.
#[derive(Debug)]
pub(super) struct SequentialDetector {
    /// How far apart inode numbers of files are that a few parallel readers of one walk ask for at once.
    near: u64,
    /// The one used last is at the back.
    walks: Mutex<VecDeque<Walk>>,
}

#[derive(Clone, Copy, Debug)]
struct Walk {
    directory: u64,
    /// The furthest miss.
    last: u64,
    /// The last file that was asked for ahead; `last` where none was.
    until: u64,
    /// Where the directory's listing goes on after `until`.
    cookie: Option<u64>,
    /// Where, between them, the next batch is due.
    due: u64,
    steps: u32,
    files: usize,
}

impl Walk {
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
        let ahead = PrefetchRange {
            after: self.until,
            cookie: self.cookie,
            files: self.files,
        };
        self.files = self.files.saturating_mul(2).min(MAX_FILES);
        Some(ahead)
    }
}

impl SequentialDetector {
    /// No walks yet. `near` is the distance in inode numbers that still counts as a step.
    pub(super) const fn new(near: u64) -> Self {
        Self {
            near,
            walks: Mutex::new(VecDeque::new()),
        }
    }

    /// Takes note of a miss and says what to fetch ahead, if this is a walk.
    pub(super) fn missed(&self, directory: u64, inode: u64) -> Option<PrefetchRange> {
        let mut walks = self.walks.lock();
        let found = walks.iter().rposition(|walk| walk.directory == directory);
        let mut walk = match found.and_then(|at| walks.remove(at)) {
            Some(walk) => walk,
            None => Walk::new(directory, inode),
        };
        let ahead = walk.step(inode, self.near);
        if walks.len() >= MAX_WALKS {
            walks.pop_front();
        }
        walks.push_back(walk);
        ahead
    }

    /// Says which files are being fetched ahead: up to `until`, after which the listing goes on at `cookie`; the
    /// next batch is to follow at a miss of `due` or later.
    pub(super) fn extended(&self, directory: u64, due: u64, until: u64, cookie: u64) {
        let mut walks = self.walks.lock();
        if let Some(walk) = walks
            .iter_mut()
            .rfind(|walk| walk.directory == directory && walk.until <= until)
        {
            walk.until = until;
            walk.cookie = Some(cookie);
            walk.due = walk.due.max(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten inode numbers a file, as in an image with short names.
    const STRIDE: u64 = 10;
    const NEAR: u64 = 160;

    /// Misses `files` in order, where those fetched ahead are not missed; returns the batches.
    fn walk(neighbours: &SequentialDetector, order: &[u64], follow: bool) -> Vec<PrefetchRange> {
        let mut here = 0;
        let mut batches = Vec::new();
        for &file in order {
            if follow && file <= here {
                continue;
            }
            if let Some(ahead) = neighbours.missed(1, file * STRIDE) {
                here = ahead.after / STRIDE + u64::try_from(ahead.files).unwrap();
                let half = here - u64::try_from(ahead.files).unwrap() / 2;
                neighbours.extended(1, half * STRIDE, here * STRIDE, here);
                batches.push(ahead);
            }
        }
        batches
    }

    #[test]
    fn a_walk_fetches_twice_as_many_each_time() {
        let order: Vec<u64> = (0..2_000).collect();
        let sizes: Vec<usize> = walk(&SequentialDetector::new(NEAR), &order, true)
            .iter()
            .map(|ahead| ahead.files)
            .collect();
        assert_eq!(sizes[..8], [4, 8, 16, 32, 64, 128, 256, 256]);
    }

    #[test]
    fn a_walk_by_several_readers_at_once_is_a_walk() {
        let order: Vec<u64> = (0..50)
            .flat_map(|group| [2, 0, 3, 1].map(|i| group * 4 + i))
            .collect();
        assert!(walk(&SequentialDetector::new(NEAR), &order, true).len() > 2);
    }

    #[test]
    fn a_shuffled_epoch_fetches_nothing_ahead() {
        let files = 10_007_u64;
        let order: Vec<u64> = (0..files).map(|i| i * 7_919 % files).collect();
        assert_eq!(walk(&SequentialDetector::new(NEAR), &order, false), []);
    }

    #[test]
    fn a_walk_that_stops_being_one_starts_over() {
        let neighbours = SequentialDetector::new(NEAR);
        assert!(!walk(&neighbours, &(0..100).collect::<Vec<_>>(), true).is_empty());
        assert_eq!(neighbours.missed(1, 5_000 * STRIDE), None);
        assert_eq!(neighbours.missed(1, 5_001 * STRIDE), None);
        assert_eq!(neighbours.missed(1, 5_002 * STRIDE), None);
        assert_eq!(
            neighbours.missed(1, 5_003 * STRIDE).map(|ahead| ahead.files),
            Some(MIN_FILES)
        );
    }

    #[test]
    fn many_directories_do_not_grow_the_table() {
        let neighbours = SequentialDetector::new(NEAR);
        for directory in 0..10_000 {
            neighbours.missed(directory, 1);
        }
        assert_eq!(neighbours.walks.lock().len(), MAX_WALKS);
    }
}
