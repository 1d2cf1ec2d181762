//! Makes the messages and services of `proto/` into Rust.

use std::error::Error;

const FILES: [&str; 2] = ["proto/plan.proto", "proto/worker.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure()
        // What is read is not copied out of the buffer that it arrived in.
        .bytes(".")
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
