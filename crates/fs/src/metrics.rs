//! What the driver counts about views and about reads that the kernel serves alone.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Where a read was answered, as the label `served_from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServedFrom {
    /// This node's cache.
    Local,
    /// Another worker.
    Peer,
    /// The source.
    Origin,
}

impl ServedFrom {
    const fn label(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Peer => "peer",
            Self::Origin => "origin",
        }
    }
}

/// The counters of one Dataset's views. Clones are the same counters.
#[derive(Clone, Debug)]
pub struct ViewMetrics {
    opens: IntCounterVec,
    bytes: IntCounterVec,
    /// Events of opens that were lost or could not be understood.
    pub events_lost: IntCounter,
    /// Opens that FUSE served, so that their events were not counted as the kernel's.
    pub events_settled: IntCounter,
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
        let opens = IntCounterVec::new(
            Opts::new(
                "millpond_read_opens_total",
                "Opens of files by where they were answered. Those that the kernel answers alone are told by fanotify; \
                 opens of one file by one thread within a few milliseconds may be told as one.",
            ),
            &["served_from"],
        )?;
        let bytes = IntCounterVec::new(
            Opts::new(
                "millpond_read_bytes_total",
                "Bytes read by where they came from. Of an open that the kernel answers alone the file's size is \
                 counted, which is right for readers of whole files.",
            ),
            &["served_from"],
        )?;
        let events_lost = IntCounter::new(
            "millpond_view_events_lost_total",
            "Events of opens that were lost in a full queue, or named no file of the catalog.",
        )?;
        let events_settled = IntCounter::new(
            "millpond_view_events_settled_total",
            "Events of opens that were not counted as the kernel's because FUSE had a part in them.",
        )?;
        let views = IntGauge::new("millpond_views", "Views that are mounted.")?;
        let remounts = Histogram::with_opts(
            HistogramOpts::new(
                "millpond_view_remount_seconds",
                "How long a remount of a kernel view took.",
            )
            .buckets(vec![0.001, 0.004, 0.016, 0.064, 0.25, 1.0, 4.0]),
        )?;
        registry.register(Box::new(opens.clone()))?;
        registry.register(Box::new(bytes.clone()))?;
        registry.register(Box::new(events_lost.clone()))?;
        registry.register(Box::new(events_settled.clone()))?;
        registry.register(Box::new(views.clone()))?;
        registry.register(Box::new(remounts.clone()))?;
        for from in [ServedFrom::Local, ServedFrom::Peer, ServedFrom::Origin] {
            // So that a rate over them has a beginning.
            opens.with_label_values(&[from.label()]);
            bytes.with_label_values(&[from.label()]);
        }
        Ok(Self {
            opens,
            bytes,
            events_lost,
            events_settled,
            views,
            remounts,
        })
    }

    /// The counter of opens that were answered from there.
    pub fn opens(&self, from: ServedFrom) -> IntCounter {
        self.opens.with_label_values(&[from.label()])
    }

    /// The counter of bytes that came from there.
    pub fn bytes(&self, from: ServedFrom) -> IntCounter {
        self.bytes.with_label_values(&[from.label()])
    }

    pub(crate) fn remounted(&self, took: Duration) {
        self.remounts.observe(took.as_secs_f64());
    }

    /// How many remounts there were.
    pub fn remounts(&self) -> u64 {
        self.remounts.get_sample_count()
    }
}
