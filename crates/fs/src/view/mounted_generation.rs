//! What all views of one generation share: the mounted image, the mapped catalog and the counting of opens.

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

/// One generation that at least one kernel view shows.
pub(crate) struct MountedGeneration {
    image: ImageMount,
    catalog: Arc<Catalog>,
    /// What tells its opens: made for the first view that wants them counted, one for each way of naming files.
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

    /// Whether a view of this generation can have resolved any of `objects`.
    pub(crate) fn names_any(&self, objects: &[ObjectId]) -> bool {
        objects.iter().any(|object| self.catalog.find(*object).is_some())
    }

    /// What tells the opens of views whose events are of this kind.
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

    /// The last view is gone.
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

/// The generations that are shown now, with the number of their views. An image is mounted for the first view of its
/// generation and detached after the last. Whoever uses this changes mounts, so one at a time.
#[derive(Default)]
pub(crate) struct ShownGenerations {
    known: HashMap<(Generation, PathBuf), (Arc<MountedGeneration>, u64)>,
}

impl ShownGenerations {
    /// Adds a view of `spec`'s generation; makes what its views share if this is the first.
    pub(crate) fn enter(&mut self, spec: &ViewSpec) -> Result<Arc<MountedGeneration>, ViewError> {
        let (shown, views) = match self.known.entry(MountedGeneration::key(spec)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert((Arc::new(MountedGeneration::open(spec)?), 0)),
        };
        *views = views.saturating_add(1);
        Ok(Arc::clone(shown))
    }

    /// Takes a view of `spec`'s generation away.
    pub(crate) fn leave(&mut self, spec: &ViewSpec, counter: &OpenCounter) {
        let Entry::Occupied(mut entry) = self.known.entry(MountedGeneration::key(spec)) else {
            return;
        };
        let (_, views) = entry.get_mut();
        *views = views.saturating_sub(1);
        if *views > 0 {
            return;
        }
        let (shown, _) = entry.remove();
        shown.close(counter);
    }
}
