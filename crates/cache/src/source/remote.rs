//! A source behind HTTP, asked by way of object_store: one GET, one page of a listing, and what their answers
//! mean.

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
    /// Answers are looked at on the wire: a request without an answer got none.
    pub(super) wired: bool,
    /// The server that somebody named in place of the provider's own.
    pub(super) endpoint: Option<String>,
}

/// How the source is listed.
pub(super) enum Lister {
    /// Page by page.
    Pages(Arc<dyn PaginatedListStore>, Dialect),
    /// A collection at a time.
    WebDav,
    /// A directory at a time, by object_store's own reading of it.
    Whole,
}

impl std::fmt::Debug for Lister {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pages(..) => "Pages",
            Self::WebDav => "WebDav",
            Self::Whole => "Whole",
        })
    }
}

impl Remote {
    /// Asks for a range of an object, and checks the head of the answer against the version asked for.
    pub(super) async fn get(
        &self,
        ask: &GetRequest,
    ) -> Result<BoxStream<'static, Result<Bytes, AttemptError>>, AttemptError> {
        let path = path_of(&ask.key)
            .ok_or_else(|| AttemptError::Hopeless("its key cannot be asked for exactly".to_owned()))?;
        let exchange = Exchange::get();
        let mut extensions = Extensions::new();
        extensions.insert(Arc::clone(&exchange));
        let whole = ask.range == (0..ask.size_bytes);
        let mut options = GetOptions {
            range: (!whole).then(|| GetRange::Bounded(ask.range.clone())),
            extensions,
            ..GetOptions::default()
        };
        match &ask.validator {
            Validator::ETag(etag) => options.if_match = Some(etag.clone()),
            Validator::VersionId(version) => options.version = Some(version.clone()),
            Validator::Modified { time } => {
                options.if_unmodified_since = unmodified_since(*time).map(Into::into);
            }
        }
        let wired = self.wired;
        let expected = ask.validator.clone();
        let result = self
            .store
            .get_opts(&path, options)
            .await
            .map_err(|error| trouble(&error, exchange.answer(), wired, Some(&expected)))?;
        check(&result, ask)?;
        Ok(result
            .into_stream()
            .map_err(|error| AttemptError::Failed(reason(&error)))
            .boxed())
    }

    /// Asks for a page of what lies directly below `prefix` (with its `/`), or, `deep`, anywhere below it.
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
                // The page was read on the wire; what object_store made of the stand-in does not matter.
                match (exchange.take_page(), result) {
                    (Some(page), _) => Ok(page),
                    (None, Err(error)) => Err(trouble(&error, exchange.answer(), true, None)),
                    (None, Ok(_)) => Err(AttemptError::Failed("the source's listing was empty".to_owned())),
                }
            }
            Lister::WebDav => self.collection(prefix).await,
            Lister::Whole => self.directory(prefix).await,
        }
    }

    /// PROPFIND of one level. The request is object_store's, the reading of the answer ours.
    async fn collection(&self, prefix: &str) -> Result<Page, AttemptError> {
        let trimmed = prefix.strip_suffix('/').unwrap_or(prefix);
        let Some(path) = path_of(trimmed) else {
            return Err(AttemptError::Hopeless(
                "its name cannot be asked for exactly".to_owned(),
            ));
        };
        let (exchange, result) =
            Exchange::around(Dialect::WebDav, self.store.list_with_delimiter(Some(&path))).await;
        let Some(page) = exchange.take_page() else {
            let answer = exchange.answer();
            return Err(match (answer.as_ref().map(|answer| answer.status), result) {
                (Some(200..=206 | 208..=299 | 400 | 405 | 501), _) => AttemptError::Unsupported(
                    "the server does not answer PROPFIND; only WebDAV servers can be listed".to_owned(),
                ),
                // object_store takes a missing collection for an empty one.
                (Some(404), _) => AttemptError::Changed,
                (_, Err(error)) => trouble(&error, answer, true, None),
                (_, Ok(_)) => AttemptError::Failed("the source's listing was empty".to_owned()),
            });
        };
        Ok(level_of(page, prefix))
    }

    async fn directory(&self, prefix: &str) -> Result<Page, AttemptError> {
        let path = Path::from(prefix);
        let result = self.store.list_with_delimiter(Some(&path)).await;
        let listed = result.map_err(|error| trouble(&error, None, false, None))?;
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

/// Of a PROPFIND answer, what lies directly below `prefix`: collections become prefixes.
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
        let askable = entry.key.strip_suffix('/').and_then(path_of).is_some();
        if askable && !entry.damaged {
            level.prefixes.push(entry.key);
        } else {
            // Not a size in sight: it counts as one thing that was left out.
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

/// Whether the answer is of the version and range asked for, whatever the server made of the conditions.
fn check(result: &GetResult, ask: &GetRequest) -> Result<(), AttemptError> {
    let meta = &result.meta;
    match &ask.validator {
        Validator::ETag(expected) => match meta.e_tag.as_deref() {
            None => return Err(AttemptError::Failed("the answer has no ETag".to_owned())),
            Some(etag) if !same_etag(etag, expected) => return Err(AttemptError::Changed),
            Some(_) => {}
        },
        Validator::VersionId(expected) => match meta.version.as_deref() {
            None => return Err(AttemptError::Failed("the answer has no version".to_owned())),
            Some(version) if version != expected => return Err(AttemptError::Changed),
            Some(_) => {}
        },
        Validator::Modified { time: expected } => {
            // HTTP's dates have whole seconds.
            if meta.last_modified.timestamp() == 0 && expected.secs != 0 {
                return Err(AttemptError::Failed(
                    "the answer has neither ETag nor Last-Modified".to_owned(),
                ));
            }
            if meta.last_modified.timestamp() != expected.secs || meta.size != ask.size_bytes {
                return Err(AttemptError::Changed);
            }
        }
    }
    if meta.size != ask.size_bytes {
        let sizes = format!(
            "the answer is of {} bytes instead of {}",
            meta.size, ask.size_bytes
        );
        return Err(AttemptError::Failed(sizes));
    }
    if result.range != ask.range {
        return Err(AttemptError::Failed(format!(
            "bytes {:?} came instead of {:?}",
            result.range, ask.range
        )));
    }
    Ok(())
}

/// Listings of some servers leave out the quotes that their answers have.
fn same_etag(one: &str, other: &str) -> bool {
    one.trim_matches('"') == other.trim_matches('"')
}

/// What an error means to whoever fetches.
fn trouble(
    error: &Error,
    answer: Option<ResponseHead>,
    wired: bool,
    expected: Option<&Validator>,
) -> AttemptError {
    let Some(answer) = answer else {
        return if wired {
            AttemptError::Failed(reason(error))
        } else {
            of_error(error)
        };
    };
    let code = answer.code.as_deref().unwrap_or_default();
    let said = match (&answer.code, &answer.message) {
        (Some(code), Some(message)) => cut(&format!("status {}, {code}: {message}", answer.status)),
        (Some(code), None) => cut(&format!("status {}, {code}", answer.status)),
        (None, _) => format!("status {}", answer.status),
    };
    let slow_down = matches!(
        code,
        "SlowDown" | "ServerBusy" | "TooManyRequests" | "RequestLimitExceeded" | "ThrottlingException"
    );
    match answer.status {
        404 if matches!(code, "NoSuchBucket" | "ContainerNotFound") => AttemptError::Missing(said),
        304 | 404 | 410 | 412 | 416 => AttemptError::Changed,
        429 | 503 => AttemptError::Throttled {
            reason: said,
            after: answer.retry_after,
        },
        _ if slow_down => AttemptError::Throttled {
            reason: said,
            after: answer.retry_after,
        },
        401 | 403 => AttemptError::Denied(said),
        // It sent all where a part was asked for.
        200 if matches!(error, Error::NotSupported { .. }) => {
            AttemptError::Hopeless("the server does not serve ranges".to_owned())
        }
        // Well answered, and not understood by object_store: a wrong range, a missing header.
        200..=299 => match (expected, &answer.etag) {
            (Some(Validator::ETag(expected)), Some(etag)) if !same_etag(etag, expected) => {
                AttemptError::Changed
            }
            _ => AttemptError::Failed(reason(error)),
        },
        300..=399 => AttemptError::Hopeless(format!("{said}: a redirect; check region and endpoint")),
        _ => AttemptError::Failed(said),
    }
}

fn of_error(error: &Error) -> AttemptError {
    match error {
        Error::NotFound { .. } | Error::Precondition { .. } | Error::NotModified { .. } => {
            AttemptError::Changed
        }
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => AttemptError::Denied(reason(error)),
        Error::InvalidPath { .. } | Error::NotImplemented { .. } | Error::UnknownConfigurationKey { .. } => {
            AttemptError::Hopeless(reason(error))
        }
        Error::Generic { .. }
        | Error::JoinError { .. }
        | Error::NotSupported { .. }
        | Error::AlreadyExists { .. } => AttemptError::Failed(reason(error)),
        // The enum may grow.
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

/// The condition that holds for an object of that time at every server: HTTP says whole seconds, and a server that knows
/// its objects' times more finely compares them as they are, while it lists them cut off. What changes within that second
/// is found by the answer's own time.
fn unmodified_since(time: Time) -> Option<SystemTime> {
    let second = u64::try_from(time.secs)
        .ok()
        .filter(|second| *second < LAST_HTTP_SECOND)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(second + 1))
}

#[cfg(test)]
mod tests;
