//! The open files, their modes and their backing ids.
//!
//! The kernel has rules for opens of one inode that it enforces with EIO (Linux 6.18, `fs/fuse/iomode.c`): while an
//! inode is open by passthrough, each further open must be by passthrough with the same backing id; while it is mapped
//! shared through direct I/O, none may be. So **every further open of an open inode joins the mode of the first**, and the mode
//! is chosen again when the inode is closed. The kernel ends an inode's mode before it sends the last release, so after that
//! release the choice is free.
//!
//! A backing id is registered for the first open of an inode and closed after the last release, since a
//! registered id references the object. A limited number of ids of closed inodes, the idle ones, may stay registered for the
//! next open (measured: 20 us of CPU less for each open of a small file), where nothing is ever evicted.
//!
//! Each open handle is written to the shared [`Table`] before the open is answered, so that a successor finds it.
//!
//! Locks: one of the shards, then the table's own; the list of idle ids is never locked together with a shard. The
//! ioctls on backing ids run under the shard's lock: they take a microsecond, and no other open of the inode may
//! happen between them and the table's update.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fuser::BackingId;
use memmap2::Mmap;
use millpond_core::ObjectId;
use parking_lot::Mutex;
use tracing::warn;

use super::io::close_backing;
use super::table::{NO_HANDLE, RecoveredSlot, Slot, State, Table};

/// Enough that two threads rarely contend for one.
const SHARDS: usize = 64;

/// How an inode is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The server answers reads.
    Direct,
    /// The kernel reads the backing file with this id.
    Passthrough(u32),
}

/// The mode of an open, if the inode is not open yet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OpenWith<'a> {
    /// Direct I/O.
    Direct,
    /// Passthrough to this file.
    Passthrough(&'a File),
}

/// Errors of recording an open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The table has no free slot.
    #[error("the table of open files is full")]
    Full,
    /// The kernel rejected the backing file.
    #[error("failed to register a backing file")]
    Backing(#[source] io::Error),
}

#[derive(Debug)]
struct Handle {
    /// [`NO_HANDLE`] where only the backing id is still registered.
    number: u64,
    slot: Slot,
    /// The complete object, where it is open without passthrough.
    map: Option<Arc<Mmap>>,
}

impl Handle {
    const fn new(number: u64, slot: Slot) -> Self {
        Self {
            number,
            slot,
            map: None,
        }
    }
}

#[derive(Debug)]
struct Entry {
    mode: Mode,
    /// `None` after a takeover, until the next open.
    object: Option<ObjectId>,
    handles: Vec<Handle>,
    /// When its id was added to the list of idle ones; older list entries for it are void.
    idle_since: u64,
}

impl Entry {
    fn is_idle(&self) -> bool {
        self.handles.iter().all(|handle| handle.number == NO_HANDLE)
    }
}

/// The opens of one connection.
#[derive(Debug)]
pub(crate) struct Opens {
    table: Table,
    device: Arc<OwnedFd>,
    shards: Vec<Mutex<HashMap<u64, Entry>>>,
    idle: Mutex<VecDeque<(u64, u64)>>,
    /// The most ids of closed inodes that stay registered.
    max_idle: usize,
    clock: AtomicU64,
}

impl Opens {
    /// The opens of a new connection.
    pub(crate) fn new(table: Table, device: Arc<OwnedFd>, max_idle: usize) -> Self {
        Self {
            table,
            device,
            shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(),
            idle: Mutex::default(),
            max_idle,
            clock: AtomicU64::new(1),
        }
    }

    /// The opens of a connection whose server died: `found` is what it had recorded.
    pub(crate) fn adopt(
        table: Table,
        found: &[RecoveredSlot],
        device: Arc<OwnedFd>,
        max_idle: usize,
    ) -> Self {
        let opens = Self::new(table, device, max_idle);
        opens.close_unrecorded(found);
        for found in found {
            match found.state {
                State::Empty => {}
                State::Opening(_) => opens.table.free(found.slot),
                State::Closing(id) => {
                    opens.close_id(id);
                    opens.table.free(found.slot);
                }
                State::Direct => opens.restore(found, Mode::Direct),
                State::Passthrough(id) => opens.restore(found, Mode::Passthrough(id)),
            }
        }
        opens.trim();
        opens
    }

    /// The table, for the keeper.
    pub(crate) const fn table(&self) -> &Table {
        &self.table
    }

    /// Joins the opens of an inode that is open already, or whose id is idle. If it is [`Mode::Direct`], `direct` is
    /// called before any other handle of the inode can be closed.
    pub(crate) fn join(
        &self,
        node: u64,
        handle: u64,
        object: ObjectId,
        direct: impl FnOnce(),
    ) -> Result<Option<Mode>, OpenError> {
        match self.shard(node).lock().get_mut(&node) {
            Some(entry) => {
                let mode = self.join_entry(entry, node, handle, object)?;
                if mode == Mode::Direct {
                    direct();
                }
                Ok(Some(mode))
            }
            None => Ok(None),
        }
    }

    /// Opens an inode by `with`, or joins its mode if it is open already. `direct` as for [`join`](Self::join).
    pub(crate) fn open(
        &self,
        node: u64,
        handle: u64,
        object: ObjectId,
        with: OpenWith<'_>,
        direct: impl FnOnce(),
    ) -> Result<Mode, OpenError> {
        let mut shard = self.shard(node).lock();
        if let Some(entry) = shard.get_mut(&node) {
            let mode = self.join_entry(entry, node, handle, object)?;
            if mode == Mode::Direct {
                direct();
            }
            return Ok(mode);
        }
        let (mode, slot) = match with {
            OpenWith::Direct => {
                let slot = self
                    .table
                    .allocate(State::Direct, node, handle)
                    .ok_or(OpenError::Full)?;
                direct();
                (Mode::Direct, slot)
            }
            OpenWith::Passthrough(file) => {
                let opening = State::Opening(self.table.last_id());
                let slot = self
                    .table
                    .allocate(opening, node, handle)
                    .ok_or(OpenError::Full)?;
                match BackingId::create_raw(&*self.device, file) {
                    Ok(id) => {
                        self.table.record_id(id);
                        self.table.set(slot, State::Passthrough(id));
                        (Mode::Passthrough(id), slot)
                    }
                    Err(error) => {
                        self.table.free(slot);
                        return Err(OpenError::Backing(error));
                    }
                }
            }
        };
        let entry = Entry {
            mode,
            object: Some(object),
            handles: vec![Handle::new(handle, slot)],
            idle_since: 0,
        };
        shard.insert(node, entry);
        Ok(mode)
    }

    /// Serves the reads of an open handle from `map` from now on.
    pub(crate) fn set_map(&self, node: u64, handle: u64, map: Arc<Mmap>) {
        let mut shard = self.shard(node).lock();
        let known = shard
            .get_mut(&node)
            .and_then(|entry| entry.handles.iter_mut().find(|known| known.number == handle));
        if let Some(known) = known {
            known.map = Some(map);
        }
    }

    /// The map of an open handle's object; `None`: the worker answers its reads.
    pub(crate) fn map(&self, node: u64, handle: u64) -> Option<Arc<Mmap>> {
        let shard = self.shard(node).lock();
        let handles = &shard.get(&node)?.handles;
        handles.iter().find(|known| known.number == handle)?.map.clone()
    }

    /// Records the release of a handle. An unknown one was released before.
    pub(crate) fn close(&self, node: u64, handle: u64) -> Option<Mode> {
        let mut shard = self.shard(node).lock();
        let entry = shard.get_mut(&node)?;
        let index = entry.handles.iter().position(|known| known.number == handle)?;
        let mode = entry.mode;
        if entry.handles.len() > 1 {
            let closed = entry.handles.swap_remove(index);
            self.table.free(closed.slot);
            return Some(mode);
        }
        if matches!(mode, Mode::Passthrough(_)) && self.max_idle > 0 {
            for known in &mut entry.handles {
                known.number = NO_HANDLE;
                self.table.rename(known.slot, NO_HANDLE);
            }
            let since = self.clock.fetch_add(1, Ordering::Relaxed);
            entry.idle_since = since;
            drop(shard);
            self.idle.lock().push_back((node, since));
            self.trim();
            return Some(mode);
        }
        if let Some(entry) = shard.remove(&node) {
            self.free(entry);
        }
        Some(mode)
    }

    /// Closes the idle ids of these objects.
    pub(crate) fn release(&self, objects: &[ObjectId]) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let idle: Vec<u64> = shard
                .iter()
                .filter(|(_, entry)| entry.is_idle() && entry.object.is_none_or(|id| objects.contains(&id)))
                .map(|(node, _)| *node)
                .collect();
            for entry in idle
                .iter()
                .filter_map(|node| shard.remove(node))
                .collect::<Vec<_>>()
            {
                self.free(entry);
            }
        }
    }

    /// The node ids that are open.
    pub(crate) fn open_nodes(&self) -> Vec<u64> {
        let open = |shard: &Mutex<HashMap<u64, Entry>>| {
            let shard = shard.lock();
            let nodes = shard.iter().filter(|(_, entry)| !entry.is_idle());
            nodes.map(|(node, _)| *node).collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(open).collect()
    }

    /// The open handles whose reads the server answers, with their nodes.
    pub(crate) fn direct(&self) -> Vec<(u64, u64)> {
        let direct = |shard: &Mutex<HashMap<u64, Entry>>| {
            let shard = shard.lock();
            let entries = shard.iter().filter(|(_, entry)| entry.mode == Mode::Direct);
            entries
                .flat_map(|(node, entry)| entry.handles.iter().map(|handle| (*node, handle.number)))
                .collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(direct).collect()
    }

    fn shard(&self, node: u64) -> &Mutex<HashMap<u64, Entry>> {
        // Inodes are multiples of 32 bytes: spread by a multiplicative hash.
        let hash = node.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let index = usize::try_from(hash).unwrap_or_default() % SHARDS;
        #[expect(clippy::indexing_slicing, reason = "the index is a remainder by the length")]
        &self.shards[index]
    }

    fn join_entry(
        &self,
        entry: &mut Entry,
        node: u64,
        handle: u64,
        object: ObjectId,
    ) -> Result<Mode, OpenError> {
        entry.object = Some(object);
        if entry.handles.iter().any(|known| known.number == handle) {
            return Ok(entry.mode);
        }
        if let Some(unused) = entry.handles.iter_mut().find(|known| known.number == NO_HANDLE) {
            unused.number = handle;
            self.table.rename(unused.slot, handle);
            return Ok(entry.mode);
        }
        let state = match entry.mode {
            Mode::Direct => State::Direct,
            Mode::Passthrough(id) => State::Passthrough(id),
        };
        let slot = self.table.allocate(state, node, handle).ok_or(OpenError::Full)?;
        entry.handles.push(Handle::new(handle, slot));
        Ok(entry.mode)
    }

    fn restore(&self, found: &RecoveredSlot, mode: Mode) {
        let mut shard = self.shard(found.node).lock();
        let entry = shard.entry(found.node).or_insert_with(|| Entry {
            mode,
            object: None,
            handles: Vec::new(),
            idle_since: 0,
        });
        entry.handles.push(Handle::new(found.handle, found.slot));
        if found.handle == NO_HANDLE {
            let since = self.clock.fetch_add(1, Ordering::Relaxed);
            entry.idle_since = since;
            drop(shard);
            self.idle.lock().push_back((found.node, since));
        }
    }

    /// Closes the oldest idle ids while there are too many.
    fn trim(&self) {
        loop {
            let candidate = {
                let mut idle = self.idle.lock();
                if idle.len() <= self.max_idle {
                    return;
                }
                idle.pop_front()
            };
            let Some((node, since)) = candidate else { return };
            let mut shard = self.shard(node).lock();
            let idle = shard
                .get(&node)
                .is_some_and(|entry| entry.idle_since == since && entry.is_idle());
            if idle && let Some(entry) = shard.remove(&node) {
                self.free(entry);
            }
        }
    }

    /// Frees the slots and the backing id of a closed inode; its shard is locked.
    fn free(&self, entry: Entry) {
        for Handle { slot, .. } in entry.handles {
            match entry.mode {
                Mode::Direct => {}
                Mode::Passthrough(id) => {
                    self.table.set(slot, State::Closing(id));
                    self.close_id(id);
                }
            }
            self.table.free(slot);
        }
    }

    fn close_id(&self, id: u32) {
        if let Err(error) = close_backing(&self.device, id) {
            warn!(id, %error, "failed to close a backing id; its object cannot be evicted before the unmount");
        }
    }

    /// Closes ids that the dead server had registered and not recorded yet.
    fn close_unrecorded(&self, found: &[RecoveredSlot]) {
        let opening = found.iter().filter_map(|found| match found.state {
            State::Opening(last) => Some(last),
            _ => None,
        });
        let Some(from) = opening.min() else { return };
        // Ids are assigned in rising order, so a new one bounds the unrecorded ones.
        let probe = match BackingId::create_raw(&*self.device, self.table.file()) {
            Ok(probe) => probe,
            Err(error) => {
                warn!(%error, "failed to probe for unrecorded backing ids; objects of theirs cannot be evicted before the unmount");
                return;
            }
        };
        let known: std::collections::HashSet<u32> = found
            .iter()
            .filter_map(|found| match found.state {
                State::Passthrough(id) => Some(id),
                _ => None,
            })
            .collect();
        for id in (from.saturating_add(1)..=probe).filter(|id| !known.contains(id)) {
            self.close_id(id);
        }
        self.table.record_id(probe);
    }
}
