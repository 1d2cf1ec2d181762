//! What every [`Worker`] and every [`Views`] must do, as one suite for each trait that all implementations run: the real
//! ones, those behind a socket, and the fakes of tests.
//!
//! The suites panic at the first thing that does not hold. They change what is cached, but no object.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "support for tests: a panic is how a suite fails"
)]

use std::collections::BTreeSet;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::{LandOutcome, LocalCopy, ObjectId, ObjectRef, ReadError, StreamId, Views, Worker};

/// The longest range of one read, which is that of a FUSE request: a response over a socket has a bound.
const MAX_READ_BYTES: u64 = 1 << 20;

/// An object and its bytes.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The object, as the newest catalog names it.
    pub object: ObjectRef,
    /// All of its bytes.
    pub content: Bytes,
}

/// A worker with what the suite may ask it for.
pub struct WorkerFixture<'a> {
    /// The worker. It has a catalog.
    pub worker: &'a dyn Worker,
    /// An object that is complete in a tier.
    pub complete: Sample,
    /// An object of at least 64 KiB of which nothing is in a tier.
    pub missing: Sample,
    /// An object that no catalog names; `None` for a fake that answers for every id.
    pub unknown: Option<ObjectRef>,
}

/// Runs the suite of [`Worker`].
pub async fn worker(fixture: &WorkerFixture<'_>) {
    describes_itself(fixture);
    opens_what_is_complete(fixture).await;
    a_dropped_read_fails_no_other(fixture).await;
    reads_exactly_what_is_asked_for(fixture).await;
    lands_or_serves_through_fuse(fixture).await;
    keeps_an_open_file_readable(fixture).await;
    refuses_what_no_catalog_names(fixture).await;
}

fn describes_itself(fixture: &WorkerFixture<'_>) {
    let catalogs = fixture.worker.catalogs();
    let newest = catalogs.borrow().clone().expect("there is a catalog");
    assert!(newest.generation >= fixture.complete.object.generation);
    fixture
        .worker
        .retain_generations(&BTreeSet::from([newest.generation]));
    assert!(newest.image.is_file() && newest.index.is_file(), "{newest:?}");

    let tiers = fixture.worker.tiers();
    assert!(!tiers.is_empty());
    assert_eq!(tiers, fixture.worker.tiers(), "tiers stay the same");
}

async fn opens_what_is_complete(fixture: &WorkerFixture<'_>) {
    let Sample { object, content } = &fixture.complete;
    assert!(fixture.worker.is_complete(*object).await);
    assert_local(fixture.worker, *object, content).await;

    let missing = fixture.missing.object;
    assert!(!fixture.worker.is_complete(missing).await);
    assert!(matches!(
        fixture.worker.open_local(missing).await,
        Ok(LocalCopy::Incomplete)
    ));
}

/// A complete object's file has its bytes at the same offsets. A worker behind a socket finds it by its name.
async fn assert_local(worker: &dyn Worker, object: ObjectRef, content: &Bytes) {
    let LocalCopy::Complete(file) = worker.open_local(object).await.unwrap() else {
        panic!("{object:?} is complete, and cannot be opened");
    };
    let mut found = vec![0; content.len()];
    file.read_exact_at(&mut found, 0).unwrap();
    assert!(
        found == content[..],
        "another object's bytes in the file of {object:?}"
    );
}

async fn a_dropped_read_fails_no_other(fixture: &WorkerFixture<'_>) {
    let Sample { object, content } = &fixture.missing;
    let (first, second) = (StreamId(u64::MAX - 1), StreamId(u64::MAX - 2));
    let mut dropped = fixture.worker.read(*object, first, 0..4096);
    let mut waiting = fixture.worker.read(*object, second, 0..4096);
    let mut context = Context::from_waker(Waker::noop());
    let _started = dropped.as_mut().poll(&mut context);
    let data = match waiting.as_mut().poll(&mut context) {
        Poll::Ready(data) => data,
        Poll::Pending => {
            drop(dropped);
            waiting.await
        }
    };
    let data = data.unwrap();
    assert!(*data == content[..4096]);
    fixture.worker.file_closed(*object, first);
    fixture.worker.file_closed(*object, second);
}

async fn reads_exactly_what_is_asked_for(fixture: &WorkerFixture<'_>) {
    for (number, sample) in (0..).zip([&fixture.complete, &fixture.missing]) {
        let size = sample.object.size_bytes;
        let stream = StreamId(u64::MAX - 10 - number);
        let ranges: [Range<u64>; 7] = [
            0..1,
            1..size.min(5000),
            size / 2..size / 2 + 1,
            size - 1..size,
            // Shorter only at the end of the object.
            size - 1..size + 4096,
            0..size.min(MAX_READ_BYTES),
            size / 3..size.min(size / 3 + MAX_READ_BYTES),
        ];
        for range in ranges {
            let data = fixture
                .worker
                .read(sample.object, stream, range.clone())
                .await
                .unwrap();
            let expected = sample
                .content
                .slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end.min(size)).unwrap());
            assert!(
                *data == expected[..],
                "bytes {range:?} of {:?}: {} bytes instead of {}",
                sample.object,
                data.len(),
                expected.len()
            );
        }
        fixture.worker.file_closed(sample.object, stream);
    }
}

async fn lands_or_serves_through_fuse(fixture: &WorkerFixture<'_>) {
    for sample in [&fixture.complete, &fixture.missing] {
        match fixture.worker.fetch_to_landing(sample.object).await.unwrap() {
            LandOutcome::Landed => assert_local(fixture.worker, sample.object, &sample.content).await,
            LandOutcome::ThroughFuse => {
                let stream = StreamId(u64::MAX - 20);
                let data = fixture.worker.read(sample.object, stream, 0..16).await.unwrap();
                assert!(*data == sample.content[..16]);
                fixture.worker.file_closed(sample.object, stream);
            }
        }
    }
}

async fn keeps_an_open_file_readable(fixture: &WorkerFixture<'_>) {
    let Sample { object, content } = &fixture.missing;
    let stream = StreamId(u64::MAX - 30);
    fixture.worker.file_opened(*object, stream, None);
    // Said again, as a driver does that takes over.
    fixture.worker.file_opened(*object, stream, None);
    let data = fixture.worker.read(*object, stream, 16..32).await.unwrap();
    assert!(*data == content[16..32]);
    fixture.worker.file_closed(*object, stream);
    // Closed twice, as after a lost connection: harmless.
    fixture.worker.file_closed(*object, stream);
    fixture.worker.count_kernel_opens(&[]);
}

async fn refuses_what_no_catalog_names(fixture: &WorkerFixture<'_>) {
    let Some(unknown) = fixture.unknown else {
        return;
    };
    let stream = StreamId(u64::MAX - 40);
    let error = fixture.worker.read(unknown, stream, 0..1).await.unwrap_err();
    assert!(
        matches!(error, ReadError::Unknown { id } if id == unknown.id),
        "{error}"
    );
    // The error, or a reason to read through FUSE, which gets the error; never a landing.
    match fixture.worker.fetch_to_landing(unknown).await {
        Ok(LandOutcome::ThroughFuse) => {}
        Err(ReadError::Unknown { id }) if id == unknown.id => {}
        other => panic!("{unknown:?}: {other:?}"),
    }
    assert!(!fixture.worker.is_complete(unknown).await);
}

/// Runs the suite of [`Views`]: `released` are objects that were unlinked and that no reader has open.
pub async fn views(views: &dyn Views, released: &[ObjectId]) {
    views.release(&[]).await.unwrap();
    views.release(released).await.unwrap();
    // Repeated where the worker does not know whether it was answered.
    views.release(released).await.unwrap();
    let never = ObjectId::from_bytes([0xa5; 16]);
    views.release(&[never]).await.unwrap();
}
