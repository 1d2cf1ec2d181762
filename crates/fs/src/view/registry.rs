//! All views of one Dataset on this node.
//!
//! The registry is what the rest of the driver asks for views, and what the worker asks to let go of objects
//! ([`millpond_core::Views`]). Mounts are changed one at a time, on blocking threads: what asks the FUSE mount, which this very
//! process may serve, is done by the mounter ([`crate::mounter`]), and waited for.
//!
//! Views outlive the registry. Its end ([`Registry::stop`]) unmounts nothing; the next one adopts what it finds.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use millpond_core::ObjectId;
use millpond_core::{Generation, ReleaseError, Views, Worker};
use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, Notify};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bind::{BindSpec, BindView};
use super::error::ViewError;
use super::kernel::{InUse, KernelView};
use super::mounted_generation::{MountedGeneration, ShownGenerations};
use super::opens::{FuseOpenLog, OpenCounter, OpenSink};
use super::remount_rounds::{Rounds, Wanted};
use super::remount_schedule::{RemountRules, RemountSchedule};
use super::spec::{OverlayMode, ViewSpec};
use crate::generations::{GenerationPin, Generations};
use crate::metrics::ViewMetrics;
use crate::mounter::Mounter;

/// How a registry shows views.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// What the kernel allows: see [`super::KernelSupport`].
    pub mode: OverlayMode,
    /// When files that became whole are made native.
    pub settle: RemountRules,
    /// Where views and opens are counted.
    pub metrics: ViewMetrics,
    /// Who makes the mounts that ask the FUSE mount.
    pub mounter: Mounter,
}

/// See the module's documentation. Clones are the same registry.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    options: RegistryOptions,
    generations: Arc<Generations>,
    /// By target. Held for moments only.
    views: Mutex<BTreeMap<PathBuf, View>>,
    /// Held while mounts are changed.
    changes: Arc<Turn<ShownGenerations>>,
    rounds: Arc<Rounds>,
    sink: Arc<OpenSink>,
    counter: OpenCounter,
    settling: Mutex<(RemountSchedule, Wanted)>,
    settled: Notify,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

#[derive(Clone)]
enum View {
    Kernel(Arc<KernelViewOf>),
    Bind(Arc<BindViewOf>),
}

/// What becomes of a view whose opens cannot be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnFailure {
    /// It was just mounted: nobody has seen it.
    Unmount,
    /// It was there before.
    Leave,
}

/// A kernel view and what it needs as long as it is shown.
struct KernelViewOf {
    view: KernelView,
    shown: Arc<MountedGeneration>,
    _held: GenerationPin,
}

/// A FUSE view and what it needs as long as it is shown.
struct BindViewOf {
    view: BindView,
    /// `None` for a view of the newest generation, which the worker keeps anyway.
    _held: Option<GenerationPin>,
}

impl Registry {
    /// Makes a registry without views. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Where the system has no thread for the counting of opens.
    pub fn new(options: RegistryOptions) -> Result<Self, ViewError> {
        let sink = Arc::new(OpenSink::new(options.metrics.clone()));
        let counter = OpenCounter::start(Arc::clone(&sink))
            .map_err(ViewError::system("start the counting of opens"))?;
        let settling = RemountSchedule::new(options.settle);
        let shared = Arc::new(Shared {
            options,
            generations: Arc::default(),
            views: Mutex::default(),
            changes: Arc::default(),
            rounds: Arc::default(),
            sink,
            counter,
            settling: Mutex::new((settling, Wanted::default())),
            settled: Notify::new(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        });
        shared.tasks.spawn(Arc::clone(&shared).settle());
        Ok(Self { shared })
    }

    /// Names the worker that is told which generations are in use and what is opened.
    pub fn connect(&self, worker: Arc<dyn Worker>) {
        self.shared.sink.connect(Some(Arc::clone(&worker)));
        self.shared.generations.connect(Some(worker));
    }

    /// The opens of kernel views that the FUSE server answers, logged by it.
    pub(crate) fn fuse_opens(&self) -> &FuseOpenLog {
        &self.shared.sink.fuse_opens
    }

    /// The generations in use; the FUSE server may hold more of them than the views.
    pub fn generations(&self) -> &Arc<Generations> {
        &self.shared.generations
    }

    /// Mounts a kernel view.
    ///
    /// # Errors
    /// [`ViewError::Shown`] and [`ViewError::RecoveredMount`] where the target is in use; else what the kernel refused.
    ///
    /// # Cancel safety
    /// A mount that has begun is finished and shown when its caller is dropped.
    pub async fn mount(&self, spec: ViewSpec) -> Result<(), ViewError> {
        self.change(move |registry, shown| {
            registry.refuse_shown(&spec.target)?;
            let held = registry.generations.pin(spec.catalog.generation);
            let generation = shown.enter(&spec)?;
            let view = KernelView::mount(spec.clone(), registry.options.mode, &registry.options.mounter);
            match view.and_then(|view| registry.count(view, &generation, OnFailure::Unmount)) {
                Ok(view) => registry.insert(view, generation, held),
                Err(error) => {
                    shown.leave(&spec, &registry.counter);
                    return Err(error);
                }
            }
            Ok(())
        })
        .await
    }

    /// Takes over a kernel view that a predecessor mounted; whether there was one.
    ///
    /// # Errors
    /// [`ViewError::RecoveredMount`] where the mount there is another one.
    ///
    /// # Cancel safety
    /// As [`Self::mount`].
    pub async fn adopt(&self, spec: ViewSpec) -> Result<bool, ViewError> {
        self.change(move |registry, shown| {
            registry.refuse_shown(&spec.target)?;
            let held = registry.generations.pin(spec.catalog.generation);
            let generation = shown.enter(&spec)?;
            let view = KernelView::adopt(spec.clone()).and_then(|view| {
                view.map(|view| registry.count(view, &generation, OnFailure::Leave))
                    .transpose()
            });
            match view {
                Ok(Some(view)) => {
                    registry.insert(view, generation, held);
                    Ok(true)
                }
                none_or_error => {
                    shown.leave(&spec, &registry.counter);
                    none_or_error.map(|_| false)
                }
            }
        })
        .await
    }

    /// Mounts a FUSE view; `generation` is the one it shows, `None` for the newest.
    ///
    /// # Errors
    /// As [`Self::mount`].
    ///
    /// # Cancel safety
    /// As [`Self::mount`].
    pub async fn bind(&self, spec: BindSpec, generation: Option<Generation>) -> Result<(), ViewError> {
        self.change(move |registry, _| {
            registry.refuse_shown(&spec.target)?;
            let held = generation.map(|generation| registry.generations.pin(generation));
            registry.insert_bind(BindView::mount(spec, &registry.options.mounter)?, held);
            Ok(())
        })
        .await
    }

    /// Takes over a FUSE view of the FUSE mount at `fuse_root` that a predecessor mounted; whether there was one.
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
            registry.refuse_shown(&spec.target)?;
            let held = generation.map(|generation| registry.generations.pin(generation));
            let Some(view) = BindView::adopt(spec, &fuse_root)? else {
                return Ok(false);
            };
            registry.insert_bind(view, held);
            Ok(true)
        })
        .await
    }

    /// Unmounts the view at `target`.
    ///
    /// A view that is detached while somebody reads it is not remounted any more: objects that it resolves after this
    /// may keep their space until its last reader is gone.
    ///
    /// # Errors
    /// [`ViewError::Missing`] where none is shown; [`ViewError::Busy`] where it stays for `in_use`.
    ///
    /// # Cancel safety
    /// An unmount that has begun is finished when its caller is dropped.
    pub async fn unmount(&self, target: PathBuf, in_use: InUse) -> Result<(), ViewError> {
        self.change(move |registry, shown| {
            let found = registry.views.lock().get(&target).cloned();
            match &found {
                None => return Err(ViewError::Missing { target }),
                Some(View::Kernel(view)) => registry.unmount(view, in_use)?,
                Some(View::Bind(view)) => view.view.unmount(in_use)?,
            }
            registry.remove(&target);
            if let Some(View::Kernel(view)) = found {
                shown.leave(view.view.spec(), &registry.counter);
            }
            Ok(())
        })
        .await
    }

    /// The targets of all views, in order.
    pub fn targets(&self) -> Vec<PathBuf> {
        self.shared.views.lock().keys().cloned().collect()
    }

    /// Says that an object is whole now which views may have resolved to FUSE, so that they look it up again some
    /// time later. To be said again when the last FUSE reader of a whole object closes it: what is open stays as it is.
    pub fn object_completed(&self, id: ObjectId, size_bytes: u64) {
        {
            let mut settling = self.shared.settling.lock();
            settling.0.add(size_bytes, Instant::now());
            settling.1.add(&[id]);
        }
        self.shared.settled.notify_one();
    }

    /// Counts all opens up to now: for a reader of the metrics that must not be some milliseconds early.
    ///
    /// # Errors
    /// Where the process has no thread for it.
    pub async fn count_now(&self) -> Result<(), ViewError> {
        self.change(|registry, _| {
            let views: Vec<_> = registry.views.lock().values().cloned().collect();
            for view in views {
                if let View::Kernel(view) = view {
                    view.shown.drain(&registry.counter);
                }
            }
            Ok(())
        })
        .await
    }

    /// Ends the registry's tasks and lets go of the worker. All views stay mounted; their opens are not counted any more.
    pub async fn stop(&self) {
        self.shared.stopping.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        let counter = self.change(|registry, _| {
            registry.counter.stop();
            Ok(())
        });
        if let Err(error) = counter.await {
            tracing::warn!(%error, "failed to end the counting of opens");
        }
        self.shared.sink.connect(None);
        self.shared.generations.connect(None);
    }

    /// Runs `change` on a blocking thread, after all changes that were asked for before.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Shared, &mut ShownGenerations) -> Result<T, ViewError> + Send + 'static,
    ) -> Result<T, ViewError> {
        let mut shown = Arc::clone(&self.shared.changes).lock_owned().await;
        let registry = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || change(&registry, &mut shown))
            .await
            .unwrap_or_else(|error| Err(ViewError::system("change a mount")(error.into())))
    }
}

impl Shared {
    fn refuse_shown(&self, target: &Path) -> Result<(), ViewError> {
        if self.views.lock().contains_key(target) {
            return Err(ViewError::Shown {
                target: target.to_owned(),
            });
        }
        Ok(())
    }

    /// Has the opens of a view counted, if that is wanted.
    fn count(
        &self,
        view: KernelView,
        shown: &MountedGeneration,
        on_failure: OnFailure,
    ) -> Result<KernelView, ViewError> {
        if !view.spec().count_opens {
            return Ok(view);
        }
        let marked = shown
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

    fn insert(&self, view: KernelView, shown: Arc<MountedGeneration>, held: GenerationPin) {
        let target = view.spec().target.clone();
        let view = KernelViewOf {
            view,
            shown,
            _held: held,
        };
        self.insert_view(target, View::Kernel(Arc::new(view)));
    }

    fn insert_bind(&self, view: BindView, held: Option<GenerationPin>) {
        let target = view.spec().target.clone();
        let view = BindViewOf { view, _held: held };
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

    /// Unmounts a kernel view; its opens up to the end are counted.
    fn unmount(&self, view: &KernelViewOf, in_use: InUse) -> Result<(), ViewError> {
        // An event that waits with a descriptor is a use of the view, so they are read first; and again if some came since.
        view.shown.drain(&self.counter);
        match view.view.unmount(InUse::Refuse) {
            Err(ViewError::Busy { .. }) => {
                view.shown.drain(&self.counter);
                view.view.unmount(in_use)?;
            }
            other => other?,
        }
        view.shown.drain(&self.counter);
        Ok(())
    }

    /// Remounts all kernel views that may have resolved one of the objects.
    fn remount(&self, wanted: &Wanted) -> Result<(), String> {
        let views: Vec<_> = self.views.lock().values().cloned().collect();
        let mut failures = Vec::new();
        for view in views {
            let View::Kernel(view) = view else { continue };
            let concerned = match wanted {
                Wanted::Objects(objects) => view.shown.names_any(objects),
                Wanted::All => true,
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

    /// Remounts for objects that became whole, until the registry stops.
    async fn settle(self: Arc<Self>) {
        loop {
            let due = self.settling.lock().0.due();
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = self.settled.notified() => continue,
                () = wait => {}
            }
            let wanted = {
                let mut settling = self.settling.lock();
                settling.0.begin();
                std::mem::take(&mut settling.1)
            };
            let begun = Instant::now();
            let registry = Arc::clone(&self);
            let remounted = tokio::task::spawn_blocking(move || registry.remount(&wanted)).await;
            if let Ok(Err(reason)) = remounted {
                tracing::warn!(%reason, "failed to remount views: files stay with FUSE until the next remount");
            }
            self.settling.lock().0.remounted(begun, Instant::now());
        }
    }
}

#[async_trait]
impl Views for Registry {
    async fn release(&self, unlinked: &[ObjectId]) -> Result<(), ReleaseError> {
        let shared = Arc::clone(&self.shared);
        let remount = move |wanted: &Wanted| shared.remount(wanted);
        self.shared.rounds.take_part(unlinked, remount).await
    }
}
