//! A Dataset against a real S3 server, through the face that drivers use.

mod changes;
mod failures;
mod kinds;
mod limits;
mod loads;
mod mounts;
mod pond;
mod reading;
mod reconfigure;
mod restarts;
mod together;
mod walks;
