//! The kernel's requests, translated: each method parses the request, calls [`Trees`] or [`RequestHandler`], and replies.
//!
//! [`Trees`]: super::tree::Trees

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, KernelConfig, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use millpond_core::ObjectId;

use super::handler::{Read, RequestHandler, entry};
use super::metrics::Operation;
use super::node::Node;
use super::session;
use super::tree::FOREVER;

/// The block size that `statfs` counts in.
const BLOCK_BYTES: u32 = 4096;
const NAME_BYTES: u32 = 255;

/// The file system that `fuser` calls.
pub(crate) struct FuseFilesystem {
    pub(crate) handler: Arc<RequestHandler>,
    /// Whether all users may access it.
    pub(crate) for_all: bool,
}

impl FuseFilesystem {
    fn count(&self, operation: Operation) {
        self.handler.metrics.count(operation);
    }

    /// The error of every modification that the kernel does not reject itself: the mount is read-only.
    fn read_only(&self) -> Errno {
        self.count(Operation::Modify);
        Errno::EROFS
    }

    fn refuse(&self, number: Errno) -> Errno {
        if number.code() != libc::ENODATA && number.code() != libc::ENOENT {
            self.handler.metrics.errors.inc();
        }
        number
    }

    fn reply_xattr(&self, value: Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
        match value {
            Err(number) => reply.error(self.refuse(number)),
            Ok(value) if size == 0 => match u32::try_from(value.len()) {
                Ok(length) => reply.size(length),
                Err(_) => reply.error(Errno::E2BIG),
            },
            Ok(value) if value.len() > usize::try_from(size).unwrap_or(usize::MAX) => {
                reply.error(Errno::ERANGE);
            }
            Ok(value) => reply.data(&value),
        }
    }
}

impl Filesystem for FuseFilesystem {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let passthrough = self
            .handler
            .passthrough
            .load(std::sync::atomic::Ordering::Relaxed);
        let negotiated = session::negotiate(config, passthrough, self.for_all);
        if !negotiated.passthrough() {
            self.handler
                .passthrough
                .store(false, std::sync::atomic::Ordering::Relaxed);
        }
        // Only the first INIT of a session counts, and there is only one.
        let _ = self.handler.negotiated.set(negotiated);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.count(Operation::Lookup);
        let name = name.as_bytes();
        let found = self.handler.trees.node(parent).and_then(|node| match node {
            Node::LayerDirectory(layer, prefix) => Ok(Err((layer, prefix))),
            node => self.handler.trees.lookup(node, name).map(Ok),
        });
        match found {
            Ok(Err((layer, prefix))) => match ObjectId::from_components(&prefix.name(), name) {
                Some(id) => self.handler.lookup_object(layer, id, reply),
                None => reply.error(Errno::ENOENT),
            },
            Ok(Ok((Some(attr), ttl))) => entry(reply, ttl, &attr),
            // An entry without an inode lets the kernel cache that there is no such name.
            Ok(Ok((None, ttl))) if ttl > Duration::ZERO => match self.handler.trees.attr(Node::Root) {
                Ok(mut nothing) => {
                    nothing.ino = INodeNo(0);
                    entry(reply, ttl, &nothing);
                }
                Err(number) => reply.error(number),
            },
            Ok(Ok((None, _))) => reply.error(Errno::ENOENT),
            Err(number) => reply.error(self.refuse(number)),
        }
    }

    fn getattr(&self, _request: &Request, inode: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        self.count(Operation::GetAttr);
        let found = self
            .handler
            .trees
            .node(inode)
            .and_then(|node| Ok((node, self.handler.trees.attr(node)?)));
        match found {
            // The attributes of the live root change with the generation.
            Ok((Node::Live, attr)) => reply.attr(&Duration::ZERO, &attr),
            Ok((_, attr)) => reply.attr(&FOREVER, &attr),
            Err(number) => reply.error(self.refuse(number)),
        }
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.count(Operation::Open);
        if flags.acc_mode() != fuser::OpenAccMode::O_RDONLY {
            return reply.error(self.read_only());
        }
        match self.handler.trees.node(inode) {
            Ok(node) => self.handler.open(node, inode, request, reply),
            Err(number) => reply.error(self.refuse(number)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.count(Operation::Read);
        let read = Read {
            inode: inode.0,
            handle: handle.0,
            offset,
            length,
        };
        match self.handler.trees.node(inode) {
            Ok(node) => self.handler.read(node, read, reply),
            Err(number) => reply.error(self.refuse(number)),
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // The kernel never sends it again.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.count(Operation::Release);
        if let Ok(node) = self.handler.trees.node(inode) {
            self.handler.release(node, inode, handle.0);
        }
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn opendir(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.count(Operation::OpenDir);
        let opened = self
            .handler
            .trees
            .node(inode)
            .and_then(|node| Ok((node, self.handler.trees.open_directory(node)?)));
        match opened {
            Ok((Node::Tree(..) | Node::LiveTree(..), handle)) => {
                reply.opened(
                    FileHandle(handle),
                    FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
                );
            }
            Ok((_, handle)) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(number) => reply.error(self.refuse(number)),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.count(Operation::ReadDir);
        let listed = self.handler.trees.node(inode).and_then(|node| {
            self.handler.trees.list(node, handle.0, offset, |entry| {
                !reply.add(
                    entry.attr.ino,
                    entry.next,
                    entry.attr.kind,
                    OsStr::from_bytes(&entry.name),
                )
            })
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(number) => reply.error(self.refuse(number)),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.count(Operation::ReadDir);
        let listed = self.handler.trees.node(inode).and_then(|node| {
            self.handler.trees.list(node, handle.0, offset, |entry| {
                let name = OsStr::from_bytes(&entry.name);
                !reply.add(
                    entry.attr.ino,
                    entry.next,
                    name,
                    &entry.ttl,
                    &entry.attr,
                    Generation(0),
                )
            })
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(number) => reply.error(self.refuse(number)),
        }
    }

    fn statfs(&self, _request: &Request, inode: INodeNo, reply: ReplyStatfs) {
        self.count(Operation::StatFs);
        let node = self.handler.trees.node(inode).unwrap_or(Node::Root);
        let (bytes, files) = self.handler.trees.totals(node);
        let blocks = bytes.div_ceil(u64::from(BLOCK_BYTES));
        reply.statfs(blocks, 0, 0, files, 0, BLOCK_BYTES, NAME_BYTES, BLOCK_BYTES);
    }

    fn getxattr(&self, _request: &Request, inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.count(Operation::Xattr);
        let value = self
            .handler
            .trees
            .node(inode)
            .and_then(|node| self.handler.trees.xattr(node, name.as_bytes()));
        self.reply_xattr(value, size, reply);
    }

    fn listxattr(&self, _request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        self.count(Operation::Xattr);
        let names = self
            .handler
            .trees
            .node(inode)
            .and_then(|node| self.handler.trees.xattr_names(node));
        self.reply_xattr(names, size, reply);
    }

    fn readlink(&self, _request: &Request, _inode: INodeNo, reply: ReplyData) {
        reply.error(Errno::EINVAL);
    }

    fn setattr(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(self.read_only());
    }

    fn mknod(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _device: u32,
        reply: ReplyEntry,
    ) {
        reply.error(self.read_only());
    }

    fn mkdir(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        reply.error(self.read_only());
    }

    fn unlink(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(self.read_only());
    }

    fn rmdir(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(self.read_only());
    }

    fn symlink(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _target: &Path,
        reply: ReplyEntry,
    ) {
        reply.error(self.read_only());
    }

    fn rename(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _new_parent: INodeNo,
        _new_name: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(self.read_only());
    }

    fn link(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _new_parent: INodeNo,
        _new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        reply.error(self.read_only());
    }

    fn write(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        _data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(self.read_only());
    }

    fn setxattr(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(self.read_only());
    }

    fn removexattr(&self, _request: &Request, _inode: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(self.read_only());
    }

    fn create(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(self.read_only());
    }

    fn fallocate(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(self.read_only());
    }
}
