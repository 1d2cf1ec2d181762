//! Conditional requests: If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since.

use std::time::SystemTime;

use hyper::header::{HeaderMap, HeaderName};
use hyper::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};

use crate::error::Code;
use crate::object::{ETag, Object};

/// Whether a GET or HEAD of `object` may proceed, in the order of RFC 9110, section 13.2.2.
pub(crate) fn for_reading(headers: &HeaderMap, object: &Object) -> Result<(), Code> {
    let changed_since = |name| time(headers, name).map(|since| object.modified > since);
    match matches(headers, IF_MATCH, &object.etag) {
        Some(false) => return Err(Code::PreconditionFailed),
        Some(true) => {}
        None if changed_since(IF_UNMODIFIED_SINCE) == Some(true) => return Err(Code::PreconditionFailed),
        None => {}
    }
    match matches(headers, IF_NONE_MATCH, &object.etag) {
        Some(true) => Err(Code::NotModified),
        Some(false) => Ok(()),
        None if changed_since(IF_MODIFIED_SINCE) == Some(false) => Err(Code::NotModified),
        None => Ok(()),
    }
}

/// Whether a PUT or the completion of an upload may replace `existing`.
pub(crate) fn for_writing(headers: &HeaderMap, existing: Option<&Object>) -> Result<(), Code> {
    if headers.contains_key(IF_MATCH) {
        let Some(object) = existing else {
            return Err(Code::NoSuchKey);
        };
        if matches(headers, IF_MATCH, &object.etag) == Some(false) {
            return Err(Code::PreconditionFailed);
        }
    }
    match existing {
        Some(object) if matches(headers, IF_NONE_MATCH, &object.etag) == Some(true) => {
            Err(Code::PreconditionFailed)
        }
        _ => Ok(()),
    }
}

/// Whether the header's list of ETags names this one; `None` without the header.
fn matches(headers: &HeaderMap, name: HeaderName, etag: &ETag) -> Option<bool> {
    let listed = headers.get(name)?.to_str().ok()?;
    let text = etag.to_string();
    Some(listed.split(',').any(|one| {
        let one = one.trim();
        one == "*" || one.trim_start_matches("W/").trim_matches('"') == text
    }))
}

/// A header that is not a date counts as absent.
fn time(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}
