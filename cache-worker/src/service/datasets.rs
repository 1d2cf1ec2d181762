//! The Datasets that are served, by uid.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::sessions::Drivers;
use millpond_cache::dataset::Dataset;

/// One Dataset and those who use it.
#[derive(Clone, Debug)]
pub struct ServedDataset {
    /// The Dataset.
    pub dataset: Arc<Dataset>,
    /// Its drivers.
    pub drivers: Arc<Drivers>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Datasets {
    served: RwLock<HashMap<String, ServedDataset>>,
}

impl Datasets {
    /// Serves a Dataset.
    pub fn put(&self, uid: String, served: ServedDataset) {
        self.served.write().insert(uid, served);
    }

    /// Serves it no more.
    pub fn remove(&self, uid: &str) {
        self.served.write().remove(uid);
    }

    /// The Dataset of that uid.
    pub fn get(&self, uid: &str) -> Option<ServedDataset> {
        self.served.read().get(uid).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<(String, ServedDataset)> {
        let served = self.served.read();
        served
            .iter()
            .map(|(uid, served)| (uid.clone(), served.clone()))
            .collect()
    }
}
