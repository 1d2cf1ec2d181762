//! How a partial object becomes a complete one: with its last block its file is renamed into `objects/`. It is the same
//! inode, so that maps and descriptors of it stay right.

use std::sync::Arc;

use super::accounting::shard_of;
use super::directory::{Place, name_in};
use super::error::NotStored;
use super::partial::{Partial, Progress};
use super::{Tier, seal};

impl Partial {
    /// Gives the file its name in `objects/` when no block is missing any more.
    pub(crate) fn publish_if_complete(self: &Arc<Self>) -> Result<Progress, NotStored> {
        if !self.is_complete() {
            return Ok(Progress::Incomplete);
        }
        let _only = self.publishing.lock();
        if let Some(file) = self.complete() {
            return Ok(Progress::Complete(file));
        }
        self.close_files();
        self.tier().publish_partial(self)?;
        Ok(Progress::Complete(self.completed()))
    }
}

impl Tier {
    fn publish_partial(&self, partial: &Partial) -> Result<(), NotStored> {
        let (id, size_bytes) = (partial.id(), partial.size_bytes());
        let seal_is_file = self.ledger().costs().seal_is_file(size_bytes);
        if !seal_is_file {
            let value = seal::to_xattr(&partial.crcs());
            let set = rustix::fs::fsetxattr(
                &**partial.reader(),
                seal::SEAL_XATTR,
                &value,
                rustix::fs::XattrFlags::empty(),
            );
            if let Err(error) = set {
                self.failed("seal an object", &error.into());
                return Err(NotStored::Failed);
            }
        }
        let changing = self.ledger().changing(shard_of(id));
        let (from, to) = (name_in(Place::Partial, id), name_in(Place::Objects, id));
        let is_new = self.writing("publish an object", |directory| {
            directory.rename_new((Place::Partial, &from), (Place::Objects, &to))
        });
        let directory = self.directory();
        let Ok(is_new) = is_new else {
            return Err(NotStored::Failed);
        };
        if !is_new {
            directory.remove(Place::Partial, &from).ok();
        }
        if !seal_is_file {
            directory.remove(Place::Seals, &name_in(Place::Seals, id)).ok();
        }
        match self.partials().take(id) {
            Some(promise) if is_new => promise.publish(size_bytes),
            Some(promise) => *partial.double.lock() = Some(promise),
            None => {}
        }
        drop(changing);
        self.order_insert(id, self.ledger().costs().object(size_bytes));
        Ok(())
    }
}
