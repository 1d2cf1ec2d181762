//! Metrics that all Datasets of a process share by name, each with its own labels.

use std::collections::{BTreeMap, HashMap};

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

const DATASET: &str = "dataset";
const NAMESPACE: &str = "namespace";

/// Makes metrics of a family with the labels of a Dataset, and one more where there is one.
pub(super) struct Families<'a>(pub(super) &'a Registry);

/// The Dataset that metrics are of.
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

    pub(super) fn histogram(&self, family: &HistogramVec) -> Histogram {
        family.with_label_values(&self.values())
    }

    pub(super) fn counters(&self, family: &IntCounterVec) -> CounterFamily {
        CounterFamily {
            family: family.clone(),
            labels: self.clone(),
        }
    }

    pub(super) fn gauges(&self, family: &IntGaugeVec) -> GaugeFamily {
        GaugeFamily {
            family: family.clone(),
            labels: self.clone(),
        }
    }

    /// Takes all metrics of this Dataset out of a family.
    pub(super) fn remove_from<B: MetricVecBuilder>(&self, family: &MetricVec<B>) {
        for group in family.collect() {
            for metric in group.get_metric() {
                let labels: HashMap<&str, &str> = metric
                    .get_label()
                    .iter()
                    .map(|label| (label.name(), label.value()))
                    .collect();
                let is_ours = labels.get(DATASET) == Some(&self.dataset.as_str())
                    && labels.get(NAMESPACE) == Some(&self.namespace.as_str());
                if is_ours {
                    // Another one who removes it at the same time has done what was wanted.
                    let _gone = family.remove(&labels);
                }
            }
        }
    }
}

/// A Dataset's counters of one name, told apart by one more label.
#[derive(Clone, Debug)]
pub struct CounterFamily {
    family: IntCounterVec,
    labels: Labels,
}

impl CounterFamily {
    /// The counter whose label has this value.
    pub fn of(&self, value: &str) -> IntCounter {
        let [dataset, namespace] = self.labels.values();
        self.family.with_label_values(&[dataset, namespace, value])
    }

    /// What all counters of the Dataset are at, by the label's value.
    pub fn values(&self) -> BTreeMap<String, u64> {
        let mut values = BTreeMap::new();
        for group in self.family.collect() {
            for metric in group.get_metric() {
                let labels = metric.get_label();
                let has = |name: &str, value: &str| {
                    labels
                        .iter()
                        .any(|label| label.name() == name && label.value() == value)
                };
                if !has(DATASET, &self.labels.dataset) || !has(NAMESPACE, &self.labels.namespace) {
                    continue;
                }
                let own = labels
                    .iter()
                    .find(|label| label.name() != DATASET && label.name() != NAMESPACE);
                if let Some(own) = own {
                    values.insert(own.value().to_owned(), self.of(own.value()).get());
                }
            }
        }
        values
    }
}

/// A Dataset's gauges of one name, told apart by one more label.
#[derive(Clone, Debug)]
pub(super) struct GaugeFamily {
    family: IntGaugeVec,
    labels: Labels,
}

impl GaugeFamily {
    pub(super) fn of(&self, value: &str) -> IntGauge {
        let [dataset, namespace] = self.labels.values();
        self.family.with_label_values(&[dataset, namespace, value])
    }
}
