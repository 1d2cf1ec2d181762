//! The Container Storage Interface: only translation between the kubelet's messages and [`crate::node`].

mod identity;
mod node;
mod registration;
mod socket;
pub mod wire;

pub use identity::IdentityService;
pub use node::NodeService;
pub use registration::RegistrationService;
pub use socket::{SocketError, listen};

/// The topology key of a node.
pub const TOPOLOGY_NODE: &str = "topology.millpond.io/node";
