//! Serves Datasets to the pods of a node: see [`csi_driver::main`].

#[global_allocator]
static ALLOCATOR: millpond_process::Allocator = millpond_process::Allocator;

fn main() {
    csi_driver::main()
}
