//! What only the tests' own server has: keys of any bytes, counters, anonymous readers, its use without a runtime.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::{ObjectStore, ObjectStoreExt};
use origin::{Body, Client, Credentials, Origin, OriginOptions, data};

const BUCKET: &str = "bucket";
/// Only a hang takes this long.
const GUARD: Duration = Duration::from_secs(60);

#[tokio::test]
async fn hostile_keys_are_keys_like_any_other() {
    let origin = Origin::start(OriginOptions::default()).await.unwrap();
    let client = Client::new(origin.url(), None);
    let long = vec![b'x'; 1024];
    let keys: [&[u8]; 13] = [
        b"../x",
        b"a/../../x",
        b"/abs",
        b"a//b",
        b"a/./b",
        b".",
        b"..",
        b"dir",
        b"dir/file",
        b"dir/",
        b"control\x01\x7f\n",
        b"invalid\xff\xfe",
        &long,
    ];
    for key in keys {
        origin.put(BUCKET, key, Bytes::copy_from_slice(key));
    }
    for key in keys {
        let reply = client.get(BUCKET, key, &[]).await.unwrap();
        assert_eq!(reply.status.as_u16(), 200, "{}", key.escape_ascii());
        assert_eq!(reply.body, key);
    }
    let reply = client.list(BUCKET, &[("encoding-type", "url")]).await.unwrap();
    let listed: Vec<Vec<u8>> = reply
        .elements("Key")
        .iter()
        .map(|key| percent_encoding::percent_decode_str(key).collect())
        .collect();
    let mut sorted = keys.map(<[u8]>::to_vec).to_vec();
    sorted.sort();
    assert_eq!(listed, sorted);
    let plain = client.list(BUCKET, &[("prefix", "control")]).await.unwrap();
    assert_eq!(plain.element("Key"), "control&#x1;&#x7f;&#xa;");
}

#[tokio::test]
async fn counters_tell_what_was_asked_and_sent() {
    let origin = Origin::start(OriginOptions::default()).await.unwrap();
    let client = Client::new(origin.url(), None);
    origin.put(BUCKET, "a", Bytes::from(vec![1; 1000]));
    origin.put(BUCKET, "b", Bytes::from(vec![2; 500]));
    client.get(BUCKET, "a", &[]).await.unwrap();
    client.get(BUCKET, "a", &[("range", "bytes=0-99")]).await.unwrap();
    client.get(BUCKET, "b", &[]).await.unwrap();
    client.head(BUCKET, "b", &[]).await.unwrap();
    client.list(BUCKET, &[]).await.unwrap();
    client.get(BUCKET, "missing", &[]).await.unwrap();
    let counters = origin.counters();
    assert_eq!(
        (counters.gets, counters.heads, counters.lists, counters.errors),
        (4, 1, 1, 1)
    );
    assert_eq!(counters.bytes_sent, 1600);
    assert_eq!(
        (
            counters.key(BUCKET, "a").gets,
            counters.key(BUCKET, "a").bytes_sent
        ),
        (2, 1100)
    );
    assert_eq!(
        (
            counters.key(BUCKET, "b").heads,
            counters.key(BUCKET, "b").bytes_sent
        ),
        (1, 500)
    );
    let remote = client
        .send(hyper::Method::GET, "/-/counters", &[], "")
        .await
        .unwrap();
    assert_eq!(
        serde_json::from_slice::<origin::Counters>(&remote.body).unwrap(),
        origin.counters()
    );
    origin.reset_counters();
    assert_eq!(
        origin.counters(),
        origin::Counters {
            connections: 0,
            ..Default::default()
        }
    );
}

#[tokio::test]
async fn a_mapped_file_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    std::fs::write(&path, data::bytes(9, 0..3_000_000)).unwrap();
    let origin = Origin::start(OriginOptions::default()).await.unwrap();
    origin.put(BUCKET, "mapped", Body::mapped(&path).unwrap());
    let client = Client::new(origin.url(), None);
    let reply = client
        .get(BUCKET, "mapped", &[("range", "bytes=1000000-")])
        .await
        .unwrap();
    assert_eq!(data::check(9, 1_000_000, &reply.body), Ok(()));
    assert_eq!(reply.body.len(), 2_000_000);
}

#[tokio::test]
async fn a_change_shows_in_etag_and_time_even_at_once() {
    let origin = Origin::start(OriginOptions::default()).await.unwrap();
    let client = Client::new(origin.url(), None);
    origin.put(BUCKET, "key", "one");
    let before = client.head(BUCKET, "key", &[]).await.unwrap();
    assert!(origin.change(BUCKET, "key", "two"));
    assert!(!origin.change(BUCKET, "absent", "two"));
    let after = client.head(BUCKET, "key", &[]).await.unwrap();
    for header in ["etag", "last-modified"] {
        assert_ne!(before.header(header), after.header(header));
    }
    assert!(origin.delete(BUCKET, "key"));
    assert!(!origin.delete(BUCKET, "key"));
    assert_eq!(
        client.head(BUCKET, "key", &[]).await.unwrap().status.as_u16(),
        404
    );
}

#[test]
fn a_spawned_origin_needs_no_runtime_and_stops_when_dropped() {
    let origin = Origin::spawn(OriginOptions::default()).unwrap();
    origin.put(BUCKET, "key", "content");
    let address = origin.address();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client = Client::new(origin.url(), None);
    let reply = runtime.block_on(client.get(BUCKET, "key", &[])).unwrap();
    assert_eq!(reply.body, "content");
    drop(origin);
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[tokio::test]
async fn object_store_reads_lists_and_writes() {
    // Another test of this process may have been first.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let credentials = Credentials::new("key", "secret");
    let origin = Origin::start(OriginOptions::default().with_credentials(credentials))
        .await
        .unwrap();
    origin.create_bucket(BUCKET);
    let store = AmazonS3Builder::new()
        .with_endpoint(origin.url())
        .with_bucket_name(BUCKET)
        .with_access_key_id("key")
        .with_secret_access_key("secret")
        .with_region("eu-west-1")
        .with_allow_http(true)
        .build()
        .unwrap();
    let checks = async {
        for index in 0..2500_u64 {
            origin.put_generated(BUCKET, format!("dir {}/file-{index:04}", index % 3), index, index);
        }
        let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
        assert_eq!(listed.len(), 2500);
        assert!(listed.iter().all(|meta| meta.e_tag.is_some()));
        assert_eq!(
            store
                .list_with_delimiter(None)
                .await
                .unwrap()
                .common_prefixes
                .len(),
            3
        );
        let path = object_store::path::Path::from("dir 1/file-2470");
        let read = store.get(&path).await.unwrap().bytes().await.unwrap();
        assert_eq!(data::check(2470, 0, &read), Ok(()));
        assert_eq!(
            store.get_range(&path, 10..20).await.unwrap(),
            data::bytes(2470, 10..20)
        );
        let written = object_store::path::Path::from("written");
        store.put(&written, "text".into()).await.unwrap();
        assert_eq!(store.head(&written).await.unwrap().size, 4);
    };
    tokio::time::timeout(GUARD, checks).await.unwrap();
}
