//! Metrics of the traffic between a worker and the sources.

use prometheus::{
    HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, exponential_buckets,
};

use super::family::{CounterFamily, Families, Labels, LazyHistogram};

/// Metrics of the traffic between a Dataset's worker and its sources, which are counted together.
#[derive(Clone, Debug)]
pub struct OriginMetrics {
    /// Requests sent, by `operation`: get, list.
    pub requests: CounterFamily,
    /// Requests that failed, by `reason`: changed, denied, throttled, failed, cut.
    pub errors: CounterFamily,
    /// Requests retried after an error.
    pub retries: IntCounter,
    /// Times a source throttled requests.
    pub throttles: IntCounter,
    /// Second requests for bytes that the first was slow to deliver.
    pub hedges: IntCounter,
    /// Bytes of objects received, those of lost hedges included.
    pub bytes: IntCounter,
    /// Seconds from the sending of a GET to the first bytes of its body.
    pub first_byte_seconds: LazyHistogram,
    /// Seconds of a complete fetch, its waits and retries included.
    pub fetch_seconds: LazyHistogram,
    /// Maximum concurrent requests to the sources.
    pub concurrency_limit: IntGauge,
}

impl OriginMetrics {
    /// Creates and registers metrics for sources outside of any Dataset.
    ///
    /// # Errors
    /// A metric of one of these names is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let labels = Labels {
            dataset: String::new(),
            namespace: String::new(),
        };
        Ok(OriginFamilies::new(&Families(registry))?.of(&labels))
    }
}

/// The metrics of all Datasets.
#[derive(Clone, Debug)]
pub(super) struct OriginFamilies {
    requests: IntCounterVec,
    errors: IntCounterVec,
    retries: IntCounterVec,
    throttles: IntCounterVec,
    hedges: IntCounterVec,
    bytes: IntCounterVec,
    first_byte_seconds: HistogramVec,
    fetch_seconds: HistogramVec,
    concurrency_limit: IntGaugeVec,
}

impl OriginFamilies {
    pub(super) fn new(families: &Families<'_>) -> prometheus::Result<Self> {
        // 1 ms to 65 s.
        let latencies = exponential_buckets(0.001, 2.0, 17)?;
        Ok(Self {
            requests: families.counters(
                "millpond_origin_requests_total",
                "Requests sent to the source, by operation: get, list",
                Some("operation"),
            )?,
            errors: families.counters(
                "millpond_origin_errors_total",
                "Failed requests to the source, by reason: changed, denied, throttled, failed, cut",
                Some("reason"),
            )?,
            retries: families.counters(
                "millpond_origin_retries_total",
                "Requests to the source that were retried after an error",
                None,
            )?,
            throttles: families.counters(
                "millpond_origin_throttles_total",
                "Times the source throttled requests",
                None,
            )?,
            hedges: families.counters(
                "millpond_origin_hedges_total",
                "Hedged requests: second requests for bytes that the first was slow to deliver",
                None,
            )?,
            bytes: families.counters(
                "millpond_origin_bytes_total",
                "Bytes of objects received from the source, those of lost hedges included",
                None,
            )?,
            first_byte_seconds: families.histograms(
                "millpond_origin_first_byte_seconds",
                "Seconds from the sending of a GET to the first bytes of its body",
                latencies.clone(),
            )?,
            fetch_seconds: families.histograms(
                "millpond_origin_fetch_seconds",
                "Seconds of a complete fetch, its waits and retries included",
                latencies,
            )?,
            concurrency_limit: families.gauges(
                "millpond_origin_concurrency_limit",
                "Maximum concurrent requests to the source",
                None,
            )?,
        })
    }

    pub(super) fn of(&self, labels: &Labels) -> OriginMetrics {
        OriginMetrics {
            requests: labels.counters(&self.requests),
            errors: labels.counters(&self.errors),
            retries: labels.counter(&self.retries),
            throttles: labels.counter(&self.throttles),
            hedges: labels.counter(&self.hedges),
            bytes: labels.counter(&self.bytes),
            first_byte_seconds: labels.histogram(&self.first_byte_seconds),
            fetch_seconds: labels.histogram(&self.fetch_seconds),
            concurrency_limit: labels.gauge(&self.concurrency_limit),
        }
    }

    /// Unregisters a Dataset's metrics.
    pub(super) fn remove(&self, labels: &Labels, metrics: &OriginMetrics) {
        metrics.requests.remove();
        metrics.errors.remove();
        metrics.first_byte_seconds.remove();
        metrics.fetch_seconds.remove();
        for counters in [&self.retries, &self.throttles, &self.hedges, &self.bytes] {
            labels.remove_from(counters);
        }
        labels.remove_from(&self.concurrency_limit);
    }
}
