//! A Dataset against a real S3 server, through the interface that drivers use.

mod changes;
mod conformance;
mod failures;
mod kinds;
mod limits;
mod loads;
mod mounts;
mod pond;
mod prefetch;
mod reading;
mod reconfigure;
mod restarts;
mod together;
