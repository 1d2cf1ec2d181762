//! The metrics of the controller.

use std::time::Instant;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, exponential_buckets,
};

/// The metrics and their registry. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    reconciliations: IntCounterVec,
    errors: IntCounterVec,
    seconds: HistogramVec,
    /// 1 while this replica is the leader.
    pub(crate) leads: IntGauge,
    /// Connected node processes, by `role`.
    pub(crate) connected: IntGaugeVec,
}

impl Metrics {
    /// Creates the metrics and registers them.
    ///
    /// # Errors
    /// Never in practice: the names are new.
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let metrics = Self {
            reconciliations: IntCounterVec::new(
                Opts::new(
                    "millpond_controller_reconciliations_total",
                    "Reconciliations, failed ones included, by kind of the object",
                ),
                &["kind"],
            )?,
            errors: IntCounterVec::new(
                Opts::new(
                    "millpond_controller_errors_total",
                    "Reconciliations that failed by an error of the API server, by kind of the object; invalid specs are not errors",
                ),
                &["kind"],
            )?,
            seconds: HistogramVec::new(
                HistogramOpts::new(
                    "millpond_controller_reconcile_seconds",
                    "Seconds that one reconciliation took, by kind of the object",
                )
                .buckets(exponential_buckets(0.001, 2.0, 14)?),
                &["kind"],
            )?,
            leads: IntGauge::new("millpond_controller_leads", "1 if this replica is the leader")?,
            connected: IntGaugeVec::new(
                Opts::new(
                    "millpond_controller_connected_nodes",
                    "Node processes connected to this replica, by role: worker or driver",
                ),
                &["role"],
            )?,
            registry: registry.clone(),
        };
        registry.register(Box::new(metrics.reconciliations.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(metrics.leads.clone()))?;
        registry.register(Box::new(metrics.connected.clone()))?;
        Ok(metrics)
    }

    pub(crate) const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Starts the timer of a reconciliation.
    pub(crate) fn start_timer(&self, kind: &'static str) -> Timer {
        Timer {
            metrics: self.clone(),
            kind,
            started: Instant::now(),
        }
    }
}

/// The timer of one reconciliation.
pub(crate) struct Timer {
    metrics: Metrics,
    kind: &'static str,
    started: Instant,
}

impl Timer {
    /// Counts the reconciliation.
    pub(crate) fn stop(self, succeeded: bool) {
        let label = [self.kind];
        self.metrics.reconciliations.with_label_values(&label).inc();
        if !succeeded {
            self.metrics.errors.with_label_values(&label).inc();
        }
        self.metrics
            .seconds
            .with_label_values(&label)
            .observe(self.started.elapsed().as_secs_f64());
    }
}
