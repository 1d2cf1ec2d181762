//! Who is let in.

use origin::{Client, Credentials};

use super::{BUCKET, credentials, expect, expect_error};

/// A client of the same server with other credentials.
fn other(client: &Client, credentials: Option<Credentials>) -> Client {
    Client::new(client.endpoint(), credentials)
}

pub(crate) async fn a_wrong_secret_is_refused(client: Client) {
    let wrong = other(
        &client,
        Some(Credentials::new("conformance-key", "another-secret")),
    );
    expect_error(
        &wrong.get(BUCKET, "any", &[]).await.unwrap(),
        403,
        "SignatureDoesNotMatch",
    );
}

pub(crate) async fn an_unknown_key_is_refused(client: Client) {
    let unknown = other(&client, Some(Credentials::new("nobody", "conformance-secret")));
    expect_error(
        &unknown.get(BUCKET, "any", &[]).await.unwrap(),
        403,
        "InvalidAccessKeyId",
    );
}

pub(crate) async fn an_unsigned_request_is_refused(client: Client) {
    expect_error(
        &other(&client, None).get(BUCKET, "any", &[]).await.unwrap(),
        403,
        "AccessDenied",
    );
}

pub(crate) async fn an_unsigned_payload_is_accepted(client: Client) {
    let unsigned = other(&client, Some(credentials())).with_unsigned_payload();
    expect(
        &unsigned.put(BUCKET, "unsigned-payload", "content").await.unwrap(),
        200,
    );
    let reply = unsigned.get(BUCKET, "unsigned-payload", &[]).await.unwrap();
    expect(&reply, 200);
    assert_eq!(reply.body, "content");
}

pub(crate) async fn a_body_that_is_not_the_signed_one_is_refused(client: Client) {
    let hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let headers = [("x-amz-content-sha256", hash)];
    let path = format!("/{BUCKET}/another-body");
    let reply = client
        .send(hyper::Method::PUT, &path, &headers, "not empty")
        .await
        .unwrap();
    expect_error(&reply, 400, "XAmzContentSHA256Mismatch");
    expect(&client.get(BUCKET, "another-body", &[]).await.unwrap(), 404);
}
