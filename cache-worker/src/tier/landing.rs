//! When the links in `landing/` go.
//!
//! A kernel view that waits for an object finds it in `landing/` a moment after the worker's answer. Minutes later
//! nobody needs the link; a lookup that comes even then ends in the view's last layer, which serves it through FUSE.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use catalog::ObjectId;
use parking_lot::Mutex;

/// Links remembered at once (5 MiB of heap): beyond, the oldest goes early.
const LINKS_MAX: usize = 131_072;

/// The links that are there, oldest first.
#[derive(Debug)]
pub(crate) struct Landing {
    keep: Duration,
    links: Mutex<VecDeque<(Instant, ObjectId)>>,
}

impl Landing {
    pub(crate) const fn new(keep: Duration) -> Self {
        Self {
            keep,
            links: Mutex::new(VecDeque::new()),
        }
    }

    /// How long a link stays.
    pub(crate) const fn keep(&self) -> Duration {
        self.keep
    }

    /// Remembers a new link. Says which one has to go for it, if the list is full.
    pub(crate) fn landed(&self, id: ObjectId, now: Instant) -> Option<ObjectId> {
        let mut links = self.links.lock();
        links.push_back((now, id));
        if links.len() > LINKS_MAX {
            links.pop_front().map(|(_, oldest)| oldest)
        } else {
            None
        }
    }

    /// Takes the links whose time is over.
    pub(crate) fn take_old(&self, now: Instant) -> Vec<ObjectId> {
        let mut links = self.links.lock();
        let old = links.partition_point(|(landed, _)| now.duration_since(*landed) >= self.keep);
        links.drain(..old).map(|(_, id)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_for_its_time() {
        let landing = Landing::new(Duration::from_secs(120));
        let start = Instant::now();
        let id = ObjectId::from_bytes([7; 16]);
        assert_eq!(landing.landed(id, start), None);
        assert_eq!(landing.take_old(start + Duration::from_secs(119)), vec![]);
        assert_eq!(landing.take_old(start + Duration::from_secs(120)), vec![id]);
        assert_eq!(landing.take_old(start + Duration::from_secs(500)), vec![]);
    }

    #[test]
    fn the_list_is_bounded() {
        let landing = Landing::new(Duration::from_secs(120));
        let now = Instant::now();
        let first = ObjectId::from_bytes([1; 16]);
        landing.landed(first, now);
        let early: Vec<_> = (0..LINKS_MAX)
            .filter_map(|_| landing.landed(ObjectId::from_bytes([2; 16]), now))
            .collect();
        assert_eq!(early, vec![first]);
    }
}
