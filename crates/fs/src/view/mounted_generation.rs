//! The shared parts of all views of one generation: the mounted image, the mapped catalog and the counting of opens.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::PathBuf;
use std::sync::Arc;

use millpond_catalog::Catalog;
use millpond_core::Generation;
use millpond_core::ObjectId;
use parking_lot::Mutex;

use super::error::ViewError;
use super::opens::{Group, OpenCounter};
use super::spec::{OverlayMode, ViewSpec};
use crate::mount::ImageMount;

/// A generation of at least one kernel view.
pub(crate) struct MountedGeneration {
    image: ImageMount,
    catalog: Arc<Catalog>,
    /// The fanotify groups: each created for the first counted view of its mode.
    groups: Mutex<Vec<(OverlayMode, Arc<Group>)>>,
}

impl MountedGeneration {
    fn open(spec: &ViewSpec) -> Result<Self, ViewError> {
        let catalog =
            Catalog::open(&spec.catalog.image, &spec.catalog.index).map_err(|error| ViewError::Catalog {
                path: spec.catalog.image.clone(),
                reason: error.to_string(),
            })?;
        let image = ImageMount::take(&spec.catalog.image, &spec.catalog_mount)?;
        Ok(Self {
            image,
            catalog: Arc::new(catalog),
            groups: Mutex::default(),
        })
    }

    /// Returns whether a view of this generation can have resolved any of `objects`.
    pub(crate) fn references_any(&self, objects: &[ObjectId]) -> bool {
        objects.iter().any(|object| self.catalog.find(*object).is_some())
    }

    /// The fanotify group of views of this mode.
    pub(crate) fn group(&self, mode: OverlayMode, counter: &OpenCounter) -> Result<Arc<Group>, ViewError> {
        let mut groups = self.groups.lock();
        if let Some((_, group)) = groups.iter().find(|(of, _)| *of == mode) {
            return Ok(Arc::clone(group));
        }
        let group = Arc::new(Group::new(mode, Arc::clone(&self.catalog))?);
        counter.add(Arc::clone(&group));
        groups.push((mode, Arc::clone(&group)));
        Ok(group)
    }

    /// Counts all opens up to now.
    pub(crate) fn drain(&self, counter: &OpenCounter) {
        let groups = self.groups.lock().clone();
        for (_, group) in groups {
            counter.drain(&group);
        }
    }

    /// Ends the generation after its last view.
    fn close(&self, counter: &OpenCounter) {
        for (_, group) in self.groups.lock().drain(..) {
            counter.remove(&group);
        }
        if let Err(error) = self.image.detach() {
            tracing::warn!(%error, "failed to detach a catalog image");
        }
    }

    fn key(spec: &ViewSpec) -> (Generation, PathBuf) {
        (spec.catalog.generation, spec.catalog_mount.clone())
    }
}

/// The mounted generations and the number of their views. An image is mounted for the first view of its generation and
/// detached after the last. Its users change mounts, so one at a time.
#[derive(Default)]
pub(crate) struct MountedGenerations {
    known: HashMap<(Generation, PathBuf), (Arc<MountedGeneration>, u64)>,
}

impl MountedGenerations {
    /// Adds a view of `spec`'s generation, which is opened for the first.
    pub(crate) fn add_view(&mut self, spec: &ViewSpec) -> Result<Arc<MountedGeneration>, ViewError> {
        let (generation, views) = match self.known.entry(MountedGeneration::key(spec)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert((Arc::new(MountedGeneration::open(spec)?), 0)),
        };
        *views = views.saturating_add(1);
        Ok(Arc::clone(generation))
    }

    /// Removes a view of `spec`'s generation.
    pub(crate) fn remove_view(&mut self, spec: &ViewSpec, counter: &OpenCounter) {
        let Entry::Occupied(mut entry) = self.known.entry(MountedGeneration::key(spec)) else {
            return;
        };
        let (_, views) = entry.get_mut();
        *views = views.saturating_sub(1);
        if *views > 0 {
            return;
        }
        let (generation, _) = entry.remove();
        generation.close(counter);
    }
}
