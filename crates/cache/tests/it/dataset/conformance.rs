//! A Dataset does what every worker must.

use millpond_core::conformance::{self, Sample, WorkerFixture};
use millpond_core::{NoViews, ObjectId, ObjectRef};

use crate::dataset::pond::{MIB, Pond, tree};

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_does_what_every_worker_must() {
    let pond = Pond::new([
        ("complete".to_owned(), 100_000),
        ("missing".to_owned(), 9 * MIB + 7),
    ]);
    let dataset = pond.start(pond.options()).await;
    let objects = tree(&dataset);
    let sample = |key: &str| Sample {
        object: objects[key],
        content: pond.expected(key, 0..objects[key].size_bytes),
    };
    pond.open_and_check(&dataset, "complete", objects["complete"])
        .await;
    let unknown = ObjectRef {
        id: ObjectId::from_bytes([7; 16]),
        ..objects["missing"]
    };
    let fixture = WorkerFixture {
        worker: &*dataset,
        complete: sample("complete"),
        missing: sample("missing"),
        unknown: Some(unknown),
    };
    conformance::worker(&fixture).await;
    dataset.stop().await;
}

#[tokio::test]
async fn no_views_do_what_all_views_must() {
    conformance::views(&NoViews, &[ObjectId::from_bytes([7; 16])]).await;
}
