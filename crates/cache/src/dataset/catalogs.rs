//! The generations on this node's disk: which is the newest, which are still shown, and where an object is named.
//!
//! The directory holds `gen-N.erofs`, `gen-N.index` and `gen-N.json` for each generation. The newest whole one is
//! current after a restart; what a crash left half written is removed then. A generation is deleted when it is
//! neither the newest nor shown by any view, as the driver says. Before the driver has spoken for the first time
//! after a start all are kept, since views outlive the worker.

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

/// One opened generation.
#[derive(Debug)]
pub(super) struct OpenCatalog {
    pub(super) file: Arc<CatalogFile>,
    pub(super) catalog: Catalog,
    pub(super) record: Record,
    /// As the index has them, by position.
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

    /// Says how to fetch the object at a place.
    pub(super) fn locate(&self, place: Place) -> millpond_catalog::Result<ObjectLocation> {
        let object = self.catalog.describe(place)?;
        match self.sources.get(usize::from(object.source)) {
            Some(source) => Ok(ObjectLocation {
                object,
                source: Arc::clone(source),
            }),
            None => Err(millpond_catalog::Error::Options(
                "there is no such source".to_owned(),
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
    /// Generations were deleted.
    deleted: Notify,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The highest number ever seen here.
    last: Generation,
    /// Whole generations, and those of them that are open.
    known: BTreeMap<Generation, Option<Arc<OpenCatalog>>>,
    /// What views show; `None` until the driver has said so.
    in_use: Option<BTreeSet<Generation>>,
}

impl Catalogs {
    /// Opens the directory, making it if needed, and the newest whole generation in it.
    ///
    /// A generation of another `identity` (another owner, say) stays for the views that show it, but is never
    /// current. New ones have numbers from `first` on. Blocks: after a boot it reads the newest generation once.
    pub(super) fn open(
        directory: PathBuf,
        boot_id: &str,
        identity: &str,
        first: Generation,
    ) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        let (last, whole) = take_stock(&directory)?;
        let mut known: BTreeMap<_, _> = whole.iter().map(|generation| (*generation, None)).collect();
        let mut newest = None;
        for generation in whole.into_iter().rev() {
            match open_generation(&directory, generation, boot_id) {
                Ok(open) if open.record.identity == identity => {
                    let open = Arc::new(open);
                    known.insert(generation, Some(Arc::clone(&open)));
                    newest = Some(open);
                    break;
                }
                Ok(_other) => {}
                Err(error) => {
                    warn!(%generation, %error, "dropped a damaged catalog");
                    known.remove(&generation);
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
                known,
                in_use: None,
            }),
        })
    }

    /// The directory of all generations.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The newest generation's files, now and later.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Arc<CatalogFile>>> {
        self.announced.subscribe()
    }

    /// The newest generation.
    pub(super) fn newest(&self) -> Option<Arc<OpenCatalog>> {
        self.newest.load_full()
    }

    /// Takes the next number, and says where its files go.
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
            .known
            .insert(generation, Some(Arc::clone(&open)));
        self.newest.store(Some(Arc::clone(&open)));
        self.announced.send_replace(Some(Arc::clone(&open.file)));
        self.remove_unused();
        Ok(open)
    }

    /// The catalog of a generation that is still here.
    pub(super) fn get(&self, generation: Generation) -> Option<Arc<OpenCatalog>> {
        let newest = self.newest.load();
        if let Some(newest) = newest
            .as_ref()
            .filter(|newest| newest.file.generation == generation)
        {
            return Some(Arc::clone(newest));
        }
        if let Some(open) = self.state.lock().known.get(&generation)? {
            return Some(Arc::clone(open));
        }
        let open = open_generation(&self.directory, generation, &self.boot_id)
            .inspect_err(|error| warn!(%generation, %error, "failed to open an older catalog"))
            .ok()?;
        let open = Arc::new(open);
        self.state
            .lock()
            .known
            .insert(generation, Some(Arc::clone(&open)));
        Some(open)
    }

    /// Says how to fetch an object, and which directory holds it.
    ///
    /// # Errors
    /// No catalog that is here names it in that size.
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
                warn!(generation = %object.generation, id = %object.id, %error, "failed to read the catalog");
                Err(unknown)
            }
        }
    }

    /// The sources of all generations that are here; `None`: one of them cannot be read.
    pub(super) fn sources(&self) -> Option<Vec<Arc<SourceInfo>>> {
        let known: Vec<_> = self.state.lock().known.keys().copied().collect();
        let mut sources = Vec::new();
        for generation in known {
            sources.extend(self.get(generation)?.sources.iter().cloned());
        }
        Some(sources)
    }

    /// Says which generations views show, and deletes those that nobody needs.
    pub(super) fn in_use(&self, generations: &BTreeSet<Generation>) {
        self.state.lock().in_use = Some(generations.clone());
        self.remove_unused();
    }

    /// Bytes and files of all generations that are here.
    pub(super) fn disk_usage(&self) -> (u64, u64) {
        let known = self.state.lock().known.keys().copied().collect::<Vec<_>>();
        let bytes = known.iter().flat_map(|generation| {
            let files = files(&self.directory, *generation);
            [files.image, files.index].map(|path| fs::metadata(path).map_or(0, |found| found.len()))
        });
        (bytes.sum(), known.len() as u64 * 3)
    }

    /// Waits until generations were deleted, since this was last waited for.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn deleted(&self) {
        self.deleted.notified().await;
    }

    /// Whether any generation that is here may name an object: one that cannot be read may.
    pub(super) fn may_reference(&self, id: ObjectId) -> bool {
        let known: Vec<_> = self.state.lock().known.keys().copied().collect();
        known.is_empty()
            || known.into_iter().any(|generation| {
                self.get(generation)
                    .is_none_or(|open| open.catalog.find(id).is_some())
            })
    }

    fn remove_unused(&self) {
        let unused = self.forget_unused();
        for generation in &unused {
            info!(%generation, "removing a catalog that no view shows");
            remove(&self.directory, *generation);
        }
        if !unused.is_empty() {
            self.deleted.notify_one();
        }
    }

    fn forget_unused(&self) -> Vec<Generation> {
        let newest = self.newest.load().as_ref().map(|open| open.file.generation);
        let mut state = self.state.lock();
        let (Some(newest), Some(in_use)) = (newest, &state.in_use) else {
            return Vec::new();
        };
        let unused: Vec<Generation> = state
            .known
            .range(..newest)
            .map(|(generation, _)| *generation)
            .filter(|g| !in_use.contains(g))
            .collect();
        for generation in &unused {
            state.known.remove(generation);
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

/// Finds the highest number and the whole generations; removes what was never finished.
fn take_stock(directory: &Path) -> io::Result<(Generation, BTreeSet<Generation>)> {
    let mut last = Generation(0);
    let mut whole = BTreeSet::new();
    let mut unfinished = Vec::new();
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
            unfinished.push(entry.path());
            continue;
        };
        let generation = Generation(number);
        last = last.max(generation);
        if suffix == "json" {
            whole.insert(generation);
        } else if !record_path(directory, generation).exists() {
            unfinished.push(entry.path());
        }
    }
    for path in unfinished {
        warn!(path = %path.display(), "removing what is left of an unfinished catalog");
        fs::remove_file(path)?;
    }
    Ok((last, whole))
}

/// Deletes a generation, its record first: what is left if that is interrupted counts as unfinished.
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
