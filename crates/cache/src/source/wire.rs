//! Reading each response before object_store does.
//!
//! object_store's errors do not carry the status or error code that a server sent, and its paths cannot hold every
//! key. So its HTTP client is wrapped: a request that carries an [`Exchange`] in its extensions leaves the
//! response's status, ETag and error code there, and the parsed page if it was a listing. Error bodies and pages
//! are read up to a limit: no server makes the process hold more.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::client::{
    HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use parking_lot::Mutex;

use super::page::{Dialect, Page};

/// More than a page of 5,000 keys of 1,024 bytes, each escaped sixfold.
const MAX_PAGE_BYTES: usize = 64 << 20;

/// Error bodies are a few hundred bytes of XML.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// Longer waits are capped to this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

tokio::task_local! {
    static AROUND: Arc<Exchange>;
}

/// One request and its response.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    /// Set: the response is a listing in this dialect.
    listing: Option<Dialect>,
    response: Mutex<Option<ResponseHead>>,
    page: Mutex<Option<Page>>,
}

/// The head of a response.
#[derive(Clone, Debug, Default)]
pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    pub(crate) etag: Option<String>,
    /// The server's error code.
    pub(crate) code: Option<String>,
    /// The server's error message.
    pub(crate) message: Option<String>,
    pub(crate) retry_after: Option<Duration>,
}

impl Exchange {
    /// Returns an exchange for a request for an object.
    pub(crate) fn get() -> Arc<Self> {
        Arc::default()
    }

    /// Returns an exchange for a request for a page.
    pub(crate) fn listing(dialect: Dialect) -> Arc<Self> {
        Arc::new(Self {
            listing: Some(dialect),
            ..Self::default()
        })
    }

    /// Attaches an exchange to the one request that `future` sends, where object_store takes no extensions. Not for
    /// sources with credentials: the request for a token would record its response there too.
    pub(crate) async fn around<F: Future>(dialect: Dialect, future: F) -> (Arc<Self>, F::Output) {
        let exchange = Self::listing(dialect);
        let output = AROUND.scope(Arc::clone(&exchange), future).await;
        (exchange, output)
    }

    fn of(request: &HttpRequest) -> Option<Arc<Self>> {
        request
            .extensions()
            .get::<Arc<Self>>()
            .map(Arc::clone)
            .or_else(|| AROUND.try_with(Arc::clone).ok())
    }

    /// Returns the head of the response, if one arrived.
    pub(crate) fn response(&self) -> Option<ResponseHead> {
        self.response.lock().clone()
    }

    /// Takes the page that arrived.
    pub(crate) fn take_page(&self) -> Option<Page> {
        self.page.lock().take()
    }
}

/// A client that reads responses.
#[derive(Debug)]
pub(super) struct Wire {
    /// Possibly shared with other sources.
    inner: Arc<HttpClient>,
}

impl Wire {
    pub(super) fn new(inner: Arc<HttpClient>) -> Self {
        Self { inner }
    }
}

#[async_trait]
impl HttpService for Wire {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let Some(exchange) = Exchange::of(&request) else {
            // Requests for tokens and instance metadata: nothing to read.
            return self.inner.execute(request).await;
        };
        let response = self.inner.execute(request).await?;
        let (parts, body) = response.into_parts();
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let mut head = ResponseHead {
            status: parts.status.as_u16(),
            etag: header("etag").map(str::to_owned),
            retry_after: header("retry-after")
                .and_then(|seconds| seconds.parse().ok())
                .map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER)),
            ..ResponseHead::default()
        };
        if !parts.status.is_success() {
            let error = read(body, MAX_ERROR_BYTES, TooLong::Cut)
                .await
                .unwrap_or_default();
            head.code = element(&error, "Code");
            head.message = element(&error, "Message");
            *exchange.response.lock() = Some(head);
            // object_store expects text.
            let text = String::from_utf8_lossy(&error).into_owned();
            return Ok(HttpResponse::from_parts(parts, text.into()));
        }
        *exchange.response.lock() = Some(head);
        let Some(dialect) = exchange.listing else {
            return Ok(HttpResponse::from_parts(parts, body));
        };
        let xml = read(body, MAX_PAGE_BYTES, TooLong::Fail).await?;
        let page =
            Page::parse(&xml, dialect).map_err(|error| HttpError::new(HttpErrorKind::Decode, error))?;
        let stand_in = page.stand_in(dialect);
        *exchange.page.lock() = Some(page);
        Ok(HttpResponse::from_parts(parts, stand_in.into()))
    }
}

/// What to do with a body beyond the limit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TooLong {
    Cut,
    Fail,
}

/// The listing is larger than any page is.
#[derive(Debug)]
struct PageTooLong;

impl fmt::Display for PageTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a page of the source's listing is longer than {MAX_PAGE_BYTES} bytes"
        )
    }
}

impl std::error::Error for PageTooLong {}

async fn read(body: HttpResponseBody, limit: usize, too_long: TooLong) -> Result<Bytes, HttpError> {
    let mut stream = body.bytes_stream();
    let mut content = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        let space = limit.saturating_sub(content.len());
        match chunk.get(..space) {
            Some(part) if chunk.len() > space => {
                if too_long == TooLong::Fail {
                    return Err(HttpError::new(HttpErrorKind::Decode, PageTooLong));
                }
                content.extend_from_slice(part);
                break;
            }
            Some(_) | None => content.extend_from_slice(&chunk),
        }
    }
    Ok(content.freeze())
}

/// Returns the text of the first `<name>` in an error document.
fn element(xml: &[u8], name: &str) -> Option<String> {
    let xml = String::from_utf8_lossy(xml);
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once("</")?;
    Some(text.trim().chars().take(200).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_document_gives_its_code_and_message() {
        let xml = b"<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Reduce.</Message></Error>";
        assert_eq!(element(xml, "Code").as_deref(), Some("SlowDown"));
        assert_eq!(element(xml, "Message").as_deref(), Some("Reduce."));
        assert_eq!(element(b"<Code>cut off", "Code"), None);
        assert_eq!(element(b"\xff\xfe", "Code"), None);
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_cut_or_refused() {
        let body = || HttpResponseBody::from(vec![7_u8; 100]);
        assert_eq!(read(body(), 100, TooLong::Fail).await.unwrap().len(), 100);
        assert_eq!(read(body(), 40, TooLong::Cut).await.unwrap().len(), 40);
        assert!(read(body(), 40, TooLong::Fail).await.is_err());
    }
}
