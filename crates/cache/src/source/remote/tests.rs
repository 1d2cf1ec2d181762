use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutResult};

use super::*;

fn failure() -> Error {
    Error::Generic {
        store: "test",
        source: "boom".into(),
    }
}

fn kind(status: u16, code: &str) -> AttemptError {
    let code = (!code.is_empty()).then(|| code.to_owned());
    let response = ResponseHead {
        status,
        code,
        ..ResponseHead::default()
    };
    match attempt_error(&failure(), Some(response), true, None) {
        AttemptError::Denied(_) => AttemptError::Denied(String::new()),
        AttemptError::Failed(_) => AttemptError::Failed(String::new()),
        AttemptError::Permanent(_) => AttemptError::Permanent(String::new()),
        AttemptError::Missing(_) => AttemptError::Missing(String::new()),
        AttemptError::Throttled { .. } => AttemptError::Throttled {
            reason: String::new(),
            after: None,
        },
        other => other,
    }
}

#[test]
fn each_status_means_what_a_caller_may_do() {
    let throttled = AttemptError::Throttled {
        reason: String::new(),
        after: None,
    };
    let table = [
        (404, "NoSuchKey", AttemptError::Changed),
        (404, "", AttemptError::Changed),
        (404, "NoSuchBucket", AttemptError::Missing(String::new())),
        (404, "ContainerNotFound", AttemptError::Missing(String::new())),
        (410, "", AttemptError::Changed),
        (412, "PreconditionFailed", AttemptError::Changed),
        (416, "InvalidRange", AttemptError::Changed),
        (401, "", AttemptError::Denied(String::new())),
        (403, "AccessDenied", AttemptError::Denied(String::new())),
        (429, "", throttled.clone()),
        (503, "SlowDown", throttled.clone()),
        (503, "", throttled.clone()),
        (400, "SlowDown", throttled.clone()),
        (400, "ExpiredToken", AttemptError::Failed(String::new())),
        (408, "", AttemptError::Failed(String::new())),
        (500, "InternalError", AttemptError::Failed(String::new())),
        (500, "ServerBusy", throttled),
        (504, "", AttemptError::Failed(String::new())),
        (301, "PermanentRedirect", AttemptError::Permanent(String::new())),
        (206, "", AttemptError::Failed(String::new())),
    ];
    for (status, code, expected) in table {
        assert_eq!(kind(status, code), expected, "{status} {code}");
    }
}

#[test]
fn a_request_without_a_response_failed_whatever_error_object_store_returns() {
    let not_found = Error::NotFound {
        path: "token".to_owned(),
        source: "no token there".into(),
    };
    assert!(matches!(
        attempt_error(&not_found, None, true, None),
        AttemptError::Failed(_)
    ));
    assert_eq!(
        attempt_error(&not_found, None, false, None),
        AttemptError::Changed
    );
}

#[test]
fn a_strange_response_with_another_etag_is_of_another_version() {
    let expected = Validator::ETag("\"old\"".to_owned());
    let response = |etag: &str| ResponseHead {
        status: 206,
        etag: Some(etag.to_owned()),
        ..ResponseHead::default()
    };
    let changed = attempt_error(&failure(), Some(response("\"new\"")), true, Some(&expected));
    assert_eq!(changed, AttemptError::Changed);
    let failed = attempt_error(&failure(), Some(response("\"old\"")), true, Some(&expected));
    assert!(matches!(failed, AttemptError::Failed(_)));
}

#[test]
fn reasons_are_the_innermost_cause_and_short() {
    assert_eq!(reason(&failure()), "boom");
    let long = Error::Generic {
        store: "test",
        source: "x".repeat(10_000).into(),
    };
    assert_eq!(reason(&long).len(), MAX_REASON_CHARS);
}

async fn response_of(content: &'static [u8]) -> (GetResult, PutResult) {
    let store = InMemory::new();
    let put = store.put(&Path::from("a"), content.into()).await.unwrap();
    (store.get(&Path::from("a")).await.unwrap(), put)
}

#[tokio::test]
async fn the_head_of_a_response_must_match_the_request() {
    let (response, put) = response_of(b"0123").await;
    let etag = put.e_tag.unwrap();
    let time = time(&response.meta.last_modified);
    let request = |validator: Validator, size_bytes: u64| GetRequest {
        key: "a".to_owned(),
        validator,
        size_bytes,
        range: 0..size_bytes,
    };
    let unquoted = etag.trim_matches('"').to_owned();
    assert_eq!(
        check(&response, &request(Validator::ETag(etag.clone()), 4)),
        Ok(())
    );
    assert_eq!(check(&response, &request(Validator::ETag(unquoted), 4)), Ok(()));
    assert_eq!(
        check(&response, &request(Validator::ETag("\"x\"".to_owned()), 4)),
        Err(AttemptError::Changed)
    );
    assert!(matches!(
        check(&response, &request(Validator::ETag(etag), 5)),
        Err(AttemptError::Failed(_))
    ));
    assert_eq!(
        check(&response, &request(Validator::Modified { time }, 4)),
        Ok(())
    );
    assert_eq!(
        check(&response, &request(Validator::Modified { time }, 5)),
        Err(AttemptError::Changed)
    );
    let later = Time {
        secs: time.secs + 1,
        ..time
    };
    assert_eq!(
        check(&response, &request(Validator::Modified { time: later }, 4)),
        Err(AttemptError::Changed)
    );
    assert!(matches!(
        check(&response, &request(Validator::VersionId("v".to_owned()), 4)),
        Err(AttemptError::Failed(_))
    ));
}

#[test]
fn the_condition_on_a_time_holds_for_all_of_its_second() {
    let condition = |secs, nanos| unmodified_since(Time { secs, nanos });
    let next = SystemTime::UNIX_EPOCH + Duration::from_secs(1_001);
    assert_eq!(condition(1_000, 0), Some(next));
    assert_eq!(condition(1_000, 999_999_999), Some(next));
    // HTTP has no such date.
    assert_eq!(condition(-1, 0), None);
    assert_eq!(condition(i64::MAX, 0), None);
}
