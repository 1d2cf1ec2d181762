//! The worker as a process of a cluster: it follows the controller's plan and serves what that says.
//!
//! - [`Options`]: the command line. [`run`]: everything put together, from the start to SIGTERM.
//! - [`plan`]: the changes of the plan, applied. [`dataset_task`]: one Dataset of the plan, from its opening to its removal.
//! - [`loads`]: orders to fetch ahead. [`reports`]: what the controller is told.
//! - [`context`]: a plan as the options of a Dataset. [`tiers`]: where on the node a Dataset's bytes are. [`headroom`]: what of
//!   the disk is not theirs.
//!
//! While the controller is away the last plan holds on. What a Dataset needs in order to work again (a source that
//! answers, a tier that can be opened) is tried again by itself.

mod context;
mod dataset_task;
mod headroom;
mod http;
mod loads;
mod options;
mod plan;
mod reports;
mod run;
pub mod service;
mod tiers;

pub use options::Options;
pub use run::run;
pub use tiers::{TierOption, TierOptionError};
