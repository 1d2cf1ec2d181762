//! GetObject, HeadObject, conditions, ranges.

use bytes::Bytes;
use futures::future::join_all;
use origin::{Client, data};

use super::{BUCKET, expect, expect_error};

const LEN: u64 = 100_000;
/// Before any object of these checks.
const LONG_BEFORE: &str = "Mon, 01 Jan 2024 00:00:00 GMT";

/// Puts `LEN` bytes and gives their ETag.
async fn put(client: &Client, key: &str) -> String {
    let reply = client.put(BUCKET, key, data::bytes(1, 0..LEN)).await.unwrap();
    expect(&reply, 200);
    reply.header("etag").to_owned()
}

async fn range(client: &Client, key: &str, range: &str) -> origin::Reply {
    put(client, key).await;
    client.get(BUCKET, key, &[("range", range)]).await.unwrap()
}

pub(crate) async fn an_object_reads_as_it_was_put(client: Client) {
    let etag = put(&client, "whole").await;
    let reply = client.get(BUCKET, "whole", &[]).await.unwrap();
    expect(&reply, 200);
    assert_eq!(reply.body, data::bytes(1, 0..LEN));
    assert_eq!(reply.header("etag"), etag);
    assert_eq!(etag, origin::etag(&reply.body));
    assert_eq!(reply.header("content-length"), "100000");
    assert!(httpdate::parse_http_date(reply.header("last-modified")).is_ok());
}

pub(crate) async fn an_empty_object_reads_as_empty(client: Client) {
    expect(&client.put(BUCKET, "empty", "").await.unwrap(), 200);
    let reply = client.get(BUCKET, "empty", &[]).await.unwrap();
    expect(&reply, 200);
    assert!(reply.body.is_empty());
    assert_eq!(reply.header("content-length"), "0");
}

pub(crate) async fn a_range_gives_its_bytes(client: Client) {
    let reply = range(&client, "range", "bytes=5000-5999").await;
    expect(&reply, 206);
    assert_eq!(reply.body, data::bytes(1, 5000..6000));
    assert_eq!(reply.header("content-range"), "bytes 5000-5999/100000");
    assert_eq!(reply.header("content-length"), "1000");
}

pub(crate) async fn a_range_over_the_end_is_cut(client: Client) {
    let reply = range(&client, "over-end", "bytes=99990-200000").await;
    expect(&reply, 206);
    assert_eq!(reply.body, data::bytes(1, 99_990..LEN));
    assert_eq!(reply.header("content-range"), "bytes 99990-99999/100000");
}

pub(crate) async fn an_open_range_goes_to_the_end(client: Client) {
    let reply = range(&client, "open", "bytes=99000-").await;
    expect(&reply, 206);
    assert_eq!(reply.body, data::bytes(1, 99_000..LEN));
}

pub(crate) async fn a_suffix_range_gives_the_last_bytes(client: Client) {
    let reply = range(&client, "suffix", "bytes=-10").await;
    expect(&reply, 206);
    assert_eq!(reply.body, data::bytes(1, 99_990..LEN));
    assert_eq!(reply.header("content-range"), "bytes 99990-99999/100000");
}

pub(crate) async fn a_suffix_longer_than_the_object_gives_it_all(client: Client) {
    let reply = range(&client, "long-suffix", "bytes=-200000").await;
    expect(&reply, 206);
    assert_eq!(reply.body, data::bytes(1, 0..LEN));
}

pub(crate) async fn a_range_behind_the_end_is_refused(client: Client) {
    let reply = range(&client, "behind-end", "bytes=100000-100001").await;
    expect_error(&reply, 416, "InvalidRange");
}

pub(crate) async fn head_tells_what_get_would(client: Client) {
    let etag = put(&client, "head").await;
    let reply = client.head(BUCKET, "head", &[]).await.unwrap();
    expect(&reply, 200);
    assert!(reply.body.is_empty());
    assert_eq!(reply.header("content-length"), "100000");
    assert_eq!(reply.header("etag"), etag);
    expect(&client.head(BUCKET, "no-head", &[]).await.unwrap(), 404);
}

pub(crate) async fn a_missing_key_is_named_so(client: Client) {
    expect_error(
        &client.get(BUCKET, "missing", &[]).await.unwrap(),
        404,
        "NoSuchKey",
    );
}

pub(crate) async fn a_missing_bucket_is_named_so(client: Client) {
    expect_error(
        &client.get("no-such-bucket", "key", &[]).await.unwrap(),
        404,
        "NoSuchBucket",
    );
    expect_error(
        &client.list("no-such-bucket", &[]).await.unwrap(),
        404,
        "NoSuchBucket",
    );
}

pub(crate) async fn if_match_of_the_etag_reads(client: Client) {
    let etag = put(&client, "match").await;
    let reply = client.get(BUCKET, "match", &[("if-match", &etag)]).await.unwrap();
    expect(&reply, 200);
    assert_eq!(reply.body.len() as u64, LEN);
}

pub(crate) async fn if_match_of_another_etag_fails(client: Client) {
    put(&client, "no-match").await;
    let other = "\"00000000000000000000000000000000\"";
    let reply = client
        .get(BUCKET, "no-match", &[("if-match", other)])
        .await
        .unwrap();
    expect_error(&reply, 412, "PreconditionFailed");
}

pub(crate) async fn if_none_match_of_the_etag_is_not_modified(client: Client) {
    let etag = put(&client, "none-match").await;
    let reply = client
        .get(BUCKET, "none-match", &[("if-none-match", &etag)])
        .await
        .unwrap();
    expect(&reply, 304);
    assert!(reply.body.is_empty());
}

pub(crate) async fn if_none_match_of_another_etag_reads(client: Client) {
    put(&client, "none-match-other").await;
    let other = "\"00000000000000000000000000000000\"";
    expect(
        &client
            .get(BUCKET, "none-match-other", &[("if-none-match", other)])
            .await
            .unwrap(),
        200,
    );
}

pub(crate) async fn if_modified_since_long_before_reads(client: Client) {
    put(&client, "modified").await;
    expect(
        &client
            .get(BUCKET, "modified", &[("if-modified-since", LONG_BEFORE)])
            .await
            .unwrap(),
        200,
    );
}

pub(crate) async fn if_unmodified_since_before_the_object_fails(client: Client) {
    put(&client, "unmodified").await;
    expect(
        &client
            .get(BUCKET, "unmodified", &[("if-unmodified-since", LONG_BEFORE)])
            .await
            .unwrap(),
        412,
    );
}

pub(crate) async fn a_condition_on_the_objects_own_time_holds(client: Client) {
    put(&client, "time").await;
    let time = client
        .head(BUCKET, "time", &[])
        .await
        .unwrap()
        .header("last-modified")
        .to_owned();
    expect(
        &client
            .get(BUCKET, "time", &[("if-modified-since", &time)])
            .await
            .unwrap(),
        304,
    );
    expect(
        &client
            .get(BUCKET, "time", &[("if-unmodified-since", &time)])
            .await
            .unwrap(),
        200,
    );
}

pub(crate) async fn a_condition_holds_for_a_range(client: Client) {
    let etag = put(&client, "range-match").await;
    let headers = [("range", "bytes=0-9"), ("if-match", etag.as_str())];
    let reply = client.get(BUCKET, "range-match", &headers).await.unwrap();
    expect(&reply, 206);
    assert_eq!(reply.body, data::bytes(1, 0..10));
    client
        .put(BUCKET, "range-match", data::bytes(2, 0..LEN))
        .await
        .unwrap();
    expect(&client.get(BUCKET, "range-match", &headers).await.unwrap(), 412);
}

pub(crate) async fn a_replaced_object_has_another_etag(client: Client) {
    let before = put(&client, "replaced").await;
    expect(
        &client
            .put(BUCKET, "replaced", data::bytes(2, 0..LEN))
            .await
            .unwrap(),
        200,
    );
    let reply = client.get(BUCKET, "replaced", &[]).await.unwrap();
    assert_ne!(reply.header("etag"), before);
    assert_eq!(reply.body, data::bytes(2, 0..LEN));
}

pub(crate) async fn a_deleted_object_is_gone(client: Client) {
    put(&client, "deleted").await;
    expect(&client.delete(BUCKET, "deleted").await.unwrap(), 204);
    expect(&client.get(BUCKET, "deleted", &[]).await.unwrap(), 404);
    expect(&client.delete(BUCKET, "deleted").await.unwrap(), 204);
}

pub(crate) async fn metadata_and_type_come_back(client: Client) {
    let headers = [("content-type", "image/jpeg"), ("x-amz-meta-label", "cat")];
    let path = format!("/{BUCKET}/described");
    let reply = client
        .send(hyper::Method::PUT, &path, &headers, Bytes::from_static(b"x"))
        .await
        .unwrap();
    expect(&reply, 200);
    let reply = client.head(BUCKET, "described", &[]).await.unwrap();
    assert_eq!(reply.header("content-type"), "image/jpeg");
    assert_eq!(reply.header("x-amz-meta-label"), "cat");
}

pub(crate) async fn names_that_need_escapes_read_back(client: Client) {
    for key in [
        "with space",
        "per%20cent",
        "plus+plus",
        "ünï/cödé",
        "a&b=c?d#e",
        "quote\"'<>",
        "tilde~(1)",
    ] {
        let body = Bytes::from(format!("content of {key}"));
        expect(&client.put(BUCKET, key, body.clone()).await.unwrap(), 200);
        let reply = client.get(BUCKET, key, &[]).await.unwrap();
        expect(&reply, 200);
        assert_eq!(reply.body, body, "{key}");
    }
}

pub(crate) async fn many_readers_get_right_bytes(client: Client) {
    put(&client, "shared").await;
    let reads = (0..64_u64).map(|reader| {
        let client = &client;
        async move {
            let (start, last) = (reader * 1000, reader * 1000 + 30_000);
            let asked = format!("bytes={start}-{last}");
            let reply = client
                .get(BUCKET, "shared", &[("range", asked.as_str())])
                .await
                .unwrap();
            expect(&reply, 206);
            assert_eq!(reply.body, data::bytes(1, start..(last + 1).min(LEN)));
        }
    });
    join_all(reads).await;
}

pub(crate) async fn one_connection_serves_many_requests(client: Client) {
    put(&client, "kept").await;
    for _ in 0..50 {
        let reply = client
            .get(BUCKET, "kept", &[("range", "bytes=0-9")])
            .await
            .unwrap();
        expect(&reply, 206);
        assert!(!reply.header("connection").eq_ignore_ascii_case("close"));
    }
}
