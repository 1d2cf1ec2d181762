//! Generates Rust from `proto/`.

use std::error::Error;

const FILES: [&str; 2] = ["proto/plan.proto", "proto/worker.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure()
        // Byte fields share the receive buffer instead of copying from it.
        .bytes(".")
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
