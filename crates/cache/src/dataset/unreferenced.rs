//! Removal of objects that no catalog references: replaced or deleted at the source, and in no mounted generation.
//!
//! Without it a cache that never evicts would fill with them. The store is scanned when a generation was deleted,
//! since only then an object can lose its last reference. Objects in use stay for the next scan.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::catalogs::Catalogs;
use crate::store::Store;

/// Generations are deleted one after the other: one scan for all of them.
const SCAN_DEBOUNCE: Duration = Duration::from_secs(1);

/// The delay before objects in use are tried again: each scan walks the cache directory.
const RESCAN_INTERVAL: Duration = Duration::from_secs(60);

/// Removes objects that lose their last reference, until `stop` is cancelled.
pub(super) async fn run(catalogs: Arc<Catalogs>, store: Arc<Store>, stop: CancellationToken) {
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
                info!(objects = found, "removing objects that no catalog references");
            }
        }
    })
    .await;
}
