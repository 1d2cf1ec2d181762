//! The names of the controller's metrics.

use std::time::Instant;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, exponential_buckets,
};

/// Everything that is counted. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    reconciliations: IntCounterVec,
    errors: IntCounterVec,
    seconds: HistogramVec,
    /// 1 while this replica leads.
    pub(crate) leads: IntGauge,
    /// Node processes that follow the plan, by `role`.
    pub(crate) connected: IntGaugeVec,
}

impl Metrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// Never in practice: the names are new.
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let metrics = Self {
            reconciliations: IntCounterVec::new(
                Opts::new(
                    "millpond_controller_reconciliations_total",
                    "Objects that were reconciled",
                ),
                &["kind"],
            )?,
            errors: IntCounterVec::new(
                Opts::new(
                    "millpond_controller_errors_total",
                    "Reconciliations that failed, users' mistakes not counted",
                ),
                &["kind"],
            )?,
            seconds: HistogramVec::new(
                HistogramOpts::new(
                    "millpond_controller_reconcile_seconds",
                    "Time of one reconciliation",
                )
                .buckets(exponential_buckets(0.001, 2.0, 14)?),
                &["kind"],
            )?,
            leads: IntGauge::new("millpond_controller_leads", "1 for the replica that leads")?,
            connected: IntGaugeVec::new(
                Opts::new(
                    "millpond_controller_connected_nodes",
                    "Node processes that follow the plan",
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

    /// Begins to time a reconciliation.
    pub(crate) fn begin(&self, kind: &'static str) -> Timer {
        Timer {
            metrics: self.clone(),
            kind,
            began: Instant::now(),
        }
    }
}

/// One reconciliation.
pub(crate) struct Timer {
    metrics: Metrics,
    kind: &'static str,
    began: Instant,
}

impl Timer {
    pub(crate) fn end(self, succeeded: bool) {
        let label = [self.kind];
        self.metrics.reconciliations.with_label_values(&label).inc();
        if !succeeded {
            self.metrics.errors.with_label_values(&label).inc();
        }
        self.metrics
            .seconds
            .with_label_values(&label)
            .observe(self.began.elapsed().as_secs_f64());
    }
}
