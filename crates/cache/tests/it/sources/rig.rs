//! A server, a source of it and an origin over the source.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use millpond_cache::fetch::{Budget, FetchError, Origin, OriginOptions, Priority, Request};
use millpond_cache::listing::{ListOptions, Listing};
use millpond_cache::metrics::OriginMetrics;
use millpond_cache::source::{Clients, Environment, Source, SourceOptions};
use millpond_core::Validator;
use prometheus::Registry;

/// Longer than any test here takes on the slowest machine.
pub(crate) const GUARD: Duration = Duration::from_secs(60);

pub(crate) const BUCKET: &str = "bucket";

pub(crate) struct Rig {
    pub(crate) server: origin::Origin,
    pub(crate) source: Arc<Source>,
    pub(crate) origin: Arc<Origin>,
    pub(crate) metrics: OriginMetrics,
}

/// Bytes that identify their object and their offset.
pub(crate) fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A server with credentials, and a source below `prefix` that has them.
pub(crate) fn rig_below(prefix: &str, options: OriginOptions) -> Rig {
    let credentials = origin::Credentials::new("key", "secret");
    let server =
        origin::Origin::spawn(origin::OriginOptions::default().with_credentials(credentials)).unwrap();
    server.create_bucket(BUCKET);
    let source = open(&server, prefix, "secret");
    let metrics = OriginMetrics::new(&Registry::new()).unwrap();
    let origin = Arc::new(Origin::new(Arc::clone(&source), options, metrics.clone()));
    Rig {
        server,
        source,
        origin,
        metrics,
    }
}

pub(crate) fn open(server: &origin::Origin, prefix: &str, secret: &str) -> Arc<Source> {
    let environment: Environment = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", secret)]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let options = SourceOptions {
        url: format!("s3://{BUCKET}/{prefix}"),
        endpoint: Some(server.url()),
        ..SourceOptions::default()
    };
    Arc::new(Source::open_in(&options, &environment, &Clients::default()).unwrap())
}

pub(crate) fn rig(options: OriginOptions) -> Rig {
    rig_below("", options)
}

/// For tests in which the source never recovers: they last as long as this.
pub(crate) fn short_deadline() -> OriginOptions {
    OriginOptions {
        deadline: Duration::from_secs(3),
        min_bytes_per_second: 1 << 20,
        idle: Duration::from_secs(1),
        ..OriginOptions::default()
    }
}

/// For tests in which the source recovers, however slow the machine.
pub(crate) fn long_timeouts() -> OriginOptions {
    OriginOptions {
        deadline: GUARD,
        idle: Duration::from_secs(20),
        ..OriginOptions::default()
    }
}

/// For tests in which a response has to be abandoned: they last as long as this.
pub(crate) fn short_idle() -> OriginOptions {
    OriginOptions {
        idle: Duration::from_secs(1),
        ..long_timeouts()
    }
}

/// With hedges, which start long before a response is abandoned.
pub(crate) fn hedging() -> OriginOptions {
    OriginOptions {
        budget: Some(Budget::new(16 << 20)),
        ..long_timeouts()
    }
}

pub(crate) struct Stored {
    pub(crate) key: String,
    pub(crate) validator: Validator,
    pub(crate) content: Vec<u8>,
}

impl Rig {
    pub(crate) fn put(&self, key: &str, seed: u64, length: usize) -> Stored {
        let content = content(seed, length);
        let etag = self.server.put(BUCKET, key, content.clone());
        Stored {
            key: key.to_owned(),
            validator: Validator::ETag(format!("\"{etag}\"")),
            content,
        }
    }

    pub(crate) async fn fetch(&self, stored: &Stored, range: Range<usize>) -> Result<Vec<u8>, FetchError> {
        let fetched = tokio::time::timeout(GUARD, self.origin.fetch(stored.request(range))).await;
        fetched.expect("a fetch ends").map(|chunks| chunks.concat())
    }

    pub(crate) async fn fetch_all(&self, stored: &Stored) -> Result<Vec<u8>, FetchError> {
        self.fetch(stored, 0..stored.content.len()).await
    }

    /// The same source with other timeouts.
    pub(crate) fn with(&self, options: OriginOptions) -> Origin {
        Origin::new(Arc::clone(&self.source), options, self.metrics.clone())
    }

    pub(crate) fn list(&self) -> Listing {
        Listing::start(
            Arc::clone(&self.source),
            ListOptions::default(),
            self.metrics.clone(),
        )
    }
}

impl Stored {
    pub(crate) fn request(&self, range: Range<usize>) -> Request {
        Request {
            key: self.key.clone(),
            validator: self.validator.clone(),
            size_bytes: self.content.len() as u64,
            range: range.start as u64..range.end as u64,
            priority: Priority::Reader,
        }
    }
}
