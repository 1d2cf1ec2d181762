//! Millpond end to end: the real binary as a user would run it, on real kernel mounts.

mod cache_faults;
mod fio;
mod fresh_servers;
mod generations;
mod half_cached;
mod hit_rates;
mod hostile_keys;
mod kills;
mod limits;
mod model;
mod origin_faults;
mod outside_server;
mod pjdfstest;
mod privileges;
mod promptness;
mod remote;
mod semantics;
mod smoke;
mod supervision;
