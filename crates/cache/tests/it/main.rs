//! The cache as programs use it: sources, the store, Datasets.

mod dataset;
mod sources;
mod store;
