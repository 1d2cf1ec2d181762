//! Views from volumes' records, and checks before one is mounted.

use std::path::{Path, PathBuf};

use millpond_core::{CatalogFile, Generation};
use tracing::warn;

use super::dataset::Dataset;
use super::error::VolumeError;
use super::layout::Layout;
use super::record::{Kind, Record, RecordedTier};
use super::target::open_below;
use millpond_fs::GenerationPin;
use millpond_fs::mount::{MountTable, detach};
use millpond_fs::view::{BindSpec, ViewError, ViewSpec};

/// Prefix of the source of every Millpond mount.
const SOURCE_PREFIX: &[u8] = b"millpond:";

pub(super) enum ViewOf {
    Kernel(ViewSpec),
    Tree(BindSpec),
}

/// Returns the view that a record describes.
pub(super) fn view_of(record: &Record, dataset: &Dataset, layout: &Layout) -> ViewOf {
    let fuse = dataset.served.fuse.mountpoint();
    let target = record.target.clone();
    let tree = |name: String| {
        ViewOf::Tree(BindSpec {
            tree: fuse.join(name),
            target: target.clone(),
        })
    };
    match &record.kind {
        Kind::Kernel {
            generation,
            image,
            index,
            tiers,
            count_opens,
        } => ViewOf::Kernel(ViewSpec {
            name: record.dataset.uid.clone(),
            catalog: CatalogFile {
                generation: Generation(*generation),
                image: image.clone(),
                index: index.clone(),
            },
            catalog_mount: layout.image_mount(&record.dataset.uid, *generation),
            tiers: tiers.iter().map(RecordedTier::directories).collect(),
            fuse_root: fuse.to_owned(),
            target,
            count_opens: *count_opens,
            context: record.request.context.clone(),
        }),
        Kind::Tree { generation } => tree(format!("gen-{generation}")),
        Kind::Live => tree("live".to_owned()),
    }
}

pub(super) async fn mount(record: &Record, dataset: &Dataset, layout: &Layout) -> Result<(), ViewError> {
    match view_of(record, dataset, layout) {
        ViewOf::Kernel(spec) => dataset.served.registry.mount(spec).await,
        ViewOf::Tree(spec) => dataset.served.registry.bind(spec, record.kind.generation()).await,
    }
}

/// Returns the catalog of a volume's recorded generation, pinned; `None`: it was removed.
pub(super) fn recorded_catalog(record: &Record, dataset: &Dataset) -> Option<(CatalogFile, GenerationPin)> {
    let generation = record.kind.generation()?;
    let held = dataset.served.registry.generations().pin(generation);
    let directory = &dataset.on_node.directory;
    let catalog = match &record.kind {
        Kind::Kernel { image, index, .. } => CatalogFile {
            generation,
            image: image.clone(),
            index: index.clone(),
        },
        Kind::Tree { .. } | Kind::Live => CatalogFile {
            generation,
            image: directory.join(format!("gen-{generation}.erofs")),
            index: directory.join(format!("gen-{generation}.index")),
        },
    };
    if catalog.image.exists() && catalog.index.exists() {
        return Some((catalog, held));
    }
    warn!(
        target = %record.target.display(), %generation,
        "the catalog of a volume's recorded generation was removed; mounting the newest"
    );
    None
}

/// Returns a directory of a kernel view that does not exist. A link counts as missing: the worker must not redirect the
/// kernel.
pub(super) fn missing_layer(dataset: &Dataset) -> Option<PathBuf> {
    let layers = dataset
        .on_node
        .tiers
        .iter()
        .flat_map(|tier| [&tier.objects, &tier.landing]);
    let mut missing = layers.filter(|layer| {
        let tier = layer.parent().and_then(Path::parent);
        let below = tier.and_then(|tier| layer.strip_prefix(tier).ok());
        !matches!((tier, below), (Some(tier), Some(below)) if open_below(tier, below).is_ok())
    });
    missing.next().cloned()
}

/// Unmounts a Millpond mount at a target: a leftover of a killed driver.
pub(super) fn unmount_stale(target: &Path) -> Result<(), VolumeError> {
    use std::os::unix::ffi::OsStrExt;
    loop {
        let table = MountTable::read().map_err(VolumeError::system("read the table of mounts"))?;
        let Some(found) = table.top_at(target) else {
            return Ok(());
        };
        if !found.source.as_bytes().starts_with(SOURCE_PREFIX) {
            return Err(ViewError::Occupied {
                target: target.to_owned(),
                found: found.source.clone(),
            }
            .into());
        }
        detach(target).map_err(ViewError::from)?;
    }
}

pub(super) fn is_mounted(target: &Path) -> Result<bool, VolumeError> {
    let table = MountTable::read().map_err(VolumeError::system("read the table of mounts"))?;
    Ok(table.top_at(target).is_some())
}
