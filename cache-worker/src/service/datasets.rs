//! Served Datasets, by uid.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::sessions::Drivers;
use millpond_cache::dataset::Dataset;

/// A served Dataset and the sessions of its drivers.
#[derive(Clone, Debug)]
pub struct ServedDataset {
    /// Dataset.
    pub dataset: Arc<Dataset>,
    /// Sessions of its drivers.
    pub drivers: Arc<Drivers>,
}

/// Served Datasets, by uid.
#[derive(Debug, Default)]
pub struct Datasets {
    served: RwLock<HashMap<String, ServedDataset>>,
}

impl Datasets {
    /// Adds a Dataset.
    pub fn put(&self, uid: String, served: ServedDataset) {
        self.served.write().insert(uid, served);
    }

    /// Removes a Dataset.
    pub fn remove(&self, uid: &str) {
        self.served.write().remove(uid);
    }

    /// Returns the Dataset of that uid.
    pub fn get(&self, uid: &str) -> Option<ServedDataset> {
        self.served.read().get(uid).cloned()
    }

    /// Returns all Datasets with their uids.
    pub fn all(&self) -> Vec<(String, ServedDataset)> {
        let served = self.served.read();
        served
            .iter()
            .map(|(uid, served)| (uid.clone(), served.clone()))
            .collect()
    }
}
