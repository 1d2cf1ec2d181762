//! The generations on this node's disk: the newest, the mounted ones, and the lookup of objects in them.
//!
//! The directory holds `gen-N.erofs`, `gen-N.index` and `gen-N.json` for each generation. The newest complete one
//! is current after a restart; files that a crash left incomplete are removed then. A generation is deleted when it
//! is neither the newest nor mounted by a view, as the driver reports. Until the driver's first report after a
//! start all generations stay, since views outlive the worker.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use millpond_catalog::{Catalog, Place, SourceInfo};
use millpond_core::ObjectId;
use millpond_core::{CatalogFile, Generation, ObjectRef, ReadError};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::record::{ListingSummary, Record, files, record_path};
use super::sources::ObjectLocation;

/// One open generation.
#[derive(Debug)]
pub(super) struct OpenCatalog {
    pub(super) file: Arc<CatalogFile>,
    pub(super) catalog: Catalog,
    pub(super) record: Record,
    /// The sources of the index, by position.
    sources: Vec<Arc<SourceInfo>>,
}

impl OpenCatalog {
    fn new(file: CatalogFile, catalog: Catalog, record: Record) -> Self {
        let sources = catalog.index().sources().iter().cloned().map(Arc::new).collect();
        Self {
            file: Arc::new(file),
            catalog,
            record,
            sources,
        }
    }

    /// Returns how to fetch the object at a place.
    pub(super) fn locate(&self, place: Place) -> millpond_catalog::Result<ObjectLocation> {
        let object = self.catalog.describe(place)?;
        match self.sources.get(usize::from(object.source)) {
            Some(source) => Ok(ObjectLocation {
                object,
                source: Arc::clone(source),
            }),
            None => Err(millpond_catalog::Error::Options(
                "the index has no such source".to_owned(),
            )),
        }
    }
}

/// All generations of one Dataset.
#[derive(Debug)]
pub(super) struct Catalogs {
    directory: PathBuf,
    boot_id: String,
    newest: ArcSwapOption<OpenCatalog>,
    announced: watch::Sender<Option<Arc<CatalogFile>>>,
    /// Notified when generations were deleted.
    deleted: Notify,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The highest number that was ever used here.
    last: Generation,
    /// Complete generations, with those that are open.
    generations: BTreeMap<Generation, Option<Arc<OpenCatalog>>>,
    /// The generations that views have mounted; `None` until the driver's first report.
    mounted: Option<BTreeSet<Generation>>,
}

impl Catalogs {
    /// Opens the directory, creating it if needed, and the newest complete generation in it.
    ///
    /// A generation of another `identity` (another owner, say) stays for the views that have it mounted, but is
    /// never current. New ones have numbers from `first` on. Blocks: after a boot it reads the newest generation
    /// once.
    pub(super) fn open(
        directory: PathBuf,
        boot_id: &str,
        identity: &str,
        first: Generation,
    ) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        let (last, complete) = scan(&directory)?;
        let mut generations: BTreeMap<_, _> = complete.iter().map(|generation| (*generation, None)).collect();
        let mut newest = None;
        for generation in complete.into_iter().rev() {
            match open_generation(&directory, generation, boot_id) {
                Ok(open) if open.record.identity == identity => {
                    let open = Arc::new(open);
                    generations.insert(generation, Some(Arc::clone(&open)));
                    newest = Some(open);
                    break;
                }
                Ok(_other) => {}
                Err(error) => {
                    warn!(%generation, %error, "the catalog is damaged; removing it");
                    generations.remove(&generation);
                    remove(&directory, generation);
                }
            }
        }
        let announced = watch::Sender::new(newest.as_ref().map(|open| Arc::clone(&open.file)));
        Ok(Self {
            directory,
            boot_id: boot_id.to_owned(),
            newest: ArcSwapOption::new(newest),
            announced,
            deleted: Notify::new(),
            state: Mutex::new(State {
                last: last.max(Generation(first.0.saturating_sub(1))),
                generations,
                mounted: None,
            }),
        })
    }

    /// Returns the directory of all generations.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the newest generation's files, now and later.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Arc<CatalogFile>>> {
        self.announced.subscribe()
    }

    /// Returns the newest generation.
    pub(super) fn newest(&self) -> Option<Arc<OpenCatalog>> {
        self.newest.load_full()
    }

    /// Allocates the next number, and returns the paths of its files.
    pub(super) fn next(&self) -> CatalogFile {
        let mut state = self.state.lock();
        state.last = Generation(state.last.0.saturating_add(1));
        files(&self.directory, state.last)
    }

    /// Makes a generation whose files are written the newest. Blocks: reads both files once.
    pub(super) fn publish(
        &self,
        file: CatalogFile,
        identity: &str,
        listed: ListingSummary,
    ) -> io::Result<Arc<OpenCatalog>> {
        let generation = file.generation;
        let record = Record::of(&file, identity, listed, &self.boot_id)?;
        let catalog = Catalog::open(&file.image, &file.index).map_err(io::Error::other)?;
        record.write(&self.directory, generation)?;
        let open = Arc::new(OpenCatalog::new(file, catalog, record));
        self.state
            .lock()
            .generations
            .insert(generation, Some(Arc::clone(&open)));
        self.newest.store(Some(Arc::clone(&open)));
        self.announced.send_replace(Some(Arc::clone(&open.file)));
        self.remove_unused();
        Ok(open)
    }

    /// Returns the catalog of a generation, if it is still on disk.
    pub(super) fn get(&self, generation: Generation) -> Option<Arc<OpenCatalog>> {
        let newest = self.newest.load();
        if let Some(newest) = newest
            .as_ref()
            .filter(|newest| newest.file.generation == generation)
        {
            return Some(Arc::clone(newest));
        }
        if let Some(open) = self.state.lock().generations.get(&generation)? {
            return Some(Arc::clone(open));
        }
        let open = open_generation(&self.directory, generation, &self.boot_id)
            .inspect_err(|error| warn!(%generation, %error, "failed to open an older catalog"))
            .ok()?;
        let open = Arc::new(open);
        self.state
            .lock()
            .generations
            .insert(generation, Some(Arc::clone(&open)));
        Some(open)
    }

    /// Returns how to fetch an object, and the directory that holds it.
    ///
    /// # Errors
    /// No catalog on disk references it in that size.
    pub(super) fn find(&self, object: &ObjectRef) -> Result<(ObjectLocation, Place), ReadError> {
        let unknown = ReadError::Unknown { id: object.id };
        let Some(open) = self.get(object.generation) else {
            return Err(unknown);
        };
        let Some(place) = open.catalog.find(object.id) else {
            return Err(unknown);
        };
        match open.locate(place) {
            Ok(found) if found.object.id == object.id && found.object.size_bytes == object.size_bytes => {
                Ok((found, place))
            }
            Ok(_other) => Err(unknown),
            Err(error) => {
                warn!(generation = %object.generation, id = %object.id, %error, "failed to look an object up in the catalog");
                Err(unknown)
            }
        }
    }

    /// Returns the sources of all generations on disk; `None`: one of them cannot be read.
    pub(super) fn sources(&self) -> Option<Vec<Arc<SourceInfo>>> {
        let generations: Vec<_> = self.state.lock().generations.keys().copied().collect();
        let mut sources = Vec::new();
        for generation in generations {
            sources.extend(self.get(generation)?.sources.iter().cloned());
        }
        Some(sources)
    }

    /// Sets the generations that views have mounted, and deletes those that are neither mounted nor the newest.
    pub(super) fn retain(&self, generations: &BTreeSet<Generation>) {
        self.state.lock().mounted = Some(generations.clone());
        self.remove_unused();
    }

    /// Returns the bytes and files of all generations on disk.
    pub(super) fn disk_usage(&self) -> (u64, u64) {
        let generations = self.state.lock().generations.keys().copied().collect::<Vec<_>>();
        let bytes = generations.iter().flat_map(|generation| {
            let files = files(&self.directory, *generation);
            [files.image, files.index].map(|path| fs::metadata(path).map_or(0, |found| found.len()))
        });
        (bytes.sum(), generations.len() as u64 * 3)
    }

    /// Waits until generations were deleted, since the last call.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn deleted(&self) {
        self.deleted.notified().await;
    }

    /// Returns whether a generation on disk may reference an object: one that cannot be read may.
    pub(super) fn may_reference(&self, id: ObjectId) -> bool {
        let generations: Vec<_> = self.state.lock().generations.keys().copied().collect();
        generations.is_empty()
            || generations.into_iter().any(|generation| {
                self.get(generation)
                    .is_none_or(|open| open.catalog.find(id).is_some())
            })
    }

    fn remove_unused(&self) {
        let unused = self.drop_unused();
        for generation in &unused {
            info!(%generation, "removing an old catalog that no view has mounted");
            remove(&self.directory, *generation);
        }
        if !unused.is_empty() {
            self.deleted.notify_one();
        }
    }

    fn drop_unused(&self) -> Vec<Generation> {
        let newest = self.newest.load().as_ref().map(|open| open.file.generation);
        let mut state = self.state.lock();
        let (Some(newest), Some(mounted)) = (newest, &state.mounted) else {
            return Vec::new();
        };
        let unused: Vec<Generation> = state
            .generations
            .range(..newest)
            .map(|(generation, _)| *generation)
            .filter(|g| !mounted.contains(g))
            .collect();
        for generation in &unused {
            state.generations.remove(generation);
        }
        unused
    }
}

fn open_generation(directory: &Path, generation: Generation, boot_id: &str) -> io::Result<OpenCatalog> {
    let record = Record::read(directory, generation, boot_id)?;
    let file = files(directory, generation);
    let catalog = Catalog::open(&file.image, &file.index).map_err(io::Error::other)?;
    Ok(OpenCatalog::new(file, catalog, record))
}

/// Returns the highest number and the complete generations; removes incomplete ones.
fn scan(directory: &Path) -> io::Result<(Generation, BTreeSet<Generation>)> {
    let mut last = Generation(0);
    let mut complete = BTreeSet::new();
    let mut incomplete = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix("gen-")) else {
            continue;
        };
        let number = rest
            .split_once('.')
            .and_then(|(number, suffix)| Some((number.parse().ok()?, suffix)));
        let Some((number, suffix)) = number else {
            incomplete.push(entry.path());
            continue;
        };
        let generation = Generation(number);
        last = last.max(generation);
        if suffix == "json" {
            complete.insert(generation);
        } else if !record_path(directory, generation).exists() {
            incomplete.push(entry.path());
        }
    }
    for path in incomplete {
        warn!(path = %path.display(), "removing an incomplete catalog");
        fs::remove_file(path)?;
    }
    Ok((last, complete))
}

/// Deletes a generation, its record first: what an interruption leaves counts as incomplete.
fn remove(directory: &Path, generation: Generation) {
    let files = files(directory, generation);
    for path in [record_path(directory, generation), files.image, files.index] {
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!(path = %path.display(), %error, "failed to remove a catalog file"),
        }
    }
}
