//! The names of the worker's metrics.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};
use tracing::warn;

use crate::dataset::DatasetStats;

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

/// Where reads were answered.
#[derive(Clone, Debug)]
pub struct ReadMetrics {
    /// Bytes from this node's cache.
    pub local_bytes: IntCounter,
    /// Bytes from other workers.
    pub peer_bytes: IntCounter,
    /// Bytes from the source.
    pub origin_bytes: IntCounter,
    /// Opens of what was here.
    pub local_opens: IntCounter,
    /// Opens of what another worker had.
    pub peer_opens: IntCounter,
    /// Opens of what had to be fetched.
    pub origin_opens: IntCounter,
}

/// What a Dataset does on this node.
#[derive(Clone, Debug)]
pub struct DatasetMetrics {
    /// Where reads were answered.
    pub reads: ReadMetrics,
    /// Files that are here because of a load.
    pub load_files: IntCounter,
    /// Bytes that loads fetched.
    pub load_bytes: IntCounter,
    /// Files that could not be loaded.
    pub load_failures: IntCounter,
    budget_capacity: IntGauge,
    budget_used: IntGauge,
    catalog_generation: IntGauge,
    catalog_files: IntGauge,
    catalog_bytes: IntGauge,
    tier_capacity: IntGaugeVec,
    tier_used: IntGaugeVec,
    tier_objects: IntGaugeVec,
    store_events: IntCounterVec,
    /// Held by who shows the counts: two at once would count twice.
    showing: Arc<Mutex<()>>,
}

impl DatasetMetrics {
    /// Makes the metrics of the Dataset `name` and registers them.
    ///
    /// # Errors
    /// A metric of one of these names is registered already.
    pub fn new(registry: &Registry, name: &str, namespace: &str) -> prometheus::Result<Self> {
        let describe = |metric: &str, help: &str| {
            Opts::new(metric, help)
                .const_label("dataset", name)
                .const_label("namespace", namespace)
        };
        let counter = |metric: &str, help: &str| {
            let counter = IntCounter::with_opts(describe(metric, help))?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |metric: &str, help: &str| {
            let gauge = IntGauge::with_opts(describe(metric, help))?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let gauges = |metric: &str, help: &str, label: &str| {
            let gauges = IntGaugeVec::new(describe(metric, help), &[label])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let reads = |metric: &str, help: &str| {
            let counters = IntCounterVec::new(describe(metric, help), &["served_from"])?;
            if let Err(error) = registry.register(Box::new(counters.clone())) {
                // Nothing else may count reads under these names; if something does, its numbers are shown.
                warn!(metric, %error, "reads are counted elsewhere too, and shown from there");
            }
            Ok::<_, prometheus::Error>(counters)
        };
        let store_events = IntCounterVec::new(
            describe(
                "millpond_store_events_total",
                "What happened to objects in the cache directory, by event: evicted (also because no catalog names them any more), spared (in use), corrupt, verified \
                 (after a crash of the machine), refused (without room), failure (of the file system)",
            ),
            &["event"],
        )?;
        registry.register(Box::new(store_events.clone()))?;
        let bytes = reads(
            "millpond_read_bytes_total",
            "Bytes read, by where they came from: what was fetched ahead of its reader is the origin's the first time it is \
             read, what a load fetched is local. What the kernel serves alone counts as the whole file at each open",
        )?;
        let opens = reads(
            "millpond_read_opens_total",
            "Files opened, by where their bytes came from: what was fetched ahead of its reader is the origin's the first \
             time it is opened. Opens of one file by one thread within a few milliseconds may count as one",
        )?;
        Ok(Self {
            reads: ReadMetrics {
                local_bytes: bytes.with_label_values(&["local"]),
                peer_bytes: bytes.with_label_values(&["peer"]),
                origin_bytes: bytes.with_label_values(&["origin"]),
                local_opens: opens.with_label_values(&["local"]),
                peer_opens: opens.with_label_values(&["peer"]),
                origin_opens: opens.with_label_values(&["origin"]),
            },
            load_files: counter(
                "millpond_load_files_total",
                "Files that are here because of a load",
            )?,
            load_bytes: counter("millpond_load_bytes_total", "Bytes that loads fetched")?,
            load_failures: counter("millpond_load_failures_total", "Files that could not be loaded")?,
            budget_capacity: gauge(
                "millpond_memory_budget_capacity_bytes",
                "What the buffers of the read path may take",
            )?,
            budget_used: gauge(
                "millpond_memory_budget_used_bytes",
                "What the buffers of the read path take",
            )?,
            catalog_generation: gauge("millpond_catalog_generation", "The number of the newest catalog")?,
            catalog_files: gauge("millpond_catalog_files", "Files in the newest catalog")?,
            catalog_bytes: gauge(
                "millpond_catalog_bytes",
                "Bytes of the files in the newest catalog",
            )?,
            tier_capacity: gauges("millpond_tier_capacity_bytes", "What a tier may hold", "medium")?,
            tier_used: gauges(
                "millpond_tier_used_bytes",
                "What a tier holds or has promised",
                "medium",
            )?,
            tier_objects: gauges("millpond_tier_objects", "Complete objects in a tier", "medium")?,
            store_events,
            showing: Arc::default(),
        })
    }

    /// Sets the gauges.
    pub fn update(&self, stats: &DatasetStats) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.budget_capacity.set(number(stats.memory.capacity_bytes));
        self.budget_used.set(number(stats.memory.used_bytes));
        if let Some(catalog) = &stats.catalog {
            self.catalog_generation.set(number(catalog.generation));
            self.catalog_files.set(number(catalog.files));
            self.catalog_bytes.set(number(catalog.bytes));
        }
        for tier in &stats.tiers {
            let medium = [tier.medium.as_str()];
            self.tier_capacity
                .with_label_values(&medium)
                .set(number(tier.capacity_bytes));
            self.tier_used
                .with_label_values(&medium)
                .set(number(tier.used_bytes));
            self.tier_objects
                .with_label_values(&medium)
                .set(number(tier.objects));
        }
        let store = &stats.store;
        let _alone = self.showing.lock();
        for (event, count) in [
            ("evicted", store.evicted_objects),
            ("spared", store.spared_objects),
            ("corrupt", store.corrupt),
            ("verified", store.verified_objects),
            ("refused", store.refused),
            ("failure", store.failures),
        ] {
            // Counted elsewhere, and only ever grows.
            let shown = self.store_events.with_label_values(&[event]);
            shown.inc_by(count.saturating_sub(shown.get()));
        }
    }
}
