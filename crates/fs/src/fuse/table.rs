//! The table of open files, in memory that outlives the server.
//!
//! The kernel stores more about an open file than a new server can read from it: whether it was opened by
//! passthrough, and with which backing id. An inode that is open by passthrough can be opened again only with the
//! same id, and an unused id must be closed, or its object can never be evicted. So each open handle
//! has a slot here, written before the open is answered and freed after its release was handled. A `kill -9` may
//! happen between any two stores; each state determines what a successor has to do:
//!
//! | state | the dead server was about to | the successor |
//! |---|---|---|
//! | empty | | |
//! | opening | register a backing id | finds the id that no slot has and closes it; the open is resent |
//! | direct | | opens the inode without passthrough |
//! | passthrough | | uses the id for the inode's next opens |
//! | closing | close the id | closes it |
//!
//! A handle number is the number of the request that opened it, so an open or a release that the kernel sends
//! again is the same open or release. Handle 0 is no open file's: it keeps the backing id of a closed inode registered.
//!
//! Layout: 512 words of header (magic with the layout's version, the last backing id, the number of slots ever used), then
//! slots of four words: state and id, inode, handle, unused. Why shared memory and not a message to the keeper for each
//! open: a store costs nothing, and needs no other process to run.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::io::SharedWords;

/// "mpopens" and the version of the layout.
const MAGIC: u64 = u64::from_le_bytes(*b"mpopens\x01");
const HEADER_WORDS: usize = 512;
const SLOT_WORDS: usize = 4;
/// Files open concurrently on one mount; 32 MiB of address space, of which only used slots occupy memory.
const SLOTS: u32 = 1 << 20;

const WORD_MAGIC: usize = 0;
const WORD_LAST_ID: usize = 1;
/// How many slots were ever used: a successor reads no others.
const WORD_USED: usize = 2;

/// The handle of a slot that keeps the backing id of a closed inode registered.
pub(crate) const NO_HANDLE: u64 = 0;

/// The index of a handle's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u32);

/// The state of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// FreeSlots.
    Empty,
    /// A backing id is about to be registered; those up to this one existed before.
    Opening(u32),
    /// Open with direct I/O.
    Direct,
    /// Open by passthrough with this id.
    Passthrough(u32),
    /// This id is about to be closed.
    Closing(u32),
}

impl State {
    const fn to_word(self) -> u64 {
        let (tag, id): (u64, u32) = match self {
            Self::Empty => (0, 0),
            Self::Opening(id) => (1, id),
            Self::Direct => (2, 0),
            Self::Passthrough(id) => (3, id),
            Self::Closing(id) => (4, id),
        };
        tag << 32 | id as u64
    }

    fn from_word(word: u64) -> Option<Self> {
        let id = u32::try_from(word & 0xffff_ffff).ok()?;
        match word >> 32 {
            0 => Some(Self::Empty),
            1 => Some(Self::Opening(id)),
            2 => Some(Self::Direct),
            3 => Some(Self::Passthrough(id)),
            4 => Some(Self::Closing(id)),
            _ => None,
        }
    }
}

/// A slot in use, as a successor reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecoveredSlot {
    pub(crate) slot: Slot,
    pub(crate) state: State,
    pub(crate) node: u64,
    pub(crate) handle: u64,
}

/// The table. All methods may be called concurrently; a slot belongs to the caller that allocated it.
#[derive(Debug)]
pub(crate) struct Table {
    words: SharedWords,
    free: Mutex<FreeSlots>,
}

#[derive(Debug, Default)]
struct FreeSlots {
    /// Slots that were freed, reused first.
    returned: Vec<u32>,
    /// The lowest slot never used.
    next: u32,
}

impl Table {
    /// Creates an empty table.
    pub(crate) fn create() -> io::Result<Self> {
        let words = SharedWords::create(HEADER_WORDS + SLOT_WORDS * SLOTS as usize)?;
        store(words.word(WORD_MAGIC), MAGIC);
        Ok(Self {
            words,
            free: Mutex::default(),
        })
    }

    /// Takes over the table of a dead server; returns the slots in use.
    ///
    /// # Errors
    /// `InvalidData` where it is no table of this layout.
    pub(crate) fn adopt(file: OwnedFd) -> io::Result<(Self, Vec<RecoveredSlot>)> {
        let words = SharedWords::adopt(file, HEADER_WORDS + SLOT_WORDS * SLOTS as usize)?;
        if load(words.word(WORD_MAGIC)) != MAGIC {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let table = Self {
            words,
            free: Mutex::default(),
        };
        let mut found = Vec::new();
        let mut free = FreeSlots::default();
        let used = u32::try_from(load(table.words.word(WORD_USED))).map_or(SLOTS, |used| used.min(SLOTS));
        for index in 0..used {
            let slot = Slot(index);
            match State::from_word(load(table.word(slot, 0))).ok_or(io::ErrorKind::InvalidData)? {
                State::Empty => free.returned.push(index),
                state => found.push(RecoveredSlot {
                    slot,
                    state,
                    node: load(table.word(slot, 1)),
                    handle: load(table.word(slot, 2)),
                }),
            }
        }
        free.next = used;
        *table.free.lock() = free;
        Ok((table, found))
    }

    /// The shared memory, for the keeper.
    pub(crate) const fn file(&self) -> &OwnedFd {
        self.words.file()
    }

    /// Allocates a slot and writes it; `None`: all are in use.
    pub(crate) fn allocate(&self, state: State, node: u64, handle: u64) -> Option<Slot> {
        let slot = {
            let mut free = self.free.lock();
            let slot = free.allocate()?;
            store(self.words.word(WORD_USED), u64::from(free.next));
            Slot(slot)
        };
        store(self.word(slot, 1), node);
        store(self.word(slot, 2), handle);
        self.set(slot, state);
        Some(slot)
    }

    /// Changes a slot's state.
    pub(crate) fn set(&self, slot: Slot, state: State) {
        store(self.word(slot, 0), state.to_word());
    }

    /// Assigns a slot to another handle of the same inode.
    pub(crate) fn rename(&self, slot: Slot, handle: u64) {
        store(self.word(slot, 2), handle);
    }

    /// Frees a slot.
    pub(crate) fn free(&self, slot: Slot) {
        self.set(slot, State::Empty);
        self.free.lock().returned.push(slot.0);
    }

    /// The largest backing id ever registered, as far as recorded here.
    pub(crate) fn last_id(&self) -> u32 {
        u32::try_from(load(self.words.word(WORD_LAST_ID))).unwrap_or(u32::MAX)
    }

    /// Records that `id` was registered.
    pub(crate) fn record_id(&self, id: u32) {
        if let Some(word) = self.words.word(WORD_LAST_ID) {
            word.fetch_max(u64::from(id), Ordering::AcqRel);
        }
    }

    fn word(&self, slot: Slot, index: usize) -> Option<&AtomicU64> {
        self.words
            .word(HEADER_WORDS + SLOT_WORDS * slot.0 as usize + index)
    }
}

impl FreeSlots {
    fn allocate(&mut self) -> Option<u32> {
        if let Some(index) = self.returned.pop() {
            return Some(index);
        }
        let index = self.next;
        (index < SLOTS).then(|| {
            self.next += 1;
            index
        })
    }
}

fn load(word: Option<&AtomicU64>) -> u64 {
    word.map_or(0, |word| word.load(Ordering::Acquire))
}

fn store(word: Option<&AtomicU64>, value: u64) {
    if let Some(word) = word {
        word.store(value, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_finds_what_was_written() {
        let table = Table::create().unwrap();
        let direct = table.allocate(State::Direct, 7, 100).unwrap();
        let passthrough = table.allocate(State::Opening(table.last_id()), 8, 102).unwrap();
        let freed = table.allocate(State::Direct, 9, 104).unwrap();
        table.record_id(3);
        table.set(passthrough, State::Passthrough(3));
        table.free(freed);

        let (next, found) = Table::adopt(table.file().try_clone().unwrap()).unwrap();
        assert_eq!(
            found,
            [
                RecoveredSlot {
                    slot: direct,
                    state: State::Direct,
                    node: 7,
                    handle: 100
                },
                RecoveredSlot {
                    slot: passthrough,
                    state: State::Passthrough(3),
                    node: 8,
                    handle: 102
                },
            ]
        );
        assert_eq!(next.last_id(), 3);
        let taken = next.allocate(State::Direct, 10, 106).unwrap();
        assert!(taken != direct && taken != passthrough);
    }

    #[test]
    fn a_successor_finds_many_slots() {
        let table = Table::create().unwrap();
        for handle in 1..=10_000 {
            table.allocate(State::Direct, handle, handle).unwrap();
        }
        let (_, found) = Table::adopt(table.file().try_clone().unwrap()).unwrap();
        assert_eq!(found.len(), 10_000);
    }

    #[test]
    fn refuses_memory_of_another_layout() {
        let other = SharedWords::create(64).unwrap();
        assert!(Table::adopt(other.file().try_clone().unwrap()).is_err());
        let unmarked = SharedWords::create(HEADER_WORDS + SLOT_WORDS * SLOTS as usize).unwrap();
        assert!(Table::adopt(unmarked.file().try_clone().unwrap()).is_err());
    }

    #[test]
    fn states_survive_their_word() {
        for state in [
            State::Empty,
            State::Opening(u32::MAX),
            State::Direct,
            State::Passthrough(1),
            State::Closing(77),
        ] {
            assert_eq!(State::from_word(state.to_word()), Some(state));
        }
        assert_eq!(State::from_word(u64::MAX), None);
    }
}
