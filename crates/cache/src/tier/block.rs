//! Blocks: the parts of an object that are fetched and checked one by one.

/// Length of a block: the unit of checksums and of partial fetching. The last block of an object may be shorter.
pub const BLOCK_BYTES: u64 = 1 << 20;

/// The number of a block within its object: it begins at `index * BLOCK_BYTES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockIndex(pub u32);
