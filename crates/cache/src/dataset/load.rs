//! Loads: fetching a Dataset, or a part of it, before it is read.
//!
//! A load walks the newest catalog in directory order. Cached files are skipped, so an interrupted load continues
//! where it was. It never evicts: it takes free space only, below the level at which eviction begins, and a file
//! that finds none is left out and counted with its reason.

use std::sync::Arc;
use std::time::Duration;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use millpond_catalog::{Kind, Nid, Object, Place};
use millpond_core::{Inode, ObjectRef, ReadError};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::debug;

use super::Dataset;
use super::catalogs::OpenCatalog;
use super::read_path::FetchOutcome;
use super::sources::ObjectLocation;
use crate::fetch::{Bandwidth, Priority};
use crate::store::ReservePolicy;

/// Files found and not yet started.
const QUEUED_FILES: usize = 1_024;

/// Failures whose paths are reported.
const MAX_SAMPLES: usize = 20;

/// Concurrent fetch runs of one large object.
const MAX_CONCURRENT_RUNS: usize = 4;

/// The deepest tree that is walked: a path that is opened by name has at most 4,096 bytes.
const MAX_DEPTH: usize = 2_048;

/// The shortest interval between progress updates.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// What to load, and how fast.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LoadOptions {
    /// Paths from the root of the tree: a file, a directory, or a glob (`train/**/*.jpg`). Empty: everything.
    pub paths: Vec<String>,
    /// Files loaded concurrently; 0: 64.
    pub threads: usize,
    /// Bytes per second; absent: no limit.
    pub bandwidth_bytes_per_second: Option<u64>,
}

/// Progress of a load.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadProgress {
    /// Files that match, of those walked so far; final when `counted`.
    pub files_total: u64,
    /// Their bytes.
    pub bytes_total: u64,
    /// Whether the totals are final.
    pub counted: bool,
    /// Files that are cached now.
    pub files_done: u64,
    /// Bytes that are cached now.
    pub bytes_done: u64,
    /// Of those, bytes that this load fetched.
    pub bytes_fetched: u64,
    /// Files that could not be loaded.
    pub failed: u64,
    /// Of those, files that were left out because there is no free space for them.
    #[serde(default)]
    pub left_out: u64,
    /// Some of the files that could not be loaded, and why.
    pub failed_samples: Vec<String>,
    /// Whether the load is over.
    pub finished: bool,
}

/// Why a load did not start.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A path is not a glob.
    #[error("{path:?} is not a path or a glob")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        #[source]
        source: globset::Error,
    },
    /// There is no catalog yet.
    #[error("the source has not been listed yet")]
    NoCatalog,
    /// No file matches.
    #[error("no file matches {paths}")]
    NothingMatches {
        /// The requested paths.
        paths: String,
    },
}

/// Why one file was not loaded.
#[derive(Debug, thiserror::Error)]
enum NotLoaded {
    #[error("no free space for it in the cache, and a load evicts nothing")]
    NoFreeSpace,
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The selected files.
#[derive(Debug)]
struct Selection {
    everything: bool,
    prefixes: Vec<String>,
    globs: GlobSet,
}

impl Selection {
    fn new(paths: &[String]) -> Result<Self, LoadError> {
        let mut globs = GlobSetBuilder::new();
        let mut prefixes = Vec::new();
        for path in paths {
            let failed = |source| LoadError::Path {
                path: path.clone(),
                source,
            };
            let trimmed = path.trim_matches('/');
            // A name may hold characters that have a meaning in a glob, so every path also matches literally.
            prefixes.push(trimmed.to_owned());
            if trimmed.contains(['*', '?', '[', '{']) {
                globs.add(
                    GlobBuilder::new(trimmed)
                        .literal_separator(true)
                        .build()
                        .map_err(failed)?,
                );
            }
        }
        let globs = globs.build().map_err(|source| LoadError::Path {
            path: paths.join(" "),
            source,
        })?;
        Ok(Self {
            everything: paths.is_empty(),
            prefixes,
            globs,
        })
    }

    fn matches(&self, path: &str) -> bool {
        let below = |prefix: &String| {
            prefix.is_empty()
                || path
                    .strip_prefix(prefix)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.everything || self.prefixes.iter().any(below) || self.globs.is_match(path)
    }
}

impl Dataset {
    /// Loads the files that `options` select, and reports to `progress`.
    ///
    /// # Errors
    /// Nothing can be loaded. Single files that fail are counted in the progress instead.
    ///
    /// # Cancel safety
    /// Dropping the future ends the load; what it fetched stays.
    pub async fn load(
        self: &Arc<Self>,
        options: LoadOptions,
        progress: &watch::Sender<LoadProgress>,
    ) -> Result<LoadProgress, LoadError> {
        let selection = Selection::new(&options.paths)?;
        let open = self.catalogs.newest().ok_or(LoadError::NoCatalog)?;
        let bandwidth = options
            .bandwidth_bytes_per_second
            .map(Bandwidth::new)
            .map(Arc::new);
        let threads = if options.threads == 0 {
            64
        } else {
            options.threads.min(1_024)
        };
        let generation = open.file.generation;

        let (found, mut queue) = mpsc::channel(QUEUED_FILES);
        let walking = {
            let progress = progress.clone();
            tokio::task::spawn_blocking(move || {
                walk(&open, &selection, &found, &progress);
                progress.send_modify(|progress| progress.counted = true);
            })
        };
        let mut tasks = JoinSet::new();
        while let Some(FoundFile { inode, located }) = queue.recv().await {
            if tasks.len() >= threads {
                tasks.join_next().await;
            }
            let (dataset, bandwidth, progress) = (Arc::clone(self), bandwidth.clone(), progress.clone());
            tasks.spawn(async move {
                let reference = ObjectRef {
                    generation,
                    inode: Inode(inode.0),
                    id: located.object.id,
                    size_bytes: located.object.size_bytes,
                };
                let loading = dataset.load_one(reference, located.clone(), bandwidth.as_deref());
                let result = loading.await;
                dataset.count(&located.object, result, &progress);
            });
        }
        while tasks.join_next().await.is_some() {}
        if walking.await.is_err() {
            debug!("failed to walk all of the catalog for a load");
        }
        progress.send_modify(|progress| progress.finished = true);
        let end = progress.borrow().clone();
        if end.files_total == 0 && !options.paths.is_empty() {
            return Err(LoadError::NothingMatches {
                paths: options.paths.join(" "),
            });
        }
        Ok(end)
    }

    /// Loads one file; returns the number of bytes that had to be fetched.
    async fn load_one(
        &self,
        reference: ObjectRef,
        located: ObjectLocation,
        bandwidth: Option<&Bandwidth>,
    ) -> Result<u64, NotLoaded> {
        if self.store.has(located.object.id) {
            return Ok(0);
        }
        let size_bytes = located.object.size_bytes;
        if size_bytes <= self.small_object_bytes {
            if let Some(bandwidth) = bandwidth {
                bandwidth.take(size_bytes).await;
            }
            let fetch = self
                .small_objects
                .fetch(located, Priority::Background, ReservePolicy::FreeOnly);
            return match fetch.await? {
                FetchOutcome::Cached | FetchOutcome::Joined => Ok(0),
                FetchOutcome::Fetched => Ok(size_bytes),
                FetchOutcome::NotStored | FetchOutcome::NoFreeSpace => Err(NotLoaded::NoFreeSpace),
            };
        }
        let state = self.block_reader.open_for_load(reference).await?;
        let state = state.ok_or(NotLoaded::NoFreeSpace)?;
        Ok(self
            .block_reader
            .load(&state, MAX_CONCURRENT_RUNS, bandwidth)
            .await?)
    }

    fn count(&self, object: &Object, result: Result<u64, NotLoaded>, progress: &watch::Sender<LoadProgress>) {
        match &result {
            Ok(fetched) => {
                self.metrics.load_files.inc();
                self.metrics.load_bytes.inc_by(*fetched);
            }
            Err(_) => self.metrics.load_failures.inc(),
        }
        progress.send_modify(|progress| match result {
            Ok(fetched) => {
                progress.files_done += 1;
                progress.bytes_done += object.size_bytes;
                progress.bytes_fetched += fetched;
            }
            Err(reason) => {
                progress.failed += 1;
                progress.left_out += u64::from(matches!(reason, NotLoaded::NoFreeSpace));
                if progress.failed_samples.len() < MAX_SAMPLES {
                    progress.failed_samples.push(format!("{}: {reason}", object.key));
                }
            }
        });
    }
}

/// A file that the walk found.
#[derive(Debug)]
struct FoundFile {
    inode: Nid,
    located: ObjectLocation,
}

/// Sends every selected file of the catalog. Returns early when the receiver is dropped.
fn walk(
    catalog: &OpenCatalog,
    selection: &Selection,
    found: &mpsc::Sender<FoundFile>,
    progress: &watch::Sender<LoadProgress>,
) {
    let image = catalog.catalog.image();
    let mut stack = vec![(image.root(), 0_u64, String::new())];
    let mut total = (0_u64, 0_u64);
    let mut reported = std::time::Instant::now();
    while let Some((directory, cookie, path)) = stack.pop() {
        let Ok(entries) = image.read_dir(directory, cookie) else {
            continue;
        };
        for entry in entries {
            let Ok(entry) = entry else { break };
            if matches!(entry.name, b"." | b"..") {
                continue;
            }
            let name = String::from_utf8_lossy(entry.name);
            let below = if path.is_empty() {
                name.into_owned()
            } else {
                format!("{path}/{name}")
            };
            match entry.kind {
                Kind::Directory if stack.len() < MAX_DEPTH => {
                    stack.push((directory, entry.next, path));
                    stack.push((entry.nid, 0, below));
                    break;
                }
                Kind::File if selection.matches(&below) => {
                    let place = Place {
                        inode: entry.nid,
                        parent: directory,
                    };
                    let Ok(located) = catalog.locate(place) else {
                        continue;
                    };
                    total = (total.0 + 1, total.1 + located.object.size_bytes);
                    if reported.elapsed() >= PROGRESS_INTERVAL {
                        report(progress, total);
                        reported = std::time::Instant::now();
                    }
                    if found
                        .blocking_send(FoundFile {
                            inode: entry.nid,
                            located,
                        })
                        .is_err()
                    {
                        return;
                    }
                }
                Kind::Directory | Kind::File => {}
            }
        }
    }
    report(progress, total);
}

fn report(progress: &watch::Sender<LoadProgress>, (files, bytes): (u64, u64)) {
    progress.send_modify(|progress| (progress.files_total, progress.bytes_total) = (files, bytes));
}
