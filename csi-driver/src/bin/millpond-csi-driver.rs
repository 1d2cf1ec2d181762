//! Shows Datasets to the pods of a node: see [`csi_driver::main`].

use std::sync::Arc;

use csi_driver::remote::RemoteWorkers;

#[global_allocator]
static ALLOCATOR: millpond_process::Allocator = millpond_process::Allocator;

fn main() {
    csi_driver::main(|_options, identity| Arc::new(RemoteWorkers::new(identity)))
}
