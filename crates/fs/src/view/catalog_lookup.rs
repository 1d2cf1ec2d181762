//! Which object a file of a generation stands for.

use millpond_catalog::{Catalog, Nid};
use millpond_core::ObjectId;

/// What the views need of a catalog.
pub(crate) trait CatalogLookup: Send + Sync + 'static {
    /// The object behind an inode of the image and its size; `None` where the inode is no file.
    fn object_at(&self, inode: u64) -> Option<(ObjectId, u64)>;

    /// Whether any file of the generation stands for the object.
    fn names(&self, id: ObjectId) -> bool;
}

impl CatalogLookup for Catalog {
    fn object_at(&self, inode: u64) -> Option<(ObjectId, u64)> {
        let id = self.image().object_id(Nid(inode)).ok()?;
        let size_bytes = self.image().inode(Nid(inode)).ok()?.size_bytes;
        Some((id, size_bytes))
    }

    fn names(&self, id: ObjectId) -> bool {
        self.find(id).is_some()
    }
}
