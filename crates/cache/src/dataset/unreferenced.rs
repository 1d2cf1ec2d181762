//! Objects of versions that no catalog names any more: replaced or deleted at the source, and shown by no view.
//!
//! Without this a cache that never evicts would fill with them. They are looked for when a generation was deleted, since
//! only then something can have lost its last name. What is in use stays, and is looked for again.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::catalogs::Catalogs;
use crate::store::Store;

/// Generations are deleted one after the other: one look for all of them.
const SCAN_DEBOUNCE: Duration = Duration::from_secs(1);

/// What was in use is tried again after this: each attempt walks the cache directory.
const RESCAN_INTERVAL: Duration = Duration::from_secs(60);

/// Removes what loses its last name, until it is told to stop.
pub(super) async fn remove_all(catalogs: Arc<Catalogs>, store: Arc<Store>, stop: CancellationToken) {
    stop.run_until_cancelled(async {
        let mut found = 0;
        loop {
            if found == 0 {
                catalogs.deleted().await;
                tokio::time::sleep(SCAN_DEBOUNCE).await;
            } else {
                tokio::time::sleep(RESCAN_INTERVAL).await;
            }
            let names = Arc::clone(&catalogs);
            found = store
                .remove_unreferenced(Arc::new(move |id| names.may_reference(id)))
                .await;
            if found > 0 {
                info!(objects = found, "removing objects that no catalog names any more");
            }
        }
    })
    .await;
}
