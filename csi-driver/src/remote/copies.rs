//! Copies of a Dataset's catalogs on this node.
//!
//! The kernel parses their images as root, so a catalog is copied into a directory that only the driver can write, checked
//! there byte by byte, and only then published ([`millpond_catalog::check`]). A copy is `gen-N.erofs` and `gen-N.index`, complete once
//! the former exists. It is retained while it is the newest or a view has its generation.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millpond_core::{CatalogFile, Generation};
use millpond_wire::worker as wire;
use millpond_wire::worker::worker_client::WorkerClient;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::transport::Channel;
use tracing::{info, warn};

/// Largest image or index: a hundred million files have an image of 20 GB.
const MAX_FILE_BYTES: u64 = 256 << 30;

/// A transfer fails when the worker sends nothing for this time.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);

/// Error of a copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The directory cannot be used.
    #[error("failed to store copies of catalogs in {}", path.display())]
    Directory {
        /// Path of the directory.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The worker did not send it.
    #[error("the worker did not send the catalog: {reason}")]
    Worker {
        /// Reason of the failure.
        reason: String,
    },
    /// The received catalog failed the check.
    #[error("the received catalog failed the check; refused")]
    Refused(#[from] millpond_catalog::Error),
}

#[derive(Debug, Default)]
struct State {
    here: BTreeSet<Generation>,
    /// Generations of views; `None` until the driver has reported them.
    in_use: Option<BTreeSet<Generation>>,
}

/// Copies of one Dataset's catalogs.
#[derive(Debug)]
pub(super) struct Copies {
    directory: PathBuf,
    newest: watch::Sender<Option<Arc<CatalogFile>>>,
    state: Mutex<State>,
}

impl Copies {
    /// Opens the directory, creating it if needed. Incomplete copies are removed.
    pub(super) fn open(directory: PathBuf) -> Result<Self, CopyError> {
        let here = take_stock(&directory).map_err(|source| CopyError::Directory {
            path: directory.clone(),
            source,
        })?;
        let newest = here.last().map(|newest| Arc::new(files(&directory, *newest)));
        Ok(Self {
            newest: watch::Sender::new(newest),
            state: Mutex::new(State { here, in_use: None }),
            directory,
        })
    }

    /// Returns a receiver of the newest copy.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Arc<CatalogFile>>> {
        self.newest.subscribe()
    }

    /// Sets the generations of views; copies of others, except the newest, are deleted.
    pub(super) fn in_use(&self, generations: &BTreeSet<Generation>) {
        self.state.lock().in_use = Some(generations.clone());
        self.remove_unused();
    }

    /// Copies a catalog that the worker has announced, unless a copy exists, and publishes it.
    pub(super) async fn take(
        &self,
        client: WorkerClient<Channel>,
        caller: &wire::Caller,
        new: wire::NewCatalog,
    ) -> Result<(), CopyError> {
        let generation = Generation(new.generation);
        if !self.state.lock().here.contains(&generation) {
            self.copy(client, caller, &new).await?;
            self.state.lock().here.insert(generation);
        }
        let file = Arc::new(files(&self.directory, generation));
        // A restarted worker, or another one, may have older catalogs: the published generation never decreases.
        self.newest.send_if_modified(|newest| {
            let newer = newest
                .as_ref()
                .is_none_or(|newest| newest.generation < generation);
            if newer {
                *newest = Some(file);
            }
            newer
        });
        self.remove_unused();
        Ok(())
    }

    async fn copy(
        &self,
        mut client: WorkerClient<Channel>,
        caller: &wire::Caller,
        new: &wire::NewCatalog,
    ) -> Result<(), CopyError> {
        let failed = |source| CopyError::Directory {
            path: self.directory.clone(),
            source,
        };
        let staging = tempfile::Builder::new()
            .prefix("new-")
            .tempdir_in(&self.directory)
            .map_err(failed)?;
        let parts = [
            (wire::CatalogPart::Image, new.image_bytes, "image"),
            (wire::CatalogPart::Index, new.index_bytes, "index"),
        ];
        for (part, bytes, name) in parts {
            if bytes > MAX_FILE_BYTES {
                return Err(CopyError::Worker {
                    reason: format!("its {name} has {bytes} bytes"),
                });
            }
            let request = wire::CatalogRequest {
                caller: Some(caller.clone()),
                generation: new.generation,
                part: part.into(),
            };
            receive(&mut client, request, bytes, &staging.path().join(name)).await?;
        }
        let (directory, generation) = (self.directory.clone(), Generation(new.generation));
        let checked = tokio::task::spawn_blocking(move || {
            let (image, index) = (staging.path().join("image"), staging.path().join("index"));
            let summary = millpond_catalog::check(&image, &index, staging.path())?;
            let copy = files(&directory, generation);
            let moved = fs::rename(&index, &copy.index)
                .and_then(|()| fs::rename(&image, &copy.image))
                .and_then(|()| File::open(&directory)?.sync_all());
            moved.map_err(|source| CopyError::Directory {
                path: directory,
                source,
            })?;
            Ok::<_, CopyError>(summary)
        });
        let summary = checked.await.map_err(|error| failed(error.into()))??;
        info!(
            dataset = %caller.dataset_uid,
            generation = new.generation,
            files = summary.files,
            "copied a new catalog"
        );
        Ok(())
    }

    fn remove_unused(&self) {
        let newest = self.newest.borrow().as_ref().map(|newest| newest.generation);
        let unused: Vec<Generation> = {
            let mut state = self.state.lock();
            let (Some(newest), Some(in_use)) = (newest, &state.in_use) else {
                return;
            };
            let unused: Vec<_> = state
                .here
                .range(..newest)
                .filter(|generation| !in_use.contains(generation))
                .copied()
                .collect();
            for generation in &unused {
                state.here.remove(generation);
            }
            unused
        };
        for generation in unused {
            let copy = files(&self.directory, generation);
            // The image first: an index without it is removed by the next start.
            for path in [copy.image, copy.index] {
                if let Err(error) = fs::remove_file(&path) {
                    warn!(path = %path.display(), %error, "failed to remove a copy of a catalog; retried at the next start");
                }
            }
        }
    }
}

/// Writes the worker's stream to `path` and syncs it.
async fn receive(
    client: &mut WorkerClient<Channel>,
    request: wire::CatalogRequest,
    bytes: u64,
    path: &Path,
) -> Result<(), CopyError> {
    let from_worker = |status: tonic::Status| CopyError::Worker {
        reason: status.message().to_owned(),
    };
    let failed = |source| CopyError::Directory {
        path: path.to_owned(),
        source,
    };
    let mut chunks = client.catalog(request).await.map_err(from_worker)?.into_inner();
    let mut file = File::create_new(path).map_err(failed)?;
    let mut left = bytes;
    loop {
        let next = tokio::time::timeout(CHUNK_TIMEOUT, chunks.message()).await;
        let next = next.map_err(|_elapsed| CopyError::Worker {
            reason: format!("no data within {CHUNK_TIMEOUT:?}"),
        })?;
        let Some(wire::CatalogChunk { data }) = next.map_err(from_worker)? else {
            break;
        };
        left = left
            .checked_sub(data.len() as u64)
            .ok_or_else(|| CopyError::Worker {
                reason: format!("it sends more than {bytes} bytes"),
            })?;
        let written = tokio::task::spawn_blocking(move || file.write_all(&data).map(|()| file));
        file = written
            .await
            .map_err(|error| failed(error.into()))?
            .map_err(failed)?;
    }
    if left > 0 {
        return Err(CopyError::Worker {
            reason: format!("{left} of {bytes} bytes are missing"),
        });
    }
    let synced = tokio::task::spawn_blocking(move || file.sync_all());
    synced
        .await
        .map_err(|error| failed(error.into()))?
        .map_err(failed)
}

fn files(directory: &Path, generation: Generation) -> CatalogFile {
    CatalogFile {
        generation,
        image: directory.join(format!("gen-{generation}.erofs")),
        index: directory.join(format!("gen-{generation}.index")),
    }
}

/// Returns the complete copies, and removes all other files.
fn take_stock(directory: &Path) -> io::Result<BTreeSet<Generation>> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut here = BTreeSet::new();
    let mut rest = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix("gen-")?.strip_suffix(".erofs")?.parse().ok());
        match number.map(Generation) {
            Some(generation) if files(directory, generation).index.exists() => {
                here.insert(generation);
            }
            _ => rest.push(path),
        }
    }
    let known: BTreeSet<PathBuf> = here
        .iter()
        .map(|generation| files(directory, *generation).index)
        .collect();
    for path in rest.into_iter().filter(|path| !known.contains(path)) {
        warn!(path = %path.display(), "removing an incomplete copy of a catalog");
        if path.is_dir() {
            fs::remove_dir_all(path)?;
        } else {
            fs::remove_file(path)?;
        }
    }
    Ok(here)
}
