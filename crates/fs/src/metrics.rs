//! Metrics of the views. Reads are counted by the worker alone.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

/// The counters of one Dataset's views. Clones are the same counters.
#[derive(Clone, Debug)]
pub struct ViewMetrics {
    /// Events of opens that were lost or could not be understood.
    pub events_lost: IntCounter,
    /// Events of opens that FUSE served, which are not counted as the kernel's.
    pub events_deducted: IntCounter,
    /// Views shown now.
    pub views: IntGauge,
    /// How long remounts took.
    remounts: Histogram,
}

impl ViewMetrics {
    /// Registers the counters.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let events_lost = IntCounter::new(
            "millpond_view_events_lost_total",
            "Events of opens that were lost in a full queue, or named no file of the catalog.",
        )?;
        let events_deducted = IntCounter::new(
            "millpond_view_events_deducted_total",
            "Open events deducted because FUSE served the open.",
        )?;
        let views = IntGauge::new("millpond_views", "Views that are mounted.")?;
        let remounts = Histogram::with_opts(
            HistogramOpts::new(
                "millpond_view_remount_seconds",
                "How long a remount of a kernel view took.",
            )
            .buckets(vec![0.001, 0.004, 0.016, 0.064, 0.25, 1.0, 4.0]),
        )?;
        registry.register(Box::new(events_lost.clone()))?;
        registry.register(Box::new(events_deducted.clone()))?;
        registry.register(Box::new(views.clone()))?;
        registry.register(Box::new(remounts.clone()))?;
        Ok(Self {
            events_lost,
            events_deducted,
            views,
            remounts,
        })
    }

    pub(crate) fn remounted(&self, took: Duration) {
        self.remounts.observe(took.as_secs_f64());
    }

    /// How many remounts there were.
    pub fn remounts(&self) -> u64 {
        self.remounts.get_sample_count()
    }
}
