//! The plan: what every node process has to do. The reconcilers write it, the service sends it.

mod index;
mod service;

pub(crate) use index::{PlanIndex, PlannedDataset};
pub(crate) use service::PlanService;
