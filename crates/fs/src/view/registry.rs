//! All views of one Dataset on this node.
//!
//! The driver mounts views through the registry, and the worker has it release objects ([`millpond_core::Views`]). Mounts are
//! changed one at a time, on blocking threads: calls that send requests to the FUSE mount, which this very process may serve,
//! are performed by the mounter ([`crate::mounter`]), and waited for.
//!
//! Views outlive the registry. Stopping it ([`Registry::stop`]) unmounts nothing; the next one adopts the views that it finds.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use millpond_core::ObjectId;
use millpond_core::{Generation, ReleaseError, Views, Worker};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bind::{BindSpec, BindView};
use super::error::ViewError;
use super::kernel::{InUse, KernelView};
use super::mounted_generation::{MountedGeneration, MountedGenerations};
use super::opens::{FuseOpenLog, OpenCounter, OpenSink};
use super::remount_rounds::{ReleaseSet, Rounds};
use super::remount_schedule::{RemountRules, RemountSchedule};
use super::spec::{OverlayMode, ViewSpec};
use crate::generations::{GenerationPin, Generations};
use crate::metrics::ViewMetrics;
use crate::mounter::Mounter;

/// The options of a registry.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// What the kernel allows: see [`super::KernelSupport`].
    pub mode: OverlayMode,
    /// When views are remounted for objects that became complete.
    pub remount: RemountRules,
    /// The metrics of the views.
    pub metrics: ViewMetrics,
    /// The mounter of mounts that send requests to the FUSE mount.
    pub mounter: Mounter,
}

/// The views of one Dataset. See the module's documentation. Clones are the same registry.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    options: RegistryOptions,
    generations: Arc<Generations>,
    /// By target. Never locked across a system call.
    views: Mutex<BTreeMap<PathBuf, View>>,
    /// Locked while mounts are changed.
    changes: Arc<AsyncMutex<MountedGenerations>>,
    rounds: Arc<Rounds>,
    sink: Arc<OpenSink>,
    counter: OpenCounter,
    remounts: Mutex<(RemountSchedule, ReleaseSet)>,
    remount_added: Notify,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

#[derive(Clone)]
enum View {
    Kernel(Arc<MountedKernelView>),
    Bind(Arc<MountedBindView>),
}

/// What to do with a view whose opens cannot be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnFailure {
    /// It was just mounted, and has no users.
    Unmount,
    /// It was adopted.
    Leave,
}

/// A kernel view and what it references while it is mounted.
struct MountedKernelView {
    view: KernelView,
    generation: Arc<MountedGeneration>,
    _pin: GenerationPin,
}

/// A FUSE view and what it references while it is mounted.
struct MountedBindView {
    view: BindView,
    /// `None` for a view of the newest generation, which the worker retains anyway.
    _pin: Option<GenerationPin>,
}

impl Registry {
    /// Creates a registry without views. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The thread that counts opens cannot be started.
    pub fn new(options: RegistryOptions) -> Result<Self, ViewError> {
        let sink = Arc::new(OpenSink::new(options.metrics.clone()));
        let counter =
            OpenCounter::start(Arc::clone(&sink)).map_err(ViewError::system("start to count opens"))?;
        let schedule = RemountSchedule::new(options.remount);
        let shared = Arc::new(Shared {
            options,
            generations: Arc::default(),
            views: Mutex::default(),
            changes: Arc::default(),
            rounds: Arc::default(),
            sink,
            counter,
            remounts: Mutex::new((schedule, ReleaseSet::default())),
            remount_added: Notify::new(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        });
        shared.tasks.spawn(Arc::clone(&shared).run_remounts());
        Ok(Self { shared })
    }

    /// Connects the worker, to which pinned generations and opens are reported.
    pub fn connect(&self, worker: Arc<dyn Worker>) {
        self.shared.sink.connect(Some(Arc::clone(&worker)));
        self.shared.generations.connect(Some(worker));
    }

    /// The opens of kernel views that the FUSE server answers, logged by it.
    pub(crate) fn fuse_opens(&self) -> &FuseOpenLog {
        &self.shared.sink.fuse_opens
    }

    /// The pins of generations: of the views, and of others.
    pub fn generations(&self) -> &Arc<Generations> {
        &self.shared.generations
    }

    /// Mounts a kernel view.
    ///
    /// # Errors
    /// [`ViewError::AlreadyMounted`] and [`ViewError::Occupied`] where the target is in use; else the kernel's error.
    ///
    /// # Cancel safety
    /// A mount that has begun is completed when its caller is dropped.
    pub async fn mount(&self, spec: ViewSpec) -> Result<(), ViewError> {
        self.change(move |registry, mounted| {
            registry.refuse_mounted(&spec.target)?;
            let pin = registry.generations.pin(spec.catalog.generation);
            let generation = mounted.add_view(&spec)?;
            let view = KernelView::mount(spec.clone(), registry.options.mode, &registry.options.mounter);
            match view.and_then(|view| registry.count(view, &generation, OnFailure::Unmount)) {
                Ok(view) => registry.insert(view, generation, pin),
                Err(error) => {
                    mounted.remove_view(&spec, &registry.counter);
                    return Err(error);
                }
            }
            Ok(())
        })
        .await
    }

    /// Takes over a kernel view that a predecessor mounted; returns whether there was one.
    ///
    /// # Errors
    /// [`ViewError::Occupied`] where the mount there is another one.
    ///
    /// # Cancel safety
    /// As [`Self::mount`].
    pub async fn adopt(&self, spec: ViewSpec) -> Result<bool, ViewError> {
        self.change(move |registry, mounted| {
            registry.refuse_mounted(&spec.target)?;
            let pin = registry.generations.pin(spec.catalog.generation);
            let generation = mounted.add_view(&spec)?;
            let view = KernelView::adopt(spec.clone()).and_then(|view| {
                view.map(|view| registry.count(view, &generation, OnFailure::Leave))
                    .transpose()
            });
            match view {
                Ok(Some(view)) => {
                    registry.insert(view, generation, pin);
                    Ok(true)
                }
                none_or_error => {
                    mounted.remove_view(&spec, &registry.counter);
                    none_or_error.map(|_| false)
                }
            }
        })
        .await
    }

    /// Mounts a FUSE view of `generation`; `None`: of the newest.
    ///
    /// # Errors
    /// As [`Self::mount`].
    ///
    /// # Cancel safety
    /// As [`Self::mount`].
    pub async fn bind(&self, spec: BindSpec, generation: Option<Generation>) -> Result<(), ViewError> {
        self.change(move |registry, _| {
            registry.refuse_mounted(&spec.target)?;
            let pin = generation.map(|generation| registry.generations.pin(generation));
            registry.insert_bind(BindView::mount(spec, &registry.options.mounter)?, pin);
            Ok(())
        })
        .await
    }

    /// Takes over a FUSE view of the FUSE mount at `fuse_root` that a predecessor mounted; returns whether there was one.
    ///
    /// # Errors
    /// As [`Self::adopt`].
    ///
    /// # Cancel safety
    /// As [`Self::mount`].
    pub async fn adopt_bind(
        &self,
        spec: BindSpec,
        fuse_root: PathBuf,
        generation: Option<Generation>,
    ) -> Result<bool, ViewError> {
        self.change(move |registry, _| {
            registry.refuse_mounted(&spec.target)?;
            let pin = generation.map(|generation| registry.generations.pin(generation));
            let Some(view) = BindView::adopt(spec, &fuse_root)? else {
                return Ok(false);
            };
            registry.insert_bind(view, pin);
            Ok(true)
        })
        .await
    }

    /// Unmounts the view at `target`.
    ///
    /// A view that is detached while it is read is not remounted any more: objects that it resolves after this
    /// may occupy their space until its last reader has closed it.
    ///
    /// # Errors
    /// [`ViewError::Missing`] where none is mounted; [`ViewError::Busy`] where `in_use` refuses.
    ///
    /// # Cancel safety
    /// An unmount that has begun is completed when its caller is dropped.
    pub async fn unmount(&self, target: PathBuf, in_use: InUse) -> Result<(), ViewError> {
        self.change(move |registry, mounted| {
            let found = registry.views.lock().get(&target).cloned();
            match &found {
                None => return Err(ViewError::Missing { target }),
                Some(View::Kernel(view)) => registry.unmount(view, in_use)?,
                Some(View::Bind(view)) => view.view.unmount(in_use)?,
            }
            registry.remove(&target);
            if let Some(View::Kernel(view)) = found {
                mounted.remove_view(view.view.spec(), &registry.counter);
            }
            Ok(())
        })
        .await
    }

    /// The targets of all views, in order.
    pub fn targets(&self) -> Vec<PathBuf> {
        self.shared.views.lock().keys().cloned().collect()
    }

    /// Schedules a remount for a complete object that views may have resolved to FUSE, so that they look it up again. To be
    /// called after each close of such an object through FUSE: a remount drops no inode that is open.
    pub fn object_completed(&self, id: ObjectId, size_bytes: u64) {
        {
            let mut remounts = self.shared.remounts.lock();
            remounts.0.add(size_bytes, Instant::now());
            remounts.1.add(&[id]);
        }
        self.shared.remount_added.notify_one();
    }

    /// Counts all opens up to now: a scrape includes those of the last milliseconds.
    ///
    /// # Errors
    /// The task cannot be run.
    pub async fn count_now(&self) -> Result<(), ViewError> {
        self.change(|registry, _| {
            let views: Vec<_> = registry.views.lock().values().cloned().collect();
            for view in views {
                if let View::Kernel(view) = view {
                    view.generation.drain(&registry.counter);
                }
            }
            Ok(())
        })
        .await
    }

    /// Stops the registry's tasks and disconnects the worker. All views stay mounted; their opens are not counted any more.
    pub async fn stop(&self) {
        self.shared.stopping.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        let counter = self.change(|registry, _| {
            registry.counter.stop();
            Ok(())
        });
        if let Err(error) = counter.await {
            tracing::warn!(%error, "failed to stop counting opens");
        }
        self.shared.sink.connect(None);
        self.shared.generations.connect(None);
    }

    /// Runs `change` on a blocking thread, after all earlier changes.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Shared, &mut MountedGenerations) -> Result<T, ViewError> + Send + 'static,
    ) -> Result<T, ViewError> {
        let mut mounted = Arc::clone(&self.shared.changes).lock_owned().await;
        let registry = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || change(&registry, &mut mounted))
            .await
            .unwrap_or_else(|error| Err(ViewError::system("change a mount")(error.into())))
    }
}

impl Shared {
    fn refuse_mounted(&self, target: &Path) -> Result<(), ViewError> {
        if self.views.lock().contains_key(target) {
            return Err(ViewError::AlreadyMounted {
                target: target.to_owned(),
            });
        }
        Ok(())
    }

    /// Starts to count the opens of a view, if its spec requires it.
    fn count(
        &self,
        view: KernelView,
        generation: &MountedGeneration,
        on_failure: OnFailure,
    ) -> Result<KernelView, ViewError> {
        if !view.spec().count_opens {
            return Ok(view);
        }
        let marked = generation
            .group(view.mode(), &self.counter)
            .and_then(|group| group.mark(view.anchor().as_fd()));
        match (marked, on_failure) {
            (Ok(()), _) => Ok(view),
            (Err(error), OnFailure::Leave) => Err(error),
            (Err(error), OnFailure::Unmount) => {
                view.unmount(InUse::Detach)?;
                Err(error)
            }
        }
    }

    fn insert(&self, view: KernelView, generation: Arc<MountedGeneration>, pin: GenerationPin) {
        let target = view.spec().target.clone();
        let view = MountedKernelView {
            view,
            generation,
            _pin: pin,
        };
        self.insert_view(target, View::Kernel(Arc::new(view)));
    }

    fn insert_bind(&self, view: BindView, pin: Option<GenerationPin>) {
        let target = view.spec().target.clone();
        let view = MountedBindView { view, _pin: pin };
        self.insert_view(target, View::Bind(Arc::new(view)));
    }

    fn insert_view(&self, target: PathBuf, view: View) {
        self.views.lock().insert(target, view);
        self.options.metrics.views.inc();
    }

    fn remove(&self, target: &Path) {
        let removed = self.views.lock().remove(target);
        if removed.is_some() {
            self.options.metrics.views.dec();
        }
    }

    /// Unmounts a kernel view; all its opens are counted.
    fn unmount(&self, view: &MountedKernelView, in_use: InUse) -> Result<(), ViewError> {
        // An unread event with a descriptor is a use of the view, so events are read first, and again if more arrived.
        view.generation.drain(&self.counter);
        match view.view.unmount(InUse::Refuse) {
            Err(ViewError::Busy { .. }) => {
                view.generation.drain(&self.counter);
                view.view.unmount(in_use)?;
            }
            other => other?,
        }
        view.generation.drain(&self.counter);
        Ok(())
    }

    /// Remounts all kernel views that may have resolved one of the objects.
    fn remount(&self, objects: &ReleaseSet) -> Result<(), String> {
        let views: Vec<_> = self.views.lock().values().cloned().collect();
        let mut failures = Vec::new();
        for view in views {
            let View::Kernel(view) = view else { continue };
            let concerned = match objects {
                ReleaseSet::Objects(ids) => view.generation.references_any(ids),
                ReleaseSet::All => true,
            };
            if !concerned {
                continue;
            }
            let begun = Instant::now();
            match view.view.remount() {
                Ok(()) => self.options.metrics.remounted(begun.elapsed()),
                Err(error) => failures.push(format!("{error:?}")),
            }
        }
        if failures.is_empty() {
            Ok(())
        } else {
            Err(failures.join("; "))
        }
    }

    /// Remounts for objects that became complete, until the registry stops.
    async fn run_remounts(self: Arc<Self>) {
        loop {
            let due = self.remounts.lock().0.due();
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = self.remount_added.notified() => continue,
                () = wait => {}
            }
            let objects = {
                let mut remounts = self.remounts.lock();
                remounts.0.begin();
                std::mem::take(&mut remounts.1)
            };
            let begun = Instant::now();
            let registry = Arc::clone(&self);
            let remounted = tokio::task::spawn_blocking(move || registry.remount(&objects)).await;
            if let Ok(Err(reason)) = remounted {
                tracing::warn!(%reason, "failed to remount views; complete files are read through FUSE until the next remount");
            }
            self.remounts.lock().0.remounted(begun, Instant::now());
        }
    }
}

#[async_trait]
impl Views for Registry {
    async fn release(&self, unlinked: &[ObjectId]) -> Result<(), ReleaseError> {
        let shared = Arc::clone(&self.shared);
        let remount = move |objects: &ReleaseSet| shared.remount(objects);
        self.shared.rounds.run_or_join(unlinked, remount).await
    }
}
