//! Metrics that all Datasets of a process share by name, each with its own labels.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

const DATASET: &str = "dataset";
const NAMESPACE: &str = "namespace";

/// Creates metric families with the labels of a Dataset, and one more where there is one.
pub(super) struct Families<'a>(pub(super) &'a Registry);

/// The Dataset that metrics belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Labels {
    pub(super) dataset: String,
    pub(super) namespace: String,
}

impl Families<'_> {
    fn register<C: Collector + Clone + 'static>(&self, family: C) -> prometheus::Result<C> {
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        label: Option<&str>,
    ) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(name, help), &names(label))?)
    }

    pub(super) fn gauges(
        &self,
        name: &str,
        help: &str,
        label: Option<&str>,
    ) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), &names(label))?)
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: Vec<f64>,
    ) -> prometheus::Result<HistogramVec> {
        let options = HistogramOpts::new(name, help).buckets(buckets);
        self.register(HistogramVec::new(options, &names(None))?)
    }
}

fn names(label: Option<&str>) -> Vec<&str> {
    [DATASET, NAMESPACE].into_iter().chain(label).collect()
}

impl Labels {
    fn values(&self) -> [&str; 2] {
        [&self.dataset, &self.namespace]
    }

    pub(super) fn counter(&self, family: &IntCounterVec) -> IntCounter {
        family.with_label_values(&self.values())
    }

    pub(super) fn gauge(&self, family: &IntGaugeVec) -> IntGauge {
        family.with_label_values(&self.values())
    }

    pub(super) fn histogram(&self, family: &HistogramVec) -> LazyHistogram {
        LazyHistogram {
            family: family.clone(),
            labels: self.clone(),
            created: Arc::default(),
        }
    }

    pub(super) fn counters(&self, family: &IntCounterVec) -> CounterFamily {
        MetricFamily::new(family, self)
    }

    pub(super) fn gauges(&self, family: &IntGaugeVec) -> GaugeFamily {
        MetricFamily::new(family, self)
    }

    /// Removes the metric of this Dataset from a family.
    pub(super) fn remove_from<B: MetricVecBuilder>(&self, family: &MetricVec<B>) {
        // An error means that another thread has removed it.
        let _removed = family.remove_label_values(&self.values());
    }
}

/// A Dataset's metrics of one name, distinguished by one more label. Clones share them.
///
/// It remembers its own: a search among those of all Datasets would take longer with each Dataset.
#[derive(Clone, Debug)]
pub struct MetricFamily<V, M> {
    family: V,
    labels: Labels,
    known: Arc<RwLock<BTreeMap<String, M>>>,
}

/// The counters of one name.
pub type CounterFamily = MetricFamily<IntCounterVec, IntCounter>;

/// The gauges of one name.
pub(super) type GaugeFamily = MetricFamily<IntGaugeVec, IntGauge>;

impl<B: MetricVecBuilder> MetricFamily<MetricVec<B>, B::M> {
    fn new(family: &MetricVec<B>, labels: &Labels) -> Self {
        Self {
            family: family.clone(),
            labels: labels.clone(),
            known: Arc::default(),
        }
    }

    /// Returns the metric whose label has this value.
    pub fn of(&self, value: &str) -> B::M {
        if let Some(known) = self.known.read().get(value) {
            return known.clone();
        }
        let [dataset, namespace] = self.labels.values();
        let metric = self.family.with_label_values(&[dataset, namespace, value]);
        self.known.write().insert(value.to_owned(), metric.clone());
        metric
    }

    /// Unregisters all of them.
    pub(super) fn remove(&self) {
        let [dataset, namespace] = self.labels.values();
        for value in std::mem::take(&mut *self.known.write()).keys() {
            // An error means that another thread has removed it.
            let _removed = self.family.remove_label_values(&[dataset, namespace, value]);
        }
    }
}

impl CounterFamily {
    /// Returns the values of all counters of the Dataset, by the label's value.
    pub fn values(&self) -> BTreeMap<String, u64> {
        let known = self.known.read();
        known
            .iter()
            .map(|(value, counter)| (value.clone(), counter.get()))
            .collect()
    }
}

/// A Dataset's histogram, exposed from its first observation on: it has many lines, and most Datasets of a node are idle.
#[derive(Clone, Debug)]
pub struct LazyHistogram {
    family: HistogramVec,
    labels: Labels,
    created: Arc<OnceLock<Histogram>>,
}

impl LazyHistogram {
    /// Returns the histogram itself.
    pub fn get(&self) -> &Histogram {
        self.created
            .get_or_init(|| self.family.with_label_values(&self.labels.values()))
    }

    /// Unregisters the histogram.
    pub(super) fn remove(&self) {
        self.labels.remove_from(&self.family);
    }
}
