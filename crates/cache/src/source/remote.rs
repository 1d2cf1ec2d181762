//! A source behind HTTP, by way of object_store: one GET, one page of a listing, and what their responses mean.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use millpond_core::{Time, Validator};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{Error, Extensions, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore};

use super::page::{Dialect, Entry, Page, path_of, time};
use super::wire::{Exchange, ResponseHead};
use super::{AttemptError, Depth, GetRequest};

/// Error texts are cut to this: some servers answer with a web page.
const MAX_REASON_CHARS: usize = 300;

/// The end of the year 9999: HTTP's dates have four digits for it.
const LAST_HTTP_SECOND: u64 = 253_402_300_799;

/// A client of one bucket, container or server.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) lister: Lister,
    /// Whether responses are read on the wire: then an error without a response means that none arrived.
    pub(super) on_wire: bool,
    /// The server that is configured in place of the provider's own.
    pub(super) endpoint: Option<String>,
}

/// How the source is listed.
pub(super) enum Lister {
    /// Page by page.
    Pages(Arc<dyn PaginatedListStore>, Dialect),
    /// A collection at a time.
    WebDav,
    /// A directory at a time, as object_store lists it.
    Directory,
}

impl std::fmt::Debug for Lister {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pages(..) => "Pages",
            Self::WebDav => "WebDav",
            Self::Directory => "Directory",
        })
    }
}

impl Remote {
    /// Requests a range of an object, and checks the head of the response against the requested version.
    pub(super) async fn get(
        &self,
        request: &GetRequest,
    ) -> Result<BoxStream<'static, Result<Bytes, AttemptError>>, AttemptError> {
        let path = path_of(&request.key).ok_or_else(|| {
            AttemptError::Permanent("the client cannot request exactly this key".to_owned())
        })?;
        let exchange = Exchange::get();
        let mut extensions = Extensions::new();
        extensions.insert(Arc::clone(&exchange));
        let is_complete = request.range == (0..request.size_bytes);
        let mut options = GetOptions {
            range: (!is_complete).then(|| GetRange::Bounded(request.range.clone())),
            extensions,
            ..GetOptions::default()
        };
        match &request.validator {
            Validator::ETag(etag) => options.if_match = Some(etag.clone()),
            Validator::VersionId(version) => options.version = Some(version.clone()),
            Validator::Modified { time } => {
                options.if_unmodified_since = unmodified_since(*time).map(Into::into);
            }
        }
        let on_wire = self.on_wire;
        let expected = request.validator.clone();
        let result = self
            .store
            .get_opts(&path, options)
            .await
            .map_err(|error| attempt_error(&error, exchange.response(), on_wire, Some(&expected)))?;
        check(&result, request)?;
        Ok(result
            .into_stream()
            .map_err(|error| AttemptError::Failed(reason(&error)))
            .boxed())
    }

    /// Requests a page of the level directly below `prefix` (with its `/`), or of the whole tree below it.
    pub(super) async fn page(
        &self,
        prefix: &str,
        depth: Depth,
        token: Option<String>,
    ) -> Result<Page, AttemptError> {
        match &self.lister {
            Lister::Pages(store, dialect) => {
                let exchange = Exchange::listing(*dialect);
                let mut extensions = Extensions::new();
                extensions.insert(Arc::clone(&exchange));
                let options = PaginatedListOptions {
                    delimiter: (depth == Depth::Level).then_some(Cow::Borrowed("/")),
                    page_token: token,
                    extensions,
                    ..PaginatedListOptions::default()
                };
                let prefix = (!prefix.is_empty()).then_some(prefix);
                let result = store.list_paginated(prefix, options).await;
                // The page was parsed on the wire; what object_store made of the stand-in does not matter.
                match (exchange.take_page(), result) {
                    (Some(page), _) => Ok(page),
                    (None, Err(error)) => Err(attempt_error(&error, exchange.response(), true, None)),
                    (None, Ok(_)) => Err(AttemptError::Failed("the source's listing was empty".to_owned())),
                }
            }
            Lister::WebDav => self.collection(prefix).await,
            Lister::Directory => self.directory(prefix).await,
        }
    }

    /// Lists one level by PROPFIND. object_store sends the request; the response is parsed here.
    async fn collection(&self, prefix: &str) -> Result<Page, AttemptError> {
        let trimmed = prefix.strip_suffix('/').unwrap_or(prefix);
        let Some(path) = path_of(trimmed) else {
            return Err(AttemptError::Permanent(
                "the client cannot request exactly this name".to_owned(),
            ));
        };
        let (exchange, result) =
            Exchange::around(Dialect::WebDav, self.store.list_with_delimiter(Some(&path))).await;
        let Some(page) = exchange.take_page() else {
            let response = exchange.response();
            return Err(
                match (response.as_ref().map(|response| response.status), result) {
                    (Some(200..=206 | 208..=299 | 400 | 405 | 501), _) => AttemptError::Unsupported(
                        "the server does not answer PROPFIND; only WebDAV servers can be listed".to_owned(),
                    ),
                    // object_store reports a missing collection as an empty one.
                    (Some(404), _) => AttemptError::Changed,
                    (_, Err(error)) => attempt_error(&error, response, true, None),
                    (_, Ok(_)) => AttemptError::Failed("the source's listing was empty".to_owned()),
                },
            );
        };
        Ok(level_of(page, prefix))
    }

    async fn directory(&self, prefix: &str) -> Result<Page, AttemptError> {
        let path = Path::from(prefix);
        let result = self.store.list_with_delimiter(Some(&path)).await;
        let listed = result.map_err(|error| attempt_error(&error, None, false, None))?;
        Ok(Page {
            entries: listed.objects.into_iter().map(entry).collect(),
            prefixes: listed
                .common_prefixes
                .into_iter()
                .map(|path| format!("{path}/"))
                .collect(),
            next: None,
        })
    }
}

/// Returns what lies directly below `prefix` in a PROPFIND response: collections become prefixes.
fn level_of(page: Page, prefix: &str) -> Page {
    let mut level = Page::default();
    for mut entry in page.entries {
        if !entry.directory {
            level.entries.push(entry);
            continue;
        }
        if !entry.key.ends_with('/') {
            entry.key.push('/');
        }
        // The collection itself comes first.
        if entry.key == prefix || entry.key == "/" {
            continue;
        }
        let requestable = entry.key.strip_suffix('/').and_then(path_of).is_some();
        if requestable && !entry.damaged {
            level.prefixes.push(entry.key);
        } else {
            // It has no size: it counts as one entry that was left out.
            entry.damaged = true;
            level.entries.push(entry);
        }
    }
    level
}

fn entry(meta: ObjectMeta) -> Entry {
    let ObjectMeta {
        location,
        last_modified,
        size,
        e_tag,
        version,
    } = meta;
    Entry {
        key: location.into(),
        size_bytes: Some(size),
        modified: Some(time(&last_modified)),
        etag: e_tag,
        version,
        ..Entry::default()
    }
}

/// Checks that the response is of the requested version and range, whatever the server did with the conditions.
fn check(result: &GetResult, request: &GetRequest) -> Result<(), AttemptError> {
    let meta = &result.meta;
    match &request.validator {
        Validator::ETag(expected) => match meta.e_tag.as_deref() {
            None => return Err(AttemptError::Failed("the response has no ETag".to_owned())),
            Some(etag) if !same_etag(etag, expected) => return Err(AttemptError::Changed),
            Some(_) => {}
        },
        Validator::VersionId(expected) => match meta.version.as_deref() {
            None => return Err(AttemptError::Failed("the response has no version".to_owned())),
            Some(version) if version != expected => return Err(AttemptError::Changed),
            Some(_) => {}
        },
        Validator::Modified { time: expected } => {
            // HTTP dates have whole seconds.
            if meta.last_modified.timestamp() == 0 && expected.secs != 0 {
                return Err(AttemptError::Failed(
                    "the response has neither ETag nor Last-Modified".to_owned(),
                ));
            }
            if meta.last_modified.timestamp() != expected.secs || meta.size != request.size_bytes {
                return Err(AttemptError::Changed);
            }
        }
    }
    if meta.size != request.size_bytes {
        let sizes = format!(
            "the response is of {} bytes instead of {}",
            meta.size, request.size_bytes
        );
        return Err(AttemptError::Failed(sizes));
    }
    if result.range != request.range {
        return Err(AttemptError::Failed(format!(
            "bytes {:?} arrived instead of {:?}",
            result.range, request.range
        )));
    }
    Ok(())
}

/// Listings of some servers leave out the quotes that their responses have.
fn same_etag(one: &str, other: &str) -> bool {
    one.trim_matches('"') == other.trim_matches('"')
}

/// Returns what an error means to the caller of a fetch.
fn attempt_error(
    error: &Error,
    response: Option<ResponseHead>,
    on_wire: bool,
    expected: Option<&Validator>,
) -> AttemptError {
    let Some(response) = response else {
        return if on_wire {
            AttemptError::Failed(reason(error))
        } else {
            of_error(error)
        };
    };
    let code = response.code.as_deref().unwrap_or_default();
    let described = match (&response.code, &response.message) {
        (Some(code), Some(message)) => cut(&format!("status {}, {code}: {message}", response.status)),
        (Some(code), None) => cut(&format!("status {}, {code}", response.status)),
        (None, _) => format!("status {}", response.status),
    };
    let slow_down = matches!(
        code,
        "SlowDown" | "ServerBusy" | "TooManyRequests" | "RequestLimitExceeded" | "ThrottlingException"
    );
    match response.status {
        404 if matches!(code, "NoSuchBucket" | "ContainerNotFound") => AttemptError::Missing(described),
        304 | 404 | 410 | 412 | 416 => AttemptError::Changed,
        429 | 503 => AttemptError::Throttled {
            reason: described,
            after: response.retry_after,
        },
        _ if slow_down => AttemptError::Throttled {
            reason: described,
            after: response.retry_after,
        },
        401 | 403 => AttemptError::Denied(described),
        // The server sent everything where a range was requested.
        200 if matches!(error, Error::NotSupported { .. }) => {
            AttemptError::Permanent("the server does not serve ranges".to_owned())
        }
        // A success that object_store rejected: a wrong range, a missing header.
        200..=299 => match (expected, &response.etag) {
            (Some(Validator::ETag(expected)), Some(etag)) if !same_etag(etag, expected) => {
                AttemptError::Changed
            }
            _ => AttemptError::Failed(reason(error)),
        },
        300..=399 => AttemptError::Permanent(format!("{described}: a redirect; check region and endpoint")),
        _ => AttemptError::Failed(described),
    }
}

fn of_error(error: &Error) -> AttemptError {
    match error {
        Error::NotFound { .. } | Error::Precondition { .. } | Error::NotModified { .. } => {
            AttemptError::Changed
        }
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => AttemptError::Denied(reason(error)),
        Error::InvalidPath { .. } | Error::NotImplemented { .. } | Error::UnknownConfigurationKey { .. } => {
            AttemptError::Permanent(reason(error))
        }
        Error::Generic { .. }
        | Error::JoinError { .. }
        | Error::NotSupported { .. }
        | Error::AlreadyExists { .. } => AttemptError::Failed(reason(error)),
        // The enum is non-exhaustive.
        _ => AttemptError::Failed(reason(error)),
    }
}

/// The innermost cause: the outer ones repeat it.
fn reason(error: &Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    cut(&innermost.to_string())
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_REASON_CHARS).collect()
}

/// Returns a condition that holds for an object of that time at every server: HTTP dates have whole seconds, and a
/// server that stores finer times compares them as they are, while it lists them truncated. A change within that
/// second is detected by the time in the response.
fn unmodified_since(time: Time) -> Option<SystemTime> {
    let second = u64::try_from(time.secs)
        .ok()
        .filter(|second| *second < LAST_HTTP_SECOND)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(second + 1))
}

#[cfg(test)]
mod tests;
