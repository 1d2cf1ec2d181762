//! The read path of a Dataset: from a reader's request to the bytes, in the cache or from the source.
//!
//! [`SmallObjectFetcher`] fetches complete small objects, [`BlockReader`] reads large ones and those without space block
//! by block. Both share a [`FetchContext`], with the table of [`OpenFiles`] and the blocks that only memory holds
//! ([`transient`]). An [`ObjectState`](object_state::ObjectState) is what all readers of one object share, a
//! [`FetchRun`](fetch_run::FetchRun) a request for some of its blocks, and
//! [`ReadaheadState`](readahead::ReadaheadState) the window of one reader.

mod block_reader;
mod context;
mod fetch_run;
mod object_state;
mod open_files;
mod readahead;
mod small_object;
mod transient;

pub(super) use block_reader::BlockReader;
pub(super) use context::FetchContext;
pub(super) use open_files::{ObjectPin, OpenFiles};
pub(super) use small_object::{FetchOutcome, SmallObjectFetcher};
pub(super) use transient::Transient;
