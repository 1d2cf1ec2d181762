//! Links in `landing/`, and when they are removed.
//!
//! A kernel view that waits for an object finds it in `landing/` within milliseconds of the worker's response. Minutes later
//! no lookup needs the link; one that comes even then ends in the view's last layer, which serves the object through FUSE.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond_core::ObjectId;
use parking_lot::Mutex;

use super::directory::{TierDir, name_in};
use super::files::TierFiles;

/// Links whose age is known at one time (10 MiB of heap): beyond, the oldest link is removed early.
const MAX_LINKS: usize = 131_072;

/// The links in a tier's `landing/`.
#[derive(Debug)]
pub(crate) struct LandingLinks {
    files: Arc<TierFiles>,
    ages: LinkAges,
}

impl LandingLinks {
    pub(super) fn new(files: &Arc<TierFiles>, ttl: Duration) -> Arc<Self> {
        Arc::new(Self {
            files: Arc::clone(files),
            ages: LinkAges::new(ttl),
        })
    }

    /// How long a link stays.
    pub(crate) const fn ttl(&self) -> Duration {
        self.ages.ttl
    }

    /// Links an object that is complete and verified; returns whether the link is there now.
    pub(super) fn link(&self, id: ObjectId) -> bool {
        match self.files.directory().link(
            (TierDir::Objects, &name_in(TierDir::Objects, id)),
            (TierDir::Landing, &name_in(TierDir::Landing, id)),
        ) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
            Err(error) => {
                self.files.failed("link an object into landing/", &error);
                return false;
            }
        }
        if !self.files.has_object(id) {
            // Evicted between the kernel's lookup of the old name and its creation of the new one.
            self.remove(id);
            return false;
        }
        self.remember(id);
        true
    }

    /// Notes that an object was linked now.
    pub(super) fn remember(&self, id: ObjectId) {
        if let Some(early) = self.ages.linked(id, Instant::now()) {
            self.remove(early);
        }
    }

    /// Removes a link.
    pub(super) fn remove(&self, id: ObjectId) {
        let name = name_in(TierDir::Landing, id);
        if let Err(error) = self.files.directory().remove(TierDir::Landing, &name) {
            self.files.failed("remove a landing link", &error);
        }
    }

    /// Takes the links whose time is over, for [`remove_expired`](Self::remove_expired).
    pub(crate) fn take_expired(&self, now: Instant) -> Vec<ObjectId> {
        self.ages.take_expired(now)
    }

    /// Removes links whose time is over, but for objects that were linked again meanwhile. Blocks.
    pub(crate) fn remove_expired(&self, expired: Vec<ObjectId>) {
        expired
            .into_iter()
            .filter(|id| !self.has(*id))
            .for_each(|id| self.remove(id));
    }

    /// Returns whether an object has a link whose time is not over.
    pub(crate) fn has(&self, id: ObjectId) -> bool {
        self.ages.has(id)
    }
}

/// The creation times of links.
#[derive(Debug)]
struct LinkAges {
    ttl: Duration,
    links: Mutex<Links>,
}

/// Links, oldest first; an object that was linked again is there again.
#[derive(Debug, Default)]
struct Links {
    order: VecDeque<(Instant, ObjectId)>,
    /// How often each is in the order: its link is removed with the last one.
    times: HashMap<ObjectId, u32>,
}

impl Links {
    /// Removes the oldest link from the order; returns the object, if it was its last.
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

impl LinkAges {
    fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            links: Mutex::default(),
        }
    }

    /// Notes a link. Returns the link that has to be removed for it, if there are too many.
    fn linked(&self, id: ObjectId, now: Instant) -> Option<ObjectId> {
        let mut links = self.links.lock();
        links.order.push_back((now, id));
        *links.times.entry(id).or_insert(0) += 1;
        if links.order.len() > MAX_LINKS {
            links.pop()
        } else {
            None
        }
    }

    /// Returns whether an object has a link whose time is not over.
    fn has(&self, id: ObjectId) -> bool {
        self.links.lock().times.contains_key(&id)
    }

    /// Takes the links whose time is over.
    fn take_expired(&self, now: Instant) -> Vec<ObjectId> {
        let mut links = self.links.lock();
        let expired = links
            .order
            .partition_point(|(linked, _)| now.duration_since(*linked) >= self.ttl);
        (0..expired).filter_map(|_| links.pop()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_for_its_time() {
        let ages = LinkAges::new(Duration::from_secs(120));
        let start = Instant::now();
        let id = ObjectId::from_bytes([7; 16]);
        assert_eq!(ages.linked(id, start), None);
        assert_eq!(ages.take_expired(start + Duration::from_secs(119)), vec![]);
        assert_eq!(ages.take_expired(start + Duration::from_secs(120)), vec![id]);
        assert_eq!(ages.take_expired(start + Duration::from_secs(500)), vec![]);
    }

    #[test]
    fn an_object_that_was_linked_again_stays_from_then_on() {
        let ages = LinkAges::new(Duration::from_secs(120));
        let start = Instant::now();
        let id = ObjectId::from_bytes([7; 16]);
        ages.linked(id, start);
        ages.linked(id, start + Duration::from_secs(100));
        assert_eq!(ages.take_expired(start + Duration::from_secs(130)), vec![]);
        assert!(ages.has(id));
        assert_eq!(ages.take_expired(start + Duration::from_secs(220)), vec![id]);
        assert!(!ages.has(id));
    }

    #[test]
    fn the_list_is_bounded() {
        let ages = LinkAges::new(Duration::from_secs(120));
        let now = Instant::now();
        let first = ObjectId::from_bytes([1; 16]);
        ages.linked(first, now);
        let early: Vec<_> = (0..MAX_LINKS as u128)
            .filter_map(|number| ages.linked(ObjectId::from_bytes((number << 8).to_be_bytes()), now))
            .collect();
        assert_eq!(early, vec![first]);
    }
}
