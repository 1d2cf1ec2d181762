//! The names of the worker's metrics.
//!
//! Every name is registered once in a process ([`WorkerMetrics`]); each Dataset has its own labels, `dataset` and
//! `namespace`, which are removed when it is closed ([`DatasetMetrics::remove`]).

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

mod family;
mod origin;

use family::{Families, GaugeFamily, Labels};
use origin::OriginFamilies;

pub use family::{CounterFamily, LazyHistogram};
pub use origin::OriginMetrics;

/// The metrics of all Datasets of a process. Clones are the same metrics.
#[derive(Clone, Debug)]
pub struct WorkerMetrics {
    families: Arc<WorkerFamilies>,
}

#[derive(Debug)]
struct WorkerFamilies {
    origin: OriginFamilies,
    read_bytes: IntCounterVec,
    read_opens: IntCounterVec,
    load_files: IntCounterVec,
    load_bytes: IntCounterVec,
    load_failures: IntCounterVec,
    budget_capacity: IntGaugeVec,
    budget_used: IntGaugeVec,
    budget_waiting: IntGaugeVec,
    catalog_generation: IntGaugeVec,
    catalog_files: IntGaugeVec,
    catalog_bytes: IntGaugeVec,
    tier_capacity: IntGaugeVec,
    tier_used: IntGaugeVec,
    tier_objects: IntGaugeVec,
    store_events: IntCounterVec,
}

impl WorkerMetrics {
    /// Creates the metrics and registers them: once in a process.
    ///
    /// # Errors
    /// A metric of one of these names is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let families = Families(registry);
        let counters = |name, help| families.counters(name, help, None);
        let gauges = |name, help| families.gauges(name, help, None);
        let families = WorkerFamilies {
            origin: OriginFamilies::new(&families)?,
            read_bytes: families.counters(
                "millpond_read_bytes_total",
                "Bytes read, by source of the data: local (this node's cache, DataLoads included), peer, origin (fetched for this \
                 read, or prefetched and read for the first time). A kernel open counts as one read of the whole file",
                Some("served_from"),
            )?,
            read_opens: families.counters(
                "millpond_read_opens_total",
                "Files opened, by source of the data: local (this node's cache, DataLoads included), peer, origin (fetched for \
                 this open, or prefetched and opened for the first time). Opens of one file by one thread within a few \
                 milliseconds may count as one",
                Some("served_from"),
            )?,
            load_files: counters("millpond_load_files_total", "Files cached by DataLoads")?,
            load_bytes: counters("millpond_load_bytes_total", "Bytes fetched by DataLoads")?,
            load_failures: counters("millpond_load_failures_total", "Files that DataLoads failed to cache")?,
            budget_capacity: gauges(
                "millpond_memory_budget_capacity_bytes",
                "Maximum bytes of the buffers of the read path",
            )?,
            budget_used: gauges(
                "millpond_memory_budget_used_bytes",
                "Bytes of the buffers of the read path in use",
            )?,
            budget_waiting: gauges(
                "millpond_memory_budget_waiting",
                "Requests waiting for buffers of the read path",
            )?,
            catalog_generation: gauges("millpond_catalog_generation", "Generation number of the newest catalog")?,
            catalog_files: gauges("millpond_catalog_files", "Files in the newest catalog")?,
            catalog_bytes: gauges("millpond_catalog_bytes", "Bytes of the files in the newest catalog")?,
            tier_capacity: families.gauges(
                "millpond_tier_capacity_bytes",
                "Capacity of a tier in bytes",
                Some("medium"),
            )?,
            tier_used: families.gauges(
                "millpond_tier_used_bytes",
                "Bytes used or reserved in a tier",
                Some("medium"),
            )?,
            tier_objects: families.gauges(
                "millpond_tier_objects",
                "Complete objects in a tier",
                Some("medium"),
            )?,
            store_events: families.counters(
                "millpond_store_events_total",
                "Store events, by event: evicted (objects, unreferenced ones included), spared (victim was open), corrupt (checksum \
                 mismatch), verified (after a crash of the machine), refused (no space), failure (I/O error)",
                Some("event"),
            )?,
        };
        Ok(Self {
            families: Arc::new(families),
        })
    }

    /// The metrics of one Dataset.
    pub fn of(&self, dataset: &str, namespace: &str) -> DatasetMetrics {
        let labels = Labels {
            dataset: dataset.to_owned(),
            namespace: namespace.to_owned(),
        };
        let families = &*self.families;
        let read_bytes = labels.counters(&families.read_bytes);
        let read_opens = labels.counters(&families.read_opens);
        DatasetMetrics {
            reads: ReadMetrics {
                local_bytes: read_bytes.of("local"),
                peer_bytes: read_bytes.of("peer"),
                origin_bytes: read_bytes.of("origin"),
                local_opens: read_opens.of("local"),
                peer_opens: read_opens.of("peer"),
                origin_opens: read_opens.of("origin"),
            },
            read_bytes,
            read_opens,
            load_files: labels.counter(&families.load_files),
            load_bytes: labels.counter(&families.load_bytes),
            load_failures: labels.counter(&families.load_failures),
            origin: families.origin.of(&labels),
            budget_capacity: labels.gauge(&families.budget_capacity),
            budget_used: labels.gauge(&families.budget_used),
            budget_waiting: labels.gauge(&families.budget_waiting),
            catalog_generation: labels.gauge(&families.catalog_generation),
            catalog_files: labels.gauge(&families.catalog_files),
            catalog_bytes: labels.gauge(&families.catalog_bytes),
            tier_capacity: labels.gauges(&families.tier_capacity),
            tier_used: labels.gauges(&families.tier_used),
            tier_objects: labels.gauges(&families.tier_objects),
            store_events: labels.counters(&families.store_events),
            showing: Arc::default(),
            labels,
            worker: self.clone(),
        }
    }
}

/// Counters of reads and opens, by source of the data.
#[derive(Clone, Debug)]
pub struct ReadMetrics {
    /// Bytes from this node's cache.
    pub local_bytes: IntCounter,
    /// Bytes from other workers.
    pub peer_bytes: IntCounter,
    /// Bytes from the source.
    pub origin_bytes: IntCounter,
    /// Opens of files that were cached on this node.
    pub local_opens: IntCounter,
    /// Opens of files that were cached by another worker.
    pub peer_opens: IntCounter,
    /// Opens of files that had to be fetched.
    pub origin_opens: IntCounter,
}

/// Metrics of a Dataset on this node.
#[derive(Clone, Debug)]
pub struct DatasetMetrics {
    /// Reads and opens, by source of the data.
    pub reads: ReadMetrics,
    /// Files cached by loads.
    pub load_files: IntCounter,
    /// Bytes fetched by loads.
    pub load_bytes: IntCounter,
    /// Files that loads failed to cache.
    pub load_failures: IntCounter,
    /// Traffic between the worker and the Dataset's sources.
    pub origin: OriginMetrics,
    read_bytes: CounterFamily,
    read_opens: CounterFamily,
    pub(crate) budget_capacity: IntGauge,
    pub(crate) budget_used: IntGauge,
    pub(crate) budget_waiting: IntGauge,
    pub(crate) catalog_generation: IntGauge,
    pub(crate) catalog_files: IntGauge,
    pub(crate) catalog_bytes: IntGauge,
    pub(crate) tier_capacity: GaugeFamily,
    pub(crate) tier_used: GaugeFamily,
    pub(crate) tier_objects: GaugeFamily,
    store_events: CounterFamily,
    /// Locked while counts are exported: two threads would count twice.
    showing: Arc<Mutex<()>>,
    labels: Labels,
    worker: WorkerMetrics,
}

impl DatasetMetrics {
    /// Unregisters the Dataset's metrics: it is closed.
    pub fn remove(&self) {
        let _alone = self.showing.lock();
        let families = &*self.worker.families;
        families.origin.remove(&self.labels, &self.origin);
        for counters in [&self.read_bytes, &self.read_opens, &self.store_events] {
            counters.remove();
        }
        for gauges in [&self.tier_capacity, &self.tier_used, &self.tier_objects] {
            gauges.remove();
        }
        for counters in [
            &families.load_files,
            &families.load_bytes,
            &families.load_failures,
        ] {
            self.labels.remove_from(counters);
        }
        for gauges in [
            &families.budget_capacity,
            &families.budget_used,
            &families.budget_waiting,
            &families.catalog_generation,
            &families.catalog_files,
            &families.catalog_bytes,
        ] {
            self.labels.remove_from(gauges);
        }
    }

    /// Raises the counters of store events to the store's own counts.
    pub(crate) fn raise_store_events(&self, counts: [(&str, u64); 6]) {
        let _alone = self.showing.lock();
        for (event, count) in counts {
            // Counted elsewhere, and only ever grows.
            let shown = self.store_events.of(event);
            shown.inc_by(count.saturating_sub(shown.get()));
        }
    }
}
