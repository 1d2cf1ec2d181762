//! When the links in `landing/` go.
//!
//! A kernel view that waits for an object finds it in `landing/` a moment after the worker's answer. Minutes later
//! nobody needs the link; a lookup that comes even then ends in the view's last layer, which serves it through FUSE.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use millpond_core::ObjectId;
use parking_lot::Mutex;

/// Landings remembered at once (10 MiB of heap): beyond, the oldest link goes early.
const LINKS_MAX: usize = 131_072;

/// The links that are there.
#[derive(Debug)]
pub(crate) struct LandingLinks {
    keep: Duration,
    links: Mutex<Links>,
}

/// Landings, oldest first; an object that landed again is there again.
#[derive(Debug, Default)]
struct Links {
    order: VecDeque<(Instant, ObjectId)>,
    /// How often each is in the order: its link goes with the last one.
    times: HashMap<ObjectId, u32>,
}

impl Links {
    /// Forgets the oldest landing; the object, if it was its last.
    fn pop(&mut self) -> Option<ObjectId> {
        let (_, id) = self.order.pop_front()?;
        let times = self.times.get_mut(&id)?;
        *times -= 1;
        if *times > 0 {
            return None;
        }
        self.times.remove(&id);
        Some(id)
    }
}

impl LandingLinks {
    pub(crate) fn new(keep: Duration) -> Self {
        Self {
            keep,
            links: Mutex::default(),
        }
    }

    /// How long a link stays.
    pub(crate) const fn keep(&self) -> Duration {
        self.keep
    }

    /// Remembers a landing. Says which link has to go for it, if the list is full.
    pub(crate) fn landed(&self, id: ObjectId, now: Instant) -> Option<ObjectId> {
        let mut links = self.links.lock();
        links.order.push_back((now, id));
        *links.times.entry(id).or_insert(0) += 1;
        if links.order.len() > LINKS_MAX {
            links.pop()
        } else {
            None
        }
    }

    /// Whether an object's link has its time before it.
    pub(crate) fn remembers(&self, id: ObjectId) -> bool {
        self.links.lock().times.contains_key(&id)
    }

    /// Takes the links whose time is over.
    pub(crate) fn take_old(&self, now: Instant) -> Vec<ObjectId> {
        let mut links = self.links.lock();
        let old = links
            .order
            .partition_point(|(landed, _)| now.duration_since(*landed) >= self.keep);
        (0..old).filter_map(|_| links.pop()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_for_its_time() {
        let landing = LandingLinks::new(Duration::from_secs(120));
        let start = Instant::now();
        let id = ObjectId::from_bytes([7; 16]);
        assert_eq!(landing.landed(id, start), None);
        assert_eq!(landing.take_old(start + Duration::from_secs(119)), vec![]);
        assert_eq!(landing.take_old(start + Duration::from_secs(120)), vec![id]);
        assert_eq!(landing.take_old(start + Duration::from_secs(500)), vec![]);
    }

    #[test]
    fn a_link_that_landed_again_stays_from_then_on() {
        let landing = LandingLinks::new(Duration::from_secs(120));
        let start = Instant::now();
        let id = ObjectId::from_bytes([7; 16]);
        landing.landed(id, start);
        landing.landed(id, start + Duration::from_secs(100));
        assert_eq!(landing.take_old(start + Duration::from_secs(130)), vec![]);
        assert!(landing.remembers(id));
        assert_eq!(landing.take_old(start + Duration::from_secs(220)), vec![id]);
        assert!(!landing.remembers(id));
    }

    #[test]
    fn the_list_is_bounded() {
        let landing = LandingLinks::new(Duration::from_secs(120));
        let now = Instant::now();
        let first = ObjectId::from_bytes([1; 16]);
        landing.landed(first, now);
        let early: Vec<_> = (0..LINKS_MAX as u128)
            .filter_map(|number| landing.landed(ObjectId::from_bytes((number << 8).to_be_bytes()), now))
            .collect();
        assert_eq!(early, vec![first]);
    }
}
