//! The same checks against the real server and against the tests' own: what one of them answers, the other does.

mod listing;
mod multipart;
mod reading;
mod signatures;

use std::future::Future;

use origin::{Client, Credentials, Origin, OriginOptions, Reply, Versitygw};

/// The bucket of all checks; each uses keys of its own.
const BUCKET: &str = "conformance";

fn credentials() -> Credentials {
    Credentials::new("conformance-key", "conformance-secret")
}

/// Runs checks with a signing client of an origin.
async fn with_origin<F: Future<Output = ()>>(checks: impl FnOnce(Client) -> F) {
    let origin = Origin::start(OriginOptions::default().with_credentials(credentials()))
        .await
        .unwrap();
    origin.create_bucket(BUCKET);
    checks(Client::new(origin.url(), Some(credentials()))).await;
}

/// Runs checks with a signing client of versitygw.
async fn with_versitygw<F: Future<Output = ()>>(checks: impl FnOnce(Client) -> F) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join(BUCKET)).unwrap();
    let server = Versitygw::start(directory.path(), &credentials()).unwrap();
    checks(Client::new(server.url(), Some(server.credentials().clone()))).await;
}

/// Makes each check a test against each server.
macro_rules! conformance {
    ($($module:ident: $($check:ident),+ $(,)?;)+) => {
        mod own {
            $($(
                #[tokio::test]
                async fn $check() {
                    super::with_origin(super::$module::$check).await;
                }
            )+)+
        }
        mod versitygw {
            $($(
                #[tokio::test]
                async fn $check() {
                    super::with_versitygw(super::$module::$check).await;
                }
            )+)+
        }
    };
}

conformance! {
    reading:
        an_object_reads_as_it_was_put,
        an_empty_object_reads_as_empty,
        a_range_gives_its_bytes,
        a_range_over_the_end_is_cut,
        an_open_range_goes_to_the_end,
        a_suffix_range_gives_the_last_bytes,
        a_suffix_longer_than_the_object_gives_it_all,
        a_range_behind_the_end_is_refused,
        head_tells_what_get_would,
        a_missing_key_is_named_so,
        a_missing_bucket_is_named_so,
        if_match_of_the_etag_reads,
        if_match_of_another_etag_fails,
        if_none_match_of_the_etag_is_not_modified,
        if_none_match_of_another_etag_reads,
        if_modified_since_long_before_reads,
        if_unmodified_since_before_the_object_fails,
        a_condition_holds_for_a_range,
        a_replaced_object_has_another_etag,
        a_deleted_object_is_gone,
        metadata_and_type_come_back,
        names_that_need_escapes_read_back,
        many_readers_get_right_bytes,
        one_connection_serves_many_requests;
    listing:
        all_keys_are_listed_in_order_of_bytes,
        a_listing_has_size_and_etag,
        a_prefix_lists_its_keys_only,
        a_delimiter_rolls_up_prefixes,
        pages_join_to_the_whole,
        pages_with_a_delimiter_join_to_the_whole,
        start_after_lists_what_follows,
        a_prefix_without_keys_lists_nothing;
    multipart:
        an_upload_joins_its_parts,
        an_aborted_upload_leaves_nothing,
        a_wrong_part_is_refused,
        a_small_part_before_the_last_is_refused;
    signatures:
        a_wrong_secret_is_refused,
        an_unsigned_request_is_refused,
        an_unsigned_payload_is_accepted,
        a_body_that_is_not_the_signed_one_is_refused;
}

/// Where versitygw 1.8.0 differs from S3: it ignores `encoding-type`, an unknown key is `XAdminUserNotFound`, and it
/// compares `Last-Modified` with parts of a second that the header cannot have.
mod as_s3_and_not_versitygw {
    #[tokio::test]
    async fn url_encoding_encodes_keys() {
        super::with_origin(super::listing::url_encoding_encodes_keys).await;
    }

    #[tokio::test]
    async fn a_condition_on_the_objects_own_time_holds() {
        super::with_origin(super::reading::a_condition_on_the_objects_own_time_holds).await;
    }

    #[tokio::test]
    async fn an_unknown_key_is_refused() {
        super::with_origin(super::signatures::an_unknown_key_is_refused).await;
    }
}

/// Requires the status of an answer.
fn expect(reply: &Reply, status: u16) {
    assert_eq!(
        reply.status.as_u16(),
        status,
        "{}",
        String::from_utf8_lossy(&reply.body)
    );
}

/// Requires an error of this code.
fn expect_error(reply: &Reply, status: u16, code: &str) {
    expect(reply, status);
    assert_eq!(reply.element("Code"), code);
}
