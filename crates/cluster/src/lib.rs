//! Connections and certificates of the processes of a cluster.
//!
//! - [`Identity`] is a certificate with its key and the authorities to trust; [`Peer`] is the other side, by its
//!   certificate. Every connection over the network is mutual TLS, but for the request of a process's certificate.
//! - [`Incoming`] accepts connections, [`connect()`] opens channels. Both use the newest identity for each connection, so that
//!   a rotated certificate needs no restart.
//! - [`CertificateManager`] requests a certificate from the controller and renews it; [`Follower`] follows the controller's plan.
//!
//! Invariant: a peer is identified by its certificate alone, never by what it sends.

mod certificate;
mod connect;
mod identity;
mod listen;
mod peer;
mod plan_stream;

pub use certificate::{Bootstrap, CertificateError, CertificateManager};
pub use connect::{ConnectError, Controller, connect};
pub use identity::{ClientCertPolicy, Identity, IdentityError};
pub use listen::{ConnectedPeer, Connection, Incoming};
pub use peer::{Peer, PeerError, Role};
pub use plan_stream::{DriverPlan, Follower, POOL_METADATA, PlanEvent, PlanService, WorkerPlan};

/// The audience of the ServiceAccount tokens that the controller accepts.
pub const TOKEN_AUDIENCE: &str = "millpond-controller";
