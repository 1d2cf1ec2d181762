//! The worker's process in a cluster: it follows the controller's plan and serves the planned Datasets.
//!
//! - [`Options`]: the command line. [`run`]: the wiring, from the start to SIGTERM.
//! - [`plan`]: applies the changes of the plan. [`dataset_task`]: one Dataset of the plan, from its opening to its removal.
//! - [`loads`]: DataLoads of this node. [`reports`]: reports to the controller.
//! - [`context`]: a plan as the options of a Dataset. [`tiers`]: a Dataset's directories on the node. [`headroom`]: the
//!   disk space that stays free.
//!
//! While the controller is unavailable the last plan applies. The worker retries by itself what a Dataset needs (a
//! reachable source, a tier that can be opened).

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
