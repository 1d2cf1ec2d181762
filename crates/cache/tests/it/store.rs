//! The store under load: many threads on a small disk, kills, damage, a disk that is full. Needs root, for file
//! systems of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue ends")]

mod damage;
mod disk;
mod hammer;
mod kills;
mod objects;
mod pool;
