//! Multipart uploads.

use bytes::Bytes;
use hyper::Method;
use md5::{Digest, Md5};
use origin::{Client, data};

use super::{BUCKET, expect, expect_error};

/// The smallest that S3 takes for a part that is not the last.
const PART: u64 = 5 * 1024 * 1024;

async fn create(client: &Client, key: &str) -> String {
    let path = format!("/{BUCKET}/{key}?uploads=");
    let reply = client.send(Method::POST, &path, &[], Bytes::new()).await.unwrap();
    expect(&reply, 200);
    let upload = reply.element("UploadId");
    assert!(!upload.is_empty());
    upload
}

/// Uploads a part and gives its ETag.
async fn part(client: &Client, key: &str, upload: &str, number: u32, body: Bytes) -> String {
    let path = format!("/{BUCKET}/{key}?partNumber={number}&uploadId={upload}");
    let reply = client.send(Method::PUT, &path, &[], body).await.unwrap();
    expect(&reply, 200);
    reply.header("etag").to_owned()
}

async fn complete(client: &Client, key: &str, upload: &str, parts: &[(u32, &str)]) -> origin::Reply {
    let mut body = String::from("<CompleteMultipartUpload>");
    for (number, etag) in parts {
        let etag = etag.replace('"', "&quot;");
        body.push_str(&format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        ));
    }
    body.push_str("</CompleteMultipartUpload>");
    client
        .send(
            Method::POST,
            &format!("/{BUCKET}/{key}?uploadId={upload}"),
            &[],
            body,
        )
        .await
        .unwrap()
}

pub(crate) async fn an_upload_joins_its_parts(client: Client) {
    let (first, second) = (data::bytes(1, 0..PART), data::bytes(1, PART..PART + 1000));
    let upload = create(&client, "joined").await;
    // In any order.
    let second_etag = part(&client, "joined", &upload, 2, second.clone()).await;
    let first_etag = part(&client, "joined", &upload, 1, first.clone()).await;
    expect(&client.get(BUCKET, "joined", &[]).await.unwrap(), 404);
    let reply = complete(&client, "joined", &upload, &[(1, &first_etag), (2, &second_etag)]).await;
    expect(&reply, 200);

    let reply = client.get(BUCKET, "joined", &[]).await.unwrap();
    expect(&reply, 200);
    assert_eq!(data::check(1, 0, &reply.body), Ok(()));
    assert_eq!(reply.body.len() as u64, PART + 1000);
    let digests = [Md5::digest(&first), Md5::digest(&second)].concat();
    let etag = data_encoding::HEXLOWER.encode(&Md5::digest(digests));
    assert_eq!(reply.header("etag"), format!("\"{etag}-2\""));
}

pub(crate) async fn an_aborted_upload_leaves_nothing(client: Client) {
    let upload = create(&client, "aborted").await;
    let etag = part(&client, "aborted", &upload, 1, Bytes::from_static(b"part")).await;
    let path = format!("/{BUCKET}/aborted?uploadId={upload}");
    expect(
        &client
            .send(Method::DELETE, &path, &[], Bytes::new())
            .await
            .unwrap(),
        204,
    );
    let reply = complete(&client, "aborted", &upload, &[(1, &etag)]).await;
    expect_error(&reply, 404, "NoSuchUpload");
    expect(&client.get(BUCKET, "aborted", &[]).await.unwrap(), 404);
}

pub(crate) async fn a_wrong_part_is_refused(client: Client) {
    let upload = create(&client, "wrong-part").await;
    part(&client, "wrong-part", &upload, 1, Bytes::from_static(b"part")).await;
    let other = "\"00000000000000000000000000000000\"";
    let reply = complete(&client, "wrong-part", &upload, &[(1, other)]).await;
    expect_error(&reply, 400, "InvalidPart");
}

pub(crate) async fn a_small_part_before_the_last_is_refused(client: Client) {
    let upload = create(&client, "small-part").await;
    let first = part(&client, "small-part", &upload, 1, Bytes::from_static(b"small")).await;
    let second = part(&client, "small-part", &upload, 2, Bytes::from_static(b"last")).await;
    let reply = complete(&client, "small-part", &upload, &[(1, &first), (2, &second)]).await;
    expect_error(&reply, 400, "EntityTooSmall");
}
