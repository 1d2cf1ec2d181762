//! The Secrets that Datasets name, read by name: the controller may neither list nor watch them.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use moka::future::Cache;

/// Datasets that come together often name one Secret: it is read once for all of them. Short beside the pause between
/// two looks at a Dataset, so that a Secret that was rotated or mended is taken when it is looked at.
const FRESH: Duration = Duration::from_secs(1);

/// Secrets that are remembered at once; more of them are read more often.
const REMEMBERED: u64 = 1_024;

/// Reads Secrets.
#[derive(Clone)]
pub(crate) struct Secrets {
    client: Client,
    /// By namespace and name. Whoever asks while it is being read waits for that one request.
    read: Cache<(String, String), Option<Arc<Secret>>>,
}

impl Secrets {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            read: Cache::builder()
                .max_capacity(REMEMBERED)
                .time_to_live(FRESH)
                .build(),
        }
    }

    /// A Secret; `None` where there is none of that name.
    pub(super) async fn get(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Secret>>, Arc<kube::Error>> {
        let key = (namespace.to_owned(), name.to_owned());
        let api = Api::namespaced(self.client.clone(), namespace);
        let read = async { Ok(api.get_opt(name).await?.map(Arc::new)) };
        self.read.try_get_with(key, read).await
    }
}
