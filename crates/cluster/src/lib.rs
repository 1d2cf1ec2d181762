//! How the processes of a cluster reach and trust each other.
//!
//! - [`Identity`] is a certificate with its key and the authorities it trusts; [`Peer`] is who the other side is, by its
//!   certificate. Every connection over the network is mutual TLS, except where a process gets its first certificate.
//! - [`Incoming`] accepts connections, [`connect`] makes channels. Both take the newest identity for each connection, so
//!   a rotated certificate needs no restart.
//! - [`CertificateManager`] gets a certificate from the controller and renews it; [`Follower`] follows the controller's plan.
//!
//! Invariant: nothing that the other side says of itself is believed, only what its certificate says.

mod certificate;
mod connect;
mod identity;
mod listen;
mod peer;
mod plan_stream;

pub use certificate::{Bootstrap, CertificateManager, MembershipError};
pub use connect::{ConnectError, Controller, connect};
pub use identity::{ClientCertPolicy, Identity, IdentityError};
pub use listen::{ConnectedPeer, Connection, Incoming};
pub use peer::{Peer, PeerError, Role};
pub use plan_stream::{DriverPlan, Follower, POOL_METADATA, PlanEvent, PlanService, WorkerPlan};

/// The audience of the ServiceAccount tokens that the controller takes.
pub const TOKEN_AUDIENCE: &str = "millpond-controller";
