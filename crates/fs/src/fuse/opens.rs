//! Which files are open, how, and with which backing id.
//!
//! The kernel has rules for opens of one inode that it enforces with EIO (Linux 6.18, `fs/fuse/iomode.c`): while an
//! inode is open by passthrough, each further open must be by passthrough with the same backing id; while it is mapped
//! shared through direct I/O, none may be. So an inode that is open stays as it was opened first: **whoever joins
//! an open inode joins its mode**, and the mode is chosen anew when nobody has it open. The kernel lets go of an
//! inode's mode before it sends the release, so after the last release the choice is free.
//!
//! A backing id is registered for the first open of an inode and closed after the last release, since a
//! registered id counts as a use of the object. A limited number of ids of closed inodes may be kept for the next open
//! (measured: 20 us of CPU less for each open of a small file), where nothing is ever evicted.
//!
//! Each open handle is written to the shared [`Table`] before the open is answered, so that a successor knows the same.
//!
//! Locks: one of the shards, then the table's own; the list of kept ids is never locked together with a shard. The
//! ioctls on backing ids run under the shard's lock: they take a microsecond, and no other open of the inode may
//! come between them and the table.

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

/// Enough that two threads rarely meet in one.
const SHARDS: usize = 64;

/// How an inode is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Reads come to the server.
    Direct,
    /// The kernel reads the backing file with this id.
    Passthrough(u32),
}

/// What an open does if the inode is not open yet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OpenWith<'a> {
    /// Open it with direct I/O.
    Direct,
    /// Open it by passthrough to this file.
    Passthrough(&'a File),
}

/// Why an open could not be written down.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// More files are open than the table holds.
    #[error("the table of open files is full")]
    Full,
    /// The kernel did not take the backing file.
    #[error("failed to register a backing file")]
    Backing(#[source] io::Error),
}

#[derive(Debug)]
struct Handle {
    /// [`NO_HANDLE`]: it only keeps the backing id.
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
    /// `None` after a take-over, until the next open.
    object: Option<ObjectId>,
    handles: Vec<Handle>,
    /// When its id was put into the list of kept ones; older list entries for it mean nothing.
    kept_since: u64,
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
    kept: Mutex<VecDeque<(u64, u64)>>,
    /// How many ids of closed inodes are kept at most.
    keep: usize,
    clock: AtomicU64,
}

impl Opens {
    /// The opens of a connection that was just made.
    pub(crate) fn new(table: Table, device: Arc<OwnedFd>, keep: usize) -> Self {
        Self {
            table,
            device,
            shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(),
            kept: Mutex::default(),
            keep,
            clock: AtomicU64::new(1),
        }
    }

    /// The opens of a connection whose server died: `found` is what it had written down.
    pub(crate) fn adopt(table: Table, found: &[RecoveredSlot], device: Arc<OwnedFd>, keep: usize) -> Self {
        let opens = Self::new(table, device, keep);
        opens.sweep(found);
        for found in found {
            match found.state {
                State::Empty => {}
                State::Opening(_) => opens.table.give_back(found.slot),
                State::Closing(id) => {
                    opens.close_id(id);
                    opens.table.give_back(found.slot);
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

    /// Joins the opens of an inode that is open already, or whose id was kept. If it is [`Mode::Direct`], `direct` is
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

    /// Opens an inode as wished, or as it is open already. `direct` as for [`join`](Self::join).
    pub(crate) fn open(
        &self,
        node: u64,
        handle: u64,
        object: ObjectId,
        wish: OpenWith<'_>,
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
        let (mode, slot) = match wish {
            OpenWith::Direct => {
                let slot = self
                    .table
                    .take(State::Direct, node, handle)
                    .ok_or(OpenError::Full)?;
                direct();
                (Mode::Direct, slot)
            }
            OpenWith::Passthrough(file) => {
                let opening = State::Opening(self.table.last_id());
                let slot = self.table.take(opening, node, handle).ok_or(OpenError::Full)?;
                match BackingId::create_raw(&*self.device, file) {
                    Ok(id) => {
                        self.table.note_id(id);
                        self.table.set(slot, State::Passthrough(id));
                        (Mode::Passthrough(id), slot)
                    }
                    Err(error) => {
                        self.table.give_back(slot);
                        return Err(OpenError::Backing(error));
                    }
                }
            }
        };
        let entry = Entry {
            mode,
            object: Some(object),
            handles: vec![Handle::new(handle, slot)],
            kept_since: 0,
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

    /// Notes the release of a handle. One that is not known was released before.
    pub(crate) fn close(&self, node: u64, handle: u64) -> Option<Mode> {
        let mut shard = self.shard(node).lock();
        let entry = shard.get_mut(&node)?;
        let index = entry.handles.iter().position(|known| known.number == handle)?;
        let mode = entry.mode;
        if entry.handles.len() > 1 {
            let closed = entry.handles.swap_remove(index);
            self.table.give_back(closed.slot);
            return Some(mode);
        }
        if matches!(mode, Mode::Passthrough(_)) && self.keep > 0 {
            for known in &mut entry.handles {
                known.number = NO_HANDLE;
                self.table.rename(known.slot, NO_HANDLE);
            }
            let since = self.clock.fetch_add(1, Ordering::Relaxed);
            entry.kept_since = since;
            drop(shard);
            self.kept.lock().push_back((node, since));
            self.trim();
            return Some(mode);
        }
        if let Some(entry) = shard.remove(&node) {
            self.end(entry);
        }
        Some(mode)
    }

    /// Closes the kept ids of these objects.
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
                self.end(entry);
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

    /// The open handles whose reads come to the server, with their nodes.
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
        // Inodes are positions in multiples of 32 bytes: spread by a multiplicative hash.
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
        if let Some(kept) = entry.handles.iter_mut().find(|known| known.number == NO_HANDLE) {
            kept.number = handle;
            self.table.rename(kept.slot, handle);
            return Ok(entry.mode);
        }
        let state = match entry.mode {
            Mode::Direct => State::Direct,
            Mode::Passthrough(id) => State::Passthrough(id),
        };
        let slot = self.table.take(state, node, handle).ok_or(OpenError::Full)?;
        entry.handles.push(Handle::new(handle, slot));
        Ok(entry.mode)
    }

    fn restore(&self, found: &RecoveredSlot, mode: Mode) {
        let mut shard = self.shard(found.node).lock();
        let entry = shard.entry(found.node).or_insert_with(|| Entry {
            mode,
            object: None,
            handles: Vec::new(),
            kept_since: 0,
        });
        entry.handles.push(Handle::new(found.handle, found.slot));
        if found.handle == NO_HANDLE {
            let since = self.clock.fetch_add(1, Ordering::Relaxed);
            entry.kept_since = since;
            drop(shard);
            self.kept.lock().push_back((found.node, since));
        }
    }

    /// Closes the oldest kept ids while there are too many.
    fn trim(&self) {
        loop {
            let candidate = {
                let mut kept = self.kept.lock();
                if kept.len() <= self.keep {
                    return;
                }
                kept.pop_front()
            };
            let Some((node, since)) = candidate else { return };
            let mut shard = self.shard(node).lock();
            let idle = shard
                .get(&node)
                .is_some_and(|entry| entry.kept_since == since && entry.is_idle());
            if idle && let Some(entry) = shard.remove(&node) {
                self.end(entry);
            }
        }
    }

    /// Frees what belongs to an inode that nobody has open; its shard is locked.
    fn end(&self, entry: Entry) {
        for Handle { slot, .. } in entry.handles {
            match entry.mode {
                Mode::Direct => {}
                Mode::Passthrough(id) => {
                    self.table.set(slot, State::Closing(id));
                    self.close_id(id);
                }
            }
            self.table.give_back(slot);
        }
    }

    fn close_id(&self, id: u32) {
        if let Err(error) = close_backing(&self.device, id) {
            warn!(id, %error, "failed to close a backing id: its object cannot be evicted before the unmount");
        }
    }

    /// Closes ids that the dead server had registered and not written down yet.
    fn sweep(&self, found: &[RecoveredSlot]) {
        let opening = found.iter().filter_map(|found| match found.state {
            State::Opening(last) => Some(last),
            _ => None,
        });
        let Some(from) = opening.min() else { return };
        // Ids are given out in rising order, so a new one bounds those that were lost.
        let probe = match BackingId::create_raw(&*self.device, self.table.file()) {
            Ok(probe) => probe,
            Err(error) => {
                warn!(%error, "failed to look for lost backing ids");
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
        self.table.note_id(probe);
    }
}
