//! An S3 server of the tests' own: exact semantics, counters, and faults that are switched while it runs.
//!
//! The real servers that run on one machine are either too slow for what is measured or inexact (`facts.md` of the
//! project says how), and none fails on request. So this one answers the part of S3 that a reader of datasets uses,
//! path style: GetObject, HeadObject, ListObjectsV2, PutObject, DeleteObject, multipart uploads, with conditions,
//! ranges and signatures as S3 has them. It passes the same
//! checks (`tests/it/conformance`) as versitygw, which is the real one
//! ([`Versitygw`] starts it).
//!
//! - [`Origin`]: the server, in the caller's runtime or in a thread of its own; all its methods are synchronous.
//! - [`Body`]: what an object holds: bytes, a mapped file, or data generated from a seed while it is read.
//! - [`data`]: the generator, which gives any range of its data without the rest.
//! - [`Fault`], [`Rule`]: what goes wrong, for which requests, how often.
//! - [`Counters`]: what was asked for and sent; hit rates are computed from these.
//! - [`Client`]: a plain client for raw requests: keys that other clients refuse to send, wrong signatures.
//!
//! What it does not do: versions, copies, bulk deletes, ACLs, presigned URLs, chunk-signed uploads (each is answered
//! with `NotImplemented`), virtual-host addressing, TLS.
//!
//! A key is bytes. It is the decoded path of the request, never normalised: `../x`, `a//b` and control characters are
//! keys like any other. Object times are whole seconds, as S3's are.
#![deny(unsafe_code)]

mod client;
pub mod command;
mod condition;
mod content;
mod counters;
pub mod data;
mod error;
mod fault;
mod io;
mod list;
mod multipart;
mod object;
mod operation;
mod options;
mod origin;
mod pace;
mod range;
mod serve;
mod service;
mod signature;
mod store;
mod versitygw;
mod xml;

pub use client::{Client, Reply};
pub use counters::{Counters, KeyCounters};
pub use fault::{Fault, Faults, Kind, Rule, RuleId};
pub use object::{Body, ETag, etag};
pub use options::{Credentials, OriginOptions};
pub use origin::Origin;
pub use versitygw::Versitygw;
