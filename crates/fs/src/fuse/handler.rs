//! What the server does for a request: the part between the kernel's protocol and the worker's.
//!
//! Nothing here blocks `fuser`'s threads: what has to wait continues as a task, which sends the reply. A request that the
//! worker cannot answer because it is stopping stays unanswered: the kernel resends it to the successor, so that readers of
//! a server that restarts wait and never fail.

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

use super::deferred_reply::DeferredReply;
use super::errno;
use super::io::{map_object, populate, reply_passthrough};
use super::metrics::FuseMetrics;
use super::node::{Layer, Node};
use super::opens::{Mode, OpenError, OpenWith, Opens};
use super::tree::{FOREVER, Trees};
use crate::view::Registry;

/// How long the failure of a landing is cached, so that the lookup in the last layer, which follows immediately, returns
/// that error without waiting for another deadline.
const FAILURE_TTL: Duration = Duration::from_secs(5);
/// More objects than can fail in that time; beyond that number a reader waits for a second deadline.
const MAX_FAILURES: u64 = 65_536;

/// The bit that marks the number of a request that the kernel has resent.
const RESENT: u64 = 1 << 63;

/// The handler of one mount's requests.
pub(crate) struct RequestHandler {
    pub(crate) worker: Arc<dyn Worker>,
    pub(crate) trees: Trees,
    pub(crate) opens: Opens,
    pub(crate) metrics: FuseMetrics,
    pub(crate) device: Arc<OwnedFd>,
    pub(crate) runtime: Handle,
    pub(crate) tasks: TaskTracker,
    /// Cleared when the kernel rejects it.
    pub(crate) passthrough: AtomicBool,
    /// The kernel views of which the mount is a layer.
    kernel_views: Option<Registry>,
    /// What was negotiated with the kernel at the connection's INIT.
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
                .max_capacity(MAX_FAILURES)
                .time_to_live(FAILURE_TTL)
                .build(),
        }
    }

    /// Returns whether the mount is a layer of kernel views.
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
            // The kernel walks a path again after this error, which is permanent.
            Layer::Objects if failed == Some(libc::ESTALE) => self.refuse_entry(reply, Errno::ESTALE),
            Layer::Objects => {
                let handler = Arc::clone(self);
                let reply = DeferredReply::new(reply);
                self.run(async move {
                    let landed = handler.worker.fetch_to_landing(object).await;
                    handler.landed(&object, landed, reply);
                });
            }
            Layer::Last => match failed {
                Some(number) => self.refuse_entry(reply, Errno::from_i32(number)),
                None => self.reply_object(&object, reply),
            },
        }
    }

    fn landed(
        &self,
        object: &ObjectRef,
        landed: Result<LandOutcome, ReadError>,
        reply: DeferredReply<ReplyEntry>,
    ) {
        match landed {
            Ok(LandOutcome::Landed) => {
                if let Some(views) = &self.kernel_views {
                    views.fuse_opens().log_landing(object.id);
                }
                reply.send(|reply| reply.error(Errno::ENOENT));
            }
            Ok(LandOutcome::ThroughFuse) => reply.send(|reply| self.reply_object(object, reply)),
            Err(error) => match errno::of_read(&error) {
                Some(number) => {
                    debug!(object = %object.id, %error, "failed to land an object");
                    self.failures.insert(object.id, number.code());
                    reply.send(|reply| self.refuse_entry(reply, number));
                }
                None => reply.leave_unanswered(),
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
        // Before another handle of the inode can be closed: what that one pins in the cache stays pinned for this one.
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
        let handler = Arc::clone(self);
        let reply = DeferredReply::new(reply);
        self.run(async move {
            match handler.worker.open_local(object).await {
                Ok(LocalCopy::Complete(file)) => {
                    reply.send(|reply| handler.open_local(&opening, Some(&file), reply));
                }
                Ok(LocalCopy::Incomplete) => reply.send(|reply| handler.open_local(&opening, None, reply)),
                Err(error) => match errno::of_read(&error) {
                    Some(number) => {
                        debug!(object = %object.id, %error, "failed to open an object");
                        reply.send(|reply| handler.refuse_open(reply, number));
                    }
                    None => reply.leave_unanswered(),
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
            let with = OpenWith::Passthrough(file);
            match self.opens.open(inode, handle, object.id, with, direct) {
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
                        // The worker answers the reads instead.
                        Err(error) => debug!(object = %object.id, %error, "failed to map an object"),
                    }
                }
                self.opened(opening, mode, reply);
            }
            Err(error) => self.failed_open(opening, &error, reply),
        }
    }

    /// Turns passthrough off where the process lacks the right to it; other errors concern the file alone.
    fn refused_passthrough(&self, error: &std::io::Error) {
        let for_good = matches!(
            error.raw_os_error(),
            Some(libc::EPERM | libc::ENOTTY | libc::EOPNOTSUPP)
        );
        if for_good && self.passthrough.swap(false, Ordering::Relaxed) {
            tracing::warn!(%error, "the kernel rejected passthrough; the server answers all reads");
        }
    }

    fn opened(&self, opening: &OpenRequest, mode: Mode, reply: ReplyOpen) {
        // There is nothing to flush, and a close must not wait for a server: a process that starts another one closes its
        // files, even the supervisor that starts the next server.
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
        let handler = Arc::clone(self);
        if let Some(map) = map {
            // The page cache may have to read the disk: neither on fuser's threads nor on the runtime's.
            let reply = DeferredReply::new(reply);
            let read_map = move || reply.send(|reply| handler.read_map(&map, range, reply));
            drop(self.tasks.spawn_blocking_on(read_map, &self.runtime));
            return;
        }
        let reply = DeferredReply::new(reply);
        self.run(async move {
            let data = handler.worker.read(object, StreamId(read.handle), range.clone()).await;
            match data {
                Ok(data) if data.len() as u64 == range.end - range.start => {
                    handler.metrics.served(data.served());
                    reply.send(|reply| handler.send(&data, reply));
                }
                Ok(data) => {
                    let got = data.len();
                    error!(object = %object.id, ?range, got, "the worker returned a wrong number of bytes; the read fails");
                    reply.send(|reply| handler.refuse_read(reply, Errno::EIO));
                }
                Err(failure) => match errno::of_read(&failure) {
                    Some(number) => {
                        debug!(object = %object.id, error = %failure, "failed to read an object");
                        reply.send(|reply| handler.refuse_read(reply, number));
                    }
                    None => reply.leave_unanswered(),
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
            error!(
                ?range,
                "a complete object is shorter than in its catalog; the read fails"
            );
            return self.refuse_read(reply, Errno::EIO);
        };
        let served = ServedBytes {
            local_bytes: mapping.len() as u64,
            ..ServedBytes::default()
        };
        self.metrics.served(served);
        self.send(&Data::Mapped(mapping, served), reply);
    }

    /// Sends bytes. Those of a map are read into memory first: if the kernel could not read them while the reply is
    /// written, because the disk fails or this process is killed, it would end the request with EIO, where a killed server
    /// must leave it to the next.
    fn send(&self, data: &Data, reply: ReplyData) {
        if let Data::Mapped(mapping, _) = data
            && let Err(error) = populate(mapping)
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

    /// Reports to the worker the open files whose reads went to the previous server.
    pub(crate) fn resume(&self) {
        for (node, handle) in self.opens.direct() {
            let object = self
                .trees
                .node(INodeNo(node))
                .and_then(|node| self.trees.object(node));
            match object {
                Ok(object) => self.worker.file_opened(object, StreamId(handle), None),
                // Its catalog was deleted: reads of it fail as well.
                Err(number) => debug!(
                    node,
                    ?number,
                    "an open file belongs to no object of the catalogs; its reads fail"
                ),
            }
        }
    }

    /// Runs `work` to its end: here as far as it need not wait, the rest as a task.
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

/// Replies with an entry. Node ids are never reused for another file, so each has one generation.
pub(crate) fn entry(reply: ReplyEntry, ttl: Duration, attr: &FileAttr) {
    reply.entry(&ttl, attr, Generation(0));
}
