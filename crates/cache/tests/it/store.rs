//! The store under hard use: many threads on a small disk, kills, damage, a disk that is full. Needs root, for file
//! systems of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod damage;
mod disk;
mod hammer;
mod kills;
mod objects;
mod pool;
