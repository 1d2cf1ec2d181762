//! What the server does for a request: the part between the kernel's words and the worker's.
//!
//! Nothing here blocks `fuser`'s threads: what has to wait goes on as a task, and the answer is sent from there. A
//! request that the worker cannot answer because it is stopping stays unanswered: the kernel sends it to the successor
//! again, so that stopping is a pause and never an error.

use std::fs::File;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};
use std::time::Duration;

use fuser::{
    Errno, FileAttr, FileHandle, FopenFlags, Generation, INodeNo, ReplyData, ReplyEntry, ReplyOpen, Request,
};
use memmap2::Mmap;
use millpond_core::ObjectId;
use millpond_core::{
    Data, LandOutcome, LocalCopy, ObjectRef, OpenCount, ReadError, ServedBytes, StreamId, Worker,
};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::{debug, error};

use super::deferred_reply::Pending;
use super::errno;
use super::io::{bring_in, map_object, reply_passthrough};
use super::metrics::FuseMetrics;
use super::node::{Layer, Node};
use super::opens::{Mode, OpenError, OpenWith, Opens};
use super::tree::{FOREVER, Trees};
use crate::view::Registry;

/// How long the failure of a landing is remembered, so that the lookup in the last layer that follows it at once shows
/// the same error, without waiting for another deadline.
const FAILURE_TTL: Duration = Duration::from_secs(5);
/// More objects than can fail in that time; beyond it a reader waits for a second deadline.
const FAILURES: u64 = 65_536;

/// The requests that the kernel sent a second time are marked by this bit of their number.
const RESENT: u64 = 1 << 63;

/// Everything that answers the requests of one mount.
pub(crate) struct RequestHandler {
    pub(crate) worker: Arc<dyn Worker>,
    pub(crate) trees: Trees,
    pub(crate) opens: Opens,
    pub(crate) metrics: FuseMetrics,
    pub(crate) device: Arc<OwnedFd>,
    pub(crate) runtime: Handle,
    pub(crate) tasks: TaskTracker,
    /// Cleared when the kernel refuses it.
    pub(crate) passthrough: AtomicBool,
    /// The kernel views of which the mount is a layer.
    kernel_views: Option<Registry>,
    /// What was agreed with the kernel about the connection.
    pub(crate) negotiated: OnceLock<super::session::Negotiated>,
    failures: moka::sync::Cache<ObjectId, i32>,
}

/// The parts of a [`RequestHandler`].
pub(crate) struct HandlerParts {
    pub(crate) worker: Arc<dyn Worker>,
    pub(crate) trees: Trees,
    pub(crate) opens: Opens,
    pub(crate) metrics: FuseMetrics,
    pub(crate) device: Arc<OwnedFd>,
    pub(crate) runtime: Handle,
    pub(crate) passthrough: bool,
    pub(crate) kernel_views: Option<Registry>,
}

impl RequestHandler {
    pub(crate) fn new(parts: HandlerParts) -> Self {
        let HandlerParts {
            worker,
            trees,
            opens,
            metrics,
            device,
            runtime,
            passthrough,
            kernel_views,
        } = parts;
        Self {
            worker,
            trees,
            opens,
            metrics,
            device,
            runtime,
            tasks: TaskTracker::new(),
            passthrough: AtomicBool::new(passthrough),
            kernel_views,
            negotiated: OnceLock::new(),
            failures: moka::sync::Cache::builder()
                .max_capacity(FAILURES)
                .time_to_live(FAILURE_TTL)
                .build(),
        }
    }

    /// Whether the mount is a layer of kernel views.
    pub(crate) const fn has_kernel_views(&self) -> bool {
        self.kernel_views.is_some()
    }

    /// Answers a lookup below `objects` or `last`.
    pub(crate) fn lookup_object(self: &Arc<Self>, layer: Layer, id: ObjectId, reply: ReplyEntry) {
        let found = self.trees.catalogs.find(id).map(|(open, nid)| open.object(nid));
        let object = match found {
            Some(Ok(object)) => object,
            Some(Err(error)) => return self.refuse_entry(reply, errno::of_catalog(&error)),
            None => return reply.error(Errno::ENOENT),
        };
        let failed = self.failures.get(&id);
        match layer {
            // The kernel walks a path again when it meets this error, and it stays true.
            Layer::Objects if failed == Some(libc::ESTALE) => self.refuse_entry(reply, Errno::ESTALE),
            Layer::Objects => {
                let pond = Arc::clone(self);
                let reply = Pending::new(reply);
                self.run(async move {
                    let landed = pond.worker.fetch_to_landing(object).await;
                    pond.landed(&object, landed, reply);
                });
            }
            Layer::Last => match failed {
                Some(number) => self.refuse_entry(reply, Errno::from_i32(number)),
                None => self.reply_object(&object, reply),
            },
        }
    }

    fn landed(&self, object: &ObjectRef, landed: Result<LandOutcome, ReadError>, reply: Pending<ReplyEntry>) {
        match landed {
            Ok(LandOutcome::Landed) => {
                if let Some(views) = &self.kernel_views {
                    views.fuse_opens().log_landing(object.id);
                }
                reply.answer(|reply| reply.error(Errno::ENOENT));
            }
            Ok(LandOutcome::ThroughFuse) => reply.answer(|reply| self.reply_object(object, reply)),
            Err(error) => match errno::of_read(&error) {
                Some(number) => {
                    debug!(object = %object.id, %error, "failed to land an object");
                    self.failures.insert(object.id, number.code());
                    reply.answer(|reply| self.refuse_entry(reply, number));
                }
                None => reply.leave(),
            },
        }
    }

    fn reply_object(&self, object: &ObjectRef, reply: ReplyEntry) {
        match self.trees.object_entry(object) {
            Ok(attr) => entry(reply, FOREVER, &attr),
            Err(number) => self.refuse_entry(reply, number),
        }
    }

    fn refuse_entry(&self, reply: ReplyEntry, number: Errno) {
        self.metrics.errors.inc();
        reply.error(number);
    }

    /// Answers an open of a file.
    pub(crate) fn open(self: &Arc<Self>, node: Node, inode: INodeNo, request: &Request, reply: ReplyOpen) {
        let object = match self.trees.object(node) {
            Ok(object) => object,
            Err(number) => return self.refuse_open(reply, number),
        };
        if let (Node::Object(_), Some(views)) = (node, &self.kernel_views) {
            views.fuse_opens().log_open(object.id, request.pid());
        }
        let opening = OpenRequest {
            object,
            inode: inode.0,
            handle: u64::from(request.unique()) & !RESENT,
        };
        // Before another handle of the inode can be closed: what that one keeps in the cache stays for this one.
        let direct = || self.worker.file_opened(object, StreamId(opening.handle), None);
        match self.opens.join(opening.inode, opening.handle, object.id, direct) {
            Ok(Some(mode)) => {
                if matches!(mode, Mode::Passthrough(_)) {
                    self.worker.count_kernel_opens(&[OpenCount {
                        id: object.id,
                        times: 1,
                    }]);
                }
                return self.opened(&opening, mode, reply);
            }
            Ok(None) => {}
            Err(error) => return self.failed_open(&opening, &error, reply),
        }
        let pond = Arc::clone(self);
        let reply = Pending::new(reply);
        self.run(async move {
            match pond.worker.open_local(object).await {
                Ok(LocalCopy::Complete(file)) => {
                    reply.answer(|reply| pond.open_local(&opening, Some(&file), reply));
                }
                Ok(LocalCopy::Incomplete) => reply.answer(|reply| pond.open_local(&opening, None, reply)),
                Err(error) => match errno::of_read(&error) {
                    Some(number) => {
                        debug!(object = %object.id, %error, "failed to open an object");
                        reply.answer(|reply| pond.refuse_open(reply, number));
                    }
                    None => reply.leave(),
                },
            }
        });
    }

    fn open_local(&self, opening: &OpenRequest, complete: Option<&Arc<File>>, reply: ReplyOpen) {
        let OpenRequest {
            object,
            inode,
            handle,
        } = *opening;
        let direct = || {
            self.worker
                .file_opened(object, StreamId(handle), complete.cloned())
        };
        if let Some(file) = complete
            && self.passthrough.load(Ordering::Relaxed)
        {
            let wish = OpenWith::Passthrough(file);
            match self.opens.open(inode, handle, object.id, wish, direct) {
                Ok(mode) => return self.opened(opening, mode, reply),
                Err(OpenError::Full) => return self.failed_open(opening, &OpenError::Full, reply),
                Err(OpenError::Backing(error)) => self.refused_passthrough(&error),
            }
        }
        match self
            .opens
            .open(inode, handle, object.id, OpenWith::Direct, direct)
        {
            Ok(mode) => {
                if let Some(file) = complete
                    && mode == Mode::Direct
                    && object.size_bytes > 0
                {
                    match map_object(file) {
                        Ok(map) => {
                            self.opens.set_map(inode, handle, map);
                        }
                        // The worker answers the reads then.
                        Err(error) => debug!(object = %object.id, %error, "failed to map an object"),
                    }
                }
                self.opened(opening, mode, reply);
            }
            Err(error) => self.failed_open(opening, &error, reply),
        }
    }

    /// Some refusals are the file's own; lacking the right is for good.
    fn refused_passthrough(&self, error: &std::io::Error) {
        let for_good = matches!(
            error.raw_os_error(),
            Some(libc::EPERM | libc::ENOTTY | libc::EOPNOTSUPP)
        );
        if for_good && self.passthrough.swap(false, Ordering::Relaxed) {
            tracing::warn!(%error, "the kernel refuses passthrough: the server answers all reads itself");
        }
    }

    fn opened(&self, opening: &OpenRequest, mode: Mode, reply: ReplyOpen) {
        // There is nothing to flush, and a close must not wait for a server: a process that starts another closes its
        // files on the way, even the supervisor that starts the next server.
        let handle = FileHandle(opening.handle);
        match mode {
            Mode::Passthrough(id) => {
                self.metrics.passthrough_opens.inc();
                self.metrics.passthrough_bytes.inc_by(opening.object.size_bytes);
                reply_passthrough(reply, handle, FopenFlags::FOPEN_NOFLUSH, id);
            }
            Mode::Direct => {
                self.metrics.direct_opens.inc();
                reply.opened(handle, FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH);
            }
        }
    }

    fn failed_open(&self, opening: &OpenRequest, failure: &OpenError, reply: ReplyOpen) {
        error!(object = %opening.object.id, error = %failure, "failed to open a file");
        self.refuse_open(reply, Errno::ENFILE);
    }

    fn refuse_open(&self, reply: ReplyOpen, number: Errno) {
        self.metrics.errors.inc();
        reply.error(number);
    }

    /// Answers a read of a file that is open without passthrough.
    pub(crate) fn read(self: &Arc<Self>, node: Node, read: Read, reply: ReplyData) {
        let object = match self.trees.object(node) {
            Ok(object) => object,
            Err(number) => return self.refuse_read(reply, number),
        };
        let end = read
            .offset
            .saturating_add(u64::from(read.length))
            .min(object.size_bytes);
        if read.offset >= end {
            return reply.data(&[]);
        }
        let range = read.offset..end;
        let map = self.opens.map(read.inode, read.handle);
        let pond = Arc::clone(self);
        if let Some(map) = map {
            // The page cache may have to read the disk: not on fuser's threads, nor on the runtime's.
            let reply = Pending::new(reply);
            let read_map = move || reply.answer(|reply| pond.read_map(&map, range, reply));
            drop(self.tasks.spawn_blocking_on(read_map, &self.runtime));
            return;
        }
        let reply = Pending::new(reply);
        self.run(async move {
            let data = pond.worker.read(object, StreamId(read.handle), range.clone()).await;
            match data {
                Ok(data) if data.len() as u64 == range.end - range.start => {
                    pond.metrics.served(data.served());
                    reply.answer(|reply| pond.send(&data, reply));
                }
                Ok(data) => {
                    let got = data.len();
                    error!(object = %object.id, ?range, got, "the worker answered with another number of bytes");
                    reply.answer(|reply| pond.refuse_read(reply, Errno::EIO));
                }
                Err(failure) => match errno::of_read(&failure) {
                    Some(number) => {
                        debug!(object = %object.id, error = %failure, "failed to read an object");
                        reply.answer(|reply| pond.refuse_read(reply, number));
                    }
                    None => reply.leave(),
                },
            }
        });
    }

    fn read_map(&self, map: &Arc<Mmap>, range: std::ops::Range<u64>, reply: ReplyData) {
        let slice = usize::try_from(range.start)
            .ok()
            .zip(usize::try_from(range.end).ok())
            .and_then(|(start, end)| millpond_core::Mapping::new(Arc::clone(map), start..end));
        let Some(mapping) = slice else {
            error!(?range, "a complete object is shorter than its catalog says");
            return self.refuse_read(reply, Errno::EIO);
        };
        let served = ServedBytes {
            local_bytes: mapping.len() as u64,
            ..ServedBytes::default()
        };
        self.metrics.served(served);
        self.send(&Data::Mapped(mapping, served), reply);
    }

    /// Sends bytes. Those of a map are brought into memory first: if the kernel could not read them during the
    /// answer, because the disk fails or this process is killed just then, it would end the request with EIO, where a
    /// killed server must leave it to the next.
    fn send(&self, data: &Data, reply: ReplyData) {
        if let Data::Mapped(mapping, _) = data
            && let Err(error) = bring_in(mapping)
        {
            error!(%error, "failed to read a cache file");
            return self.refuse_read(reply, Errno::EIO);
        }
        reply.data(data);
    }

    fn refuse_read(&self, reply: ReplyData, number: Errno) {
        self.metrics.errors.inc();
        reply.error(number);
    }

    /// Notes that a handle was closed. An object that became complete while it was read through FUSE becomes native in kernel
    /// views by a remount some time later.
    pub(crate) fn release(&self, node: Node, inode: INodeNo, handle: u64) {
        if self.opens.close(inode.0, handle) != Some(Mode::Direct) {
            return;
        }
        let Ok(object) = self.trees.object(node) else {
            return;
        };
        self.worker.file_closed(object, StreamId(handle));
        if let Some(views) = self.kernel_views.clone() {
            let worker = Arc::clone(&self.worker);
            self.run(async move {
                if worker.is_complete(object).await {
                    views.object_completed(object.id, object.size_bytes);
                }
            });
        }
    }

    /// Says to the worker which files are open whose reads went to the server before this one.
    pub(crate) fn resume(&self) {
        for (node, handle) in self.opens.direct() {
            let object = self
                .trees
                .node(INodeNo(node))
                .and_then(|node| self.trees.object(node));
            match object {
                Ok(object) => self.worker.file_opened(object, StreamId(handle), None),
                // Its catalog is gone: reads of it fail as well.
                Err(number) => debug!(node, ?number, "an open file is of no object that is known"),
            }
        }
    }

    /// Runs `work` to its end: here and now as far as it goes without waiting, the rest as a task.
    fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut work: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(work);
        let _runtime = self.runtime.enter();
        if work
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
        {
            drop(self.tasks.spawn_on(work, &self.runtime));
        }
    }
}

struct OpenRequest {
    object: ObjectRef,
    inode: u64,
    handle: u64,
}

/// A read of an open file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    pub(crate) inode: u64,
    pub(crate) handle: u64,
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

/// Answers with an entry. Node ids are never used for another file, so there is one generation of each.
pub(crate) fn entry(reply: ReplyEntry, ttl: Duration, attr: &FileAttr) {
    reply.entry(&ttl, attr, Generation(0));
}
