//! The catalogs of a mount: the newest, and older ones that still exist.
//!
//! A worker reports only the newest; older generations that views show lie beside it as `gen-N.erofs` and `gen-N.index`.
//! An image stays mapped while a file of its generation is open, even when the worker has deleted it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use millpond_catalog::{Catalog, Nid};
use millpond_core::ObjectId;
use millpond_core::{CatalogFile, Generation, Inode, ObjectRef};
use parking_lot::Mutex;
use tracing::warn;

use super::node::ObjectHead;

/// One catalog, open.
#[derive(Clone, Debug)]
pub(crate) struct CatalogHandle {
    pub(crate) generation: Generation,
    pub(crate) catalog: Arc<Catalog>,
}

impl CatalogHandle {
    /// The object of a file of this catalog.
    pub(crate) fn object(&self, file: Nid) -> millpond_catalog::Result<ObjectRef> {
        let image = self.catalog.image();
        let size_bytes = image.inode(file)?.size_bytes;
        let id = image.object_id(file)?;
        Ok(ObjectRef {
            generation: self.generation,
            inode: Inode(file.0),
            id,
            size_bytes,
        })
    }
}

#[derive(Debug, Default)]
struct State {
    newest: Option<CatalogHandle>,
    open: BTreeMap<Generation, CatalogHandle>,
}

/// The open catalogs.
#[derive(Debug, Default)]
pub(crate) struct Catalogs {
    state: ArcSwap<State>,
    /// One update at a time.
    updating: Mutex<()>,
}

impl Catalogs {
    /// Opens the newest catalog and those beside it. `in_use` are the generations of open files.
    ///
    /// # Errors
    /// The newest cannot be read; nothing has changed then.
    pub(crate) fn update(
        &self,
        newest: &CatalogFile,
        in_use: &BTreeSet<Generation>,
    ) -> millpond_catalog::Result<()> {
        let _one_at_a_time = self.updating.lock();
        let before = self.state.load();
        let mut open = BTreeMap::new();
        let beside = generations_beside(&newest.image);
        for (generation, entry) in &before.open {
            if beside.contains_key(generation) || in_use.contains(generation) {
                open.insert(*generation, entry.clone());
            }
        }
        for (generation, (image, index)) in beside {
            if generation >= newest.generation || open.contains_key(&generation) {
                continue;
            }
            match Catalog::open(&image, &index) {
                Ok(catalog) => {
                    open.insert(
                        generation,
                        CatalogHandle {
                            generation,
                            catalog: Arc::new(catalog),
                        },
                    );
                }
                // It may be about to be deleted.
                Err(error) => warn!(%generation, %error, "failed to open an older catalog"),
            }
        }
        let generation = newest.generation;
        let entry = match open.get(&generation) {
            Some(entry) => entry.clone(),
            None => {
                let catalog = Arc::new(Catalog::open(&newest.image, &newest.index)?);
                CatalogHandle { generation, catalog }
            }
        };
        open.insert(generation, entry.clone());
        self.state.store(Arc::new(State {
            newest: Some(entry),
            open,
        }));
        Ok(())
    }

    /// The newest catalog; `None` before the first.
    pub(crate) fn newest(&self) -> Option<CatalogHandle> {
        self.state.load().newest.clone()
    }

    /// The catalog of a generation.
    pub(crate) fn get(&self, generation: Generation) -> Option<CatalogHandle> {
        self.state.load().open.get(&generation).cloned()
    }

    /// The generations of the open catalogs.
    pub(crate) fn generations(&self) -> Vec<Generation> {
        self.state.load().open.keys().copied().collect()
    }

    /// Finds an object in the newest catalog that names it.
    pub(crate) fn find(&self, id: ObjectId) -> Option<(CatalogHandle, Nid)> {
        let state = self.state.load();
        state.open.values().rev().find_map(|open| {
            let place = open.catalog.find(id)?;
            Some((open.clone(), place.inode))
        })
    }

    /// Finds the one object whose id begins with `head`; `None` where there is none, or more than one.
    pub(crate) fn find_head(&self, head: ObjectHead) -> Option<(CatalogHandle, Nid)> {
        let state = self.state.load();
        let mut found: Option<(CatalogHandle, Nid, ObjectId)> = None;
        for open in state.open.values().rev() {
            let entries = open.catalog.index().starting_at(head.first());
            for (id, place) in entries.take_while(|(id, _)| ObjectHead::of(*id) == head) {
                match &found {
                    Some((_, _, known)) if *known != id => return None,
                    Some(_) => {}
                    None => found = Some((open.clone(), place.inode, id)),
                }
            }
        }
        found.map(|(open, nid, _)| (open, nid))
    }
}

/// The image and index of each generation in the directory of `image`.
fn generations_beside(image: &Path) -> BTreeMap<Generation, (PathBuf, PathBuf)> {
    let Some(directory) = image.parent() else {
        return BTreeMap::new();
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            warn!(directory = %directory.display(), %error, "failed to list older catalogs");
            return BTreeMap::new();
        }
    };
    entries
        .filter_map(|entry| {
            let image = entry.ok()?.path();
            let number = image
                .file_name()?
                .to_str()?
                .strip_prefix("gen-")?
                .strip_suffix(".erofs")?;
            let generation = Generation(number.parse().ok()?);
            let index = image.with_extension("index");
            index.exists().then_some((generation, (image, index)))
        })
        .collect()
}
