//! Metrics of the views. Reads are counted by the worker alone.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

/// The metrics of one Dataset's views. Clones are the same metrics.
#[derive(Clone, Debug)]
pub struct ViewMetrics {
    /// Open events that were lost, or could not be parsed.
    pub events_lost: IntCounter,
    /// Events of opens that FUSE served, which are not counted as the kernel's.
    pub events_deducted: IntCounter,
    /// The same under its old name.
    events_settled: IntCounter,
    /// Mounted views.
    pub views: IntGauge,
    /// Durations of remounts.
    remounts: Histogram,
}

impl ViewMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// They are registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let events_lost = IntCounter::new(
            "millpond_view_events_lost_total",
            "Open events lost in a full queue, or of no file of the catalog: these opens are not counted.",
        )?;
        let events_deducted = IntCounter::new(
            "millpond_view_events_deducted_total",
            "Open events deducted because FUSE served the open.",
        )?;
        let events_settled = IntCounter::new(
            "millpond_view_events_settled_total",
            "Deprecated, removed in the next release: millpond_view_events_deducted_total.",
        )?;
        let views = IntGauge::new("millpond_views", "Mounted views.")?;
        let remounts = Histogram::with_opts(
            HistogramOpts::new(
                "millpond_view_remount_seconds",
                "Duration of remounts of kernel views, in seconds.",
            )
            .buckets(vec![0.001, 0.004, 0.016, 0.064, 0.25, 1.0, 4.0]),
        )?;
        registry.register(Box::new(events_lost.clone()))?;
        registry.register(Box::new(events_deducted.clone()))?;
        registry.register(Box::new(events_settled.clone()))?;
        registry.register(Box::new(views.clone()))?;
        registry.register(Box::new(remounts.clone()))?;
        Ok(Self {
            events_lost,
            events_deducted,
            events_settled,
            views,
            remounts,
        })
    }

    pub(crate) fn deducted(&self, events: u64) {
        self.events_deducted.inc_by(events);
        self.events_settled.inc_by(events);
    }

    pub(crate) fn remounted(&self, took: Duration) {
        self.remounts.observe(took.as_secs_f64());
    }

    /// The number of remounts.
    pub fn remounts(&self) -> u64 {
        self.remounts.get_sample_count()
    }
}
