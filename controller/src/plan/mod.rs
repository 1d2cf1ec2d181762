//! What every node process is to do: written by the reconcilers, told by the service.

mod book;
mod serve;

pub(crate) use book::{Book, PlannedDataset};
pub(crate) use serve::PlanService;
