//! Getting an object's bytes from its source: quickly when the source is well, not at all wrongly, and within
//! a deadline when it is not.
//!
//! [`Origin`] is the one way to a source: every GET carries the version that the catalog names, and what comes
//! back is checked against it before anybody sees a byte. It retries, hedges and keeps to a number of requests
//! at once that sinks when the source asks for less ([`Concurrency`]). Whoever is going to hold the bytes takes
//! their number from a [`Budget`] first, and [`SingleFlight`] makes sure that two who want the same thing at
//! the same time cause one fetch. [`Bandwidth`] slows down loads that nobody waits for.

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

/// Who waits for the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Nobody yet: read-ahead, loads.
    Background,
    /// A reader: goes before all that is not waited for.
    Reader,
}
