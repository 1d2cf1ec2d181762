//! What all views of one generation share: the mounted image, the mapped catalog and the counting of opens.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::PathBuf;
use std::sync::Arc;

use catalog::{Catalog, ObjectId};
use protocol::Generation;

use super::error::ViewError;
use super::spec::ViewSpec;
use crate::mount::ImageMount;

/// One generation that at least one kernel view shows.
#[derive(Debug)]
pub(crate) struct ShownGeneration {
    image: ImageMount,
    catalog: Arc<Catalog>,
}

impl ShownGeneration {
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
        })
    }

    /// Whether a view of this generation can have resolved any of `objects`.
    pub(crate) fn names_any(&self, objects: &[ObjectId]) -> bool {
        objects.iter().any(|object| self.catalog.find(*object).is_some())
    }

    fn key(spec: &ViewSpec) -> (Generation, PathBuf) {
        (spec.catalog.generation, spec.catalog_mount.clone())
    }
}

/// The generations that are shown now, with the number of their views. An image is mounted for the first view of its
/// generation and detached after the last. Whoever uses this changes mounts, so one at a time.
#[derive(Debug, Default)]
pub(crate) struct ShownGenerations {
    known: HashMap<(Generation, PathBuf), (Arc<ShownGeneration>, u64)>,
}

impl ShownGenerations {
    /// Adds a view of `spec`'s generation; makes what its views share if this is the first.
    pub(crate) fn enter(&mut self, spec: &ViewSpec) -> Result<Arc<ShownGeneration>, ViewError> {
        let (shown, views) = match self.known.entry(ShownGeneration::key(spec)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert((Arc::new(ShownGeneration::open(spec)?), 0)),
        };
        *views = views.saturating_add(1);
        Ok(Arc::clone(shown))
    }

    /// Takes a view of `spec`'s generation away.
    pub(crate) fn leave(&mut self, spec: &ViewSpec) {
        let Entry::Occupied(mut entry) = self.known.entry(ShownGeneration::key(spec)) else {
            return;
        };
        let (_, views) = entry.get_mut();
        *views = views.saturating_sub(1);
        if *views > 0 {
            return;
        }
        let (shown, _) = entry.remove();
        if let Err(error) = shown.image.detach() {
            tracing::warn!(%error, "failed to detach a catalog image");
        }
    }
}
