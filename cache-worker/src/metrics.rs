//! The names of the worker's metrics.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, exponential_buckets,
};

/// What goes on between a worker and its source.
#[derive(Clone, Debug)]
pub struct OriginMetrics {
    /// Requests sent, by `operation`: get, list.
    pub requests: IntCounterVec,
    /// Requests that did not bring what was asked for, by `reason`: changed, denied, throttled, failed, cut.
    pub errors: IntCounterVec,
    /// Requests sent again after an error.
    pub retries: IntCounter,
    /// Times the source asked for fewer requests.
    pub throttles: IntCounter,
    /// Second requests for what the first was slow to bring.
    pub hedges: IntCounter,
    /// Bytes of objects received, those of lost hedges included.
    pub bytes: IntCounter,
    /// Seconds from the sending of a GET to the first bytes of its body.
    pub first_byte_seconds: Histogram,
    /// Seconds of a whole fetch, its waits and retries included.
    pub fetch_seconds: Histogram,
    /// The number of requests that may be at the source at once.
    pub concurrency_limit: IntGauge,
}

impl OriginMetrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// A metric of one of these names is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        // 1 ms to 65 s.
        let latencies = exponential_buckets(0.001, 2.0, 17)?;
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new("millpond_origin_requests_total", "Requests sent to the source"),
                &["operation"],
            )?,
            errors: IntCounterVec::new(
                Opts::new(
                    "millpond_origin_errors_total",
                    "Requests to the source that did not bring what was asked for",
                ),
                &["reason"],
            )?,
            retries: IntCounter::new(
                "millpond_origin_retries_total",
                "Requests to the source that were sent again after an error",
            )?,
            throttles: IntCounter::new(
                "millpond_origin_throttles_total",
                "Times the source asked for fewer requests",
            )?,
            hedges: IntCounter::new(
                "millpond_origin_hedges_total",
                "Second requests for what the first was slow to bring",
            )?,
            bytes: IntCounter::new(
                "millpond_origin_bytes_total",
                "Bytes of objects received from the source, those of lost hedges included",
            )?,
            first_byte_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "millpond_origin_first_byte_seconds",
                    "From the sending of a GET to the first bytes of its body",
                )
                .buckets(latencies.clone()),
            )?,
            fetch_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "millpond_origin_fetch_seconds",
                    "A whole fetch, its waits and retries included",
                )
                .buckets(latencies),
            )?,
            concurrency_limit: IntGauge::new(
                "millpond_origin_concurrency_limit",
                "How many requests may be at the source at once",
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.retries.clone()))?;
        registry.register(Box::new(metrics.throttles.clone()))?;
        registry.register(Box::new(metrics.hedges.clone()))?;
        registry.register(Box::new(metrics.bytes.clone()))?;
        registry.register(Box::new(metrics.first_byte_seconds.clone()))?;
        registry.register(Box::new(metrics.fetch_seconds.clone()))?;
        registry.register(Box::new(metrics.concurrency_limit.clone()))?;
        Ok(metrics)
    }
}
