//! What the driver says of itself over HTTP.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use millpond_process::http::{Observed, register_build_info};
use prometheus::Registry;
use prometheus::proto::MetricFamily;
use tracing::warn;

use crate::node::{Datasets, Volumes};

/// The driver, as soon as it serves its node. Clones are the same driver.
#[derive(Clone)]
pub(crate) struct Service {
    process: Registry,
    /// Empty while another driver serves the node.
    serving: Arc<OnceLock<(Arc<Datasets>, Arc<Volumes>)>>,
}

impl Service {
    pub(crate) fn new() -> prometheus::Result<Self> {
        let process = Registry::new();
        register_build_info(&process, env!("CARGO_PKG_VERSION"))?;
        Ok(Self {
            process,
            serving: Arc::default(),
        })
    }

    pub(crate) fn serve(&self, datasets: Arc<Datasets>, volumes: Arc<Volumes>) {
        // Once in the life of a process.
        let _set = self.serving.set((datasets, volumes));
    }
}

impl Observed for Service {
    async fn gather(&self) -> Vec<MetricFamily> {
        let mut gathered = self.process.gather();
        if let Some((datasets, _)) = self.serving.get() {
            // Includes opens of the last milliseconds.
            if let Err(error) = datasets.count_now().await {
                warn!(%error, "failed to count opens");
            }
            gathered.extend(datasets.metrics().iter().flat_map(Registry::gather));
        }
        merge(gathered)
    }

    /// A driver that waits for its predecessor is ready: the kubelet stops the old one only when the new one is.
    fn ready(&self) -> Result<&'static str, &'static str> {
        match self.serving.get() {
            None => Ok("standing by"),
            Some((_, volumes)) if volumes.is_ready() => Ok("ok"),
            Some(_) => Err("taking over"),
        }
    }
}

/// Merges the families of several Datasets by name, since the text format allows each name once.
fn merge(families: Vec<MetricFamily>) -> Vec<MetricFamily> {
    let mut merged: BTreeMap<String, MetricFamily> = BTreeMap::new();
    for mut family in families {
        match merged.get_mut(family.name()) {
            Some(known) => known.mut_metric().extend(family.take_metric()),
            None => {
                merged.insert(family.name().to_owned(), family);
            }
        }
    }
    merged.into_values().collect()
}
