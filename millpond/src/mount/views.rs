//! What a mount shows at its directory, and what the parts that make it must tell each other.
//!
//! - With root, the FUSE file system is mounted in the run directory, and the directory shows a kernel view made with
//!   it, or its newest tree. Without root it is mounted at the directory itself.
//! - What is shown is written down, so that the next server takes it over as it is.

use anyhow::{Context, Result, bail};
use millpond_core::{CatalogFile, Generation, Worker};
use millpond_fs::pin_newest;
use millpond_fs::view::{BindSpec, KernelSupport, OverlayMode, Registry, ViewError, ViewSpec};
use serde::{Deserialize, Serialize};

use super::run_directory::RunDirectory;
use super::spec::{Eviction, Spec, ViewChoice, ViewKind};

/// What kind of view it will be, decided before anything is mounted.
#[derive(Debug)]
pub(crate) struct ViewChoicePlan {
    pub(crate) kind: ViewKind,
    /// The overlays' options, should there be any.
    pub(crate) mode: OverlayMode,
    pub(crate) count_opens: bool,
    /// What the user should know about it.
    pub(crate) notes: Vec<String>,
}

/// What is shown, for the next server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) kind: ViewKind,
    /// Whether it is the FUSE mount itself that is at the directory.
    pub(crate) direct: bool,
    /// The catalog that a kernel view shows.
    pub(crate) catalog: Option<RecordedCatalog>,
    pub(crate) count_opens: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RecordedCatalog {
    generation: u64,
    image: std::path::PathBuf,
    index: std::path::PathBuf,
}

impl Record {
    /// What the server before has shown; `None`: nothing yet.
    pub(crate) fn read(place: &RunDirectory) -> Result<Option<Self>> {
        let file = place.view_record();
        match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .with_context(|| format!("{} does not describe a view", file.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("failed to read {}", file.display())),
        }
    }

    /// The generation that a kernel view shows.
    pub(crate) fn generation(&self) -> Option<Generation> {
        self.catalog
            .as_ref()
            .map(|catalog| Generation(catalog.generation))
    }

    /// Writes it down before it is shown: a server that dies between finds nothing there, and shows it.
    fn write(&self, place: &RunDirectory) -> Result<()> {
        let file = place.view_record();
        let new = file.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(self)?)
            .and_then(|()| std::fs::rename(&new, &file))
            .with_context(|| format!("failed to write {}", file.display()))
    }
}

impl ViewChoicePlan {
    /// Finds out what can be shown here, and what is.
    pub(crate) fn make(spec: &Spec, place: &RunDirectory, record: Option<&Record>) -> Result<Self> {
        let fuse = |notes| Self {
            kind: ViewKind::Fuse,
            mode: OverlayMode::Descriptors,
            count_opens: false,
            notes,
        };
        if let Some(Record {
            kind: ViewKind::Fuse, ..
        }) = record
        {
            return Ok(fuse(Vec::new()));
        }
        if spec.view == ViewChoice::Fuse {
            return Ok(fuse(Vec::new()));
        }
        let decline = |reason: String| match spec.view {
            ViewChoice::Auto => Ok(fuse(vec![format!(
                "the FUSE view is shown, since there can be no kernel view: {reason}; `millpond doctor` tells more"
            )])),
            ViewChoice::Kernel | ViewChoice::Fuse => bail!(
                "there can be no kernel view: {reason}; leave out --view, or see `millpond doctor` for what is missing"
            ),
        };
        if !rustix::process::geteuid().is_root() {
            return decline("it needs root".to_owned());
        }
        let abilities = match KernelSupport::probe(place.path()) {
            Ok(abilities) => abilities,
            Err(error) => return decline(words(&error)),
        };
        let mode = match abilities.mode {
            Ok(mode) => mode,
            Err(error) => return decline(words(&error)),
        };
        let mut notes = Vec::new();
        let count_opens = match (spec.count_opens, abilities.counting) {
            (false, _) => false,
            (true, Ok(())) => true,
            (true, Err(error)) if spec.cache.eviction == Eviction::Never => {
                notes.push(format!(
                    "opens that the kernel serves alone are not counted: {}",
                    words(&error)
                ));
                false
            }
            (true, Err(error)) => {
                return decline(format!(
                    "eviction goes by opens, which cannot be counted: {}",
                    words(&error)
                ));
            }
        };
        Ok(Self {
            kind: ViewKind::Kernel,
            mode,
            count_opens,
            notes,
        })
    }
}

/// What the directory shows. What it is made of is the registry's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MountedView {
    pub(crate) kind: ViewKind,
    /// The generation of a kernel view.
    pub(crate) generation: Option<Generation>,
}

/// Shows the mount at its directory, or takes over what the server before has shown there.
pub(crate) async fn show(
    spec: &Spec,
    place: &RunDirectory,
    choice: &mut ViewChoicePlan,
    record: Option<Record>,
    registry: &Registry,
    worker: &dyn Worker,
) -> Result<MountedView> {
    if choice.kind == ViewKind::Kernel {
        match show_kernel(spec, place, choice, record.clone(), registry, worker).await {
            Ok(shown) => return Ok(shown),
            Err(error) if spec.view == ViewChoice::Auto && record.is_none() => choice.notes.push(format!(
                "the FUSE view is shown, since the kernel view failed: {error:#}; `millpond doctor` may tell more"
            )),
            Err(error) => return Err(error),
        }
    }
    show_fuse(spec, place, record, registry).await
}

async fn show_kernel(
    spec: &Spec,
    place: &RunDirectory,
    choice: &ViewChoicePlan,
    record: Option<Record>,
    registry: &Registry,
    worker: &dyn Worker,
) -> Result<MountedView> {
    let recorded = record.and_then(|record| Some((record.catalog?, record.count_opens)));
    let is_recorded = recorded.is_some();
    // What was shown before is held since this server began.
    let (catalog, count_opens, _held) = match recorded {
        Some((catalog, count_opens)) => {
            let RecordedCatalog {
                generation,
                image,
                index,
            } = catalog;
            let generation = Generation(generation);
            (
                CatalogFile {
                    generation,
                    image,
                    index,
                },
                count_opens,
                None,
            )
        }
        None => {
            let newest = pin_newest(worker, registry);
            let (newest, held) = newest.context("there is no catalog to show")?;
            ((*newest).clone(), choice.count_opens, Some(held))
        }
    };
    let generation = catalog.generation;
    let point = place.catalogs().join(format!("gen-{generation}"));
    std::fs::create_dir_all(place.catalogs())
        .with_context(|| format!("failed to make {}", place.catalogs().display()))?;
    Record {
        kind: ViewKind::Kernel,
        direct: false,
        catalog: Some(RecordedCatalog {
            generation: generation.0,
            image: catalog.image.clone(),
            index: catalog.index.clone(),
        }),
        count_opens,
    }
    .write(place)?;
    let view = ViewSpec {
        name: view_name(place),
        catalog,
        catalog_mount: point,
        tiers: worker.tiers(),
        fuse_root: place.fuse(),
        target: spec.directory.clone(),
        count_opens,
        context: None,
    };
    let shown = match registry.adopt(view.clone()).await {
        Ok(true) => Ok(()),
        Ok(false) => registry.mount(view).await,
        Err(error) => Err(error),
    };
    if let Err(error) = shown {
        // Nothing is shown, so the next one may show something else; but not where a predecessor's view may still be.
        if !is_recorded {
            let _gone = std::fs::remove_file(place.view_record());
        }
        return Err(error.into());
    }
    Ok(MountedView {
        kind: ViewKind::Kernel,
        generation: Some(generation),
    })
}

async fn show_fuse(
    spec: &Spec,
    place: &RunDirectory,
    record: Option<Record>,
    registry: &Registry,
) -> Result<MountedView> {
    let direct = is_direct();
    if record.is_none() {
        let record = Record {
            kind: ViewKind::Fuse,
            direct,
            catalog: None,
            count_opens: false,
        };
        record.write(place)?;
    }
    if !direct {
        let bind = BindSpec {
            tree: place.fuse().join("live"),
            target: spec.directory.clone(),
        };
        if !registry.adopt_bind(bind.clone(), place.fuse(), None).await? {
            registry.bind(bind, None).await?;
        }
    }
    Ok(MountedView {
        kind: ViewKind::Fuse,
        generation: None,
    })
}

/// Whether the FUSE file system is mounted at the directory itself: without root nothing can be mounted of it.
pub(crate) fn is_direct() -> bool {
    !rustix::process::geteuid().is_root()
}

/// The registry puts `millpond:` before it.
fn view_name(place: &RunDirectory) -> String {
    place.name().trim_start_matches("millpond:").to_owned()
}

fn words(error: &ViewError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
