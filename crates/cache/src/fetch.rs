//! Getting an object's bytes from its source: quickly when the source is well, not at all wrongly, and within
//! a deadline when it is not.
//!
//! [`Origin`] is the one way to a source: every GET carries the version that the catalog names, and what comes
//! back is checked against it before anybody sees a byte. It retries, hedges and keeps to a number of requests
//! at once that sinks when the source asks for less ([`Concurrency`]). Whoever is going to hold the bytes takes
//! their number from a [`Budget`] first, and [`Flights`] makes sure that two who want the same thing at
//! the same time cause one fetch. [`Bandwidth`] slows down loads that nobody waits for.

mod bandwidth;
mod budget;
mod concurrency;
mod error;
mod flight;
mod gate;
mod origin;
mod pace;
pub(crate) mod patience;

pub use bandwidth::Bandwidth;
pub use budget::{Budget, Common, Memory};
pub use concurrency::{Concurrency, ConcurrencyOptions};
pub use error::FetchError;
pub use flight::{FlightLost, Flights};
pub use gate::Grant;
pub use origin::{FetchedBlock, Origin, OriginOptions, Request};

/// Who waits for the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Nobody yet: read-ahead, loads.
    ReadAhead,
    /// A reader: goes before all that is not waited for.
    Reader,
}
