//! What every node process is to do: written by the reconcilers, told by the service.

mod index;
mod service;

pub(crate) use index::{PlanIndex, PlannedDataset};
pub(crate) use service::PlanService;
