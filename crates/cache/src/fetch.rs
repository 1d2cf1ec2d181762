//! Fetching an object's bytes from its source: fast while the source is healthy, by a deadline when it is not, and
//! never wrong ones.
//!
//! [`Origin`] is the one way to a source: every GET carries the version that the catalog names, and the response is
//! checked against it before a caller sees a byte. It retries, hedges and limits the requests in flight, fewer of
//! them when the source throttles ([`Concurrency`]). A caller that will hold the bytes reserves them from a
//! [`Budget`] first, and [`SingleFlight`] makes concurrent requests for the same thing one fetch. [`Bandwidth`]
//! slows down loads.

mod bandwidth;
mod budget;
mod concurrency;
mod error;
mod hedge;
mod origin;
mod priority_semaphore;
pub(crate) mod retry;
mod single_flight;

pub use bandwidth::Bandwidth;
pub use budget::{Budget, MemoryPermit, SharedBudget};
pub use concurrency::{Concurrency, ConcurrencyOptions};
pub use error::FetchError;
pub use origin::{FetchedBlock, Origin, OriginOptions, Request};
pub use priority_semaphore::PriorityPermit;
pub use single_flight::{FlightLost, SingleFlight};

/// The priority of a fetch: what waits for its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// No reader yet: readahead, prefetch, loads.
    Background,
    /// A reader waits: granted before all background work.
    Reader,
}
