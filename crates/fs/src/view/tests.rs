//! Kernel-mounted tests: real images, overlays and events. Plain directories stand in for the FUSE mount.

mod fixture;
mod io;
mod kernel;
mod opens;
mod registry;
mod trial;
mod worker;
