//! A look at each answer before object_store turns it into something of its own.
//!
//! object_store's errors do not say which status or error code a server sent, and its paths cannot hold every
//! key. So its HTTP client is wrapped: a request that carries an [`Exchange`] in its extensions leaves the
//! answer's status, ETag and error code there, and the parsed page if it was a listing. Error bodies and pages
//! are read up to a limit: no server makes us hold more.

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

/// Error answers are a few hundred bytes of XML.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// Longer waits are not believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

tokio::task_local! {
    static AROUND: Arc<Exchange>;
}

/// One request and what came back.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    /// Set: the answer is a listing in this dialect.
    listing: Option<Dialect>,
    answer: Mutex<Option<ResponseHead>>,
    page: Mutex<Option<Page>>,
}

/// The head of an answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    pub(crate) etag: Option<String>,
    /// The server's word for the error.
    pub(crate) code: Option<String>,
    /// The server's sentence for the error.
    pub(crate) message: Option<String>,
    pub(crate) retry_after: Option<Duration>,
}

impl Exchange {
    /// For a request that asks for an object.
    pub(crate) fn get() -> Arc<Self> {
        Arc::default()
    }

    /// For a request that asks for a page.
    pub(crate) fn listing(dialect: Dialect) -> Arc<Self> {
        Arc::new(Self {
            listing: Some(dialect),
            ..Self::default()
        })
    }

    /// Gives the one request that `future` makes an exchange, where object_store takes no extensions. Not for
    /// sources with credentials: the request for a token would leave its answer there too.
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

    /// What the server said, if it said anything.
    pub(crate) fn answer(&self) -> Option<ResponseHead> {
        self.answer.lock().clone()
    }

    /// The page that came, once.
    pub(crate) fn take_page(&self) -> Option<Page> {
        self.page.lock().take()
    }
}

/// A client that looks at answers.
#[derive(Debug)]
pub(super) struct Wire {
    /// It may be others' too.
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
            // Tokens and instance metadata: nothing to look at.
            return self.inner.execute(request).await;
        };
        let response = self.inner.execute(request).await?;
        let (parts, body) = response.into_parts();
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let mut answer = ResponseHead {
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
            answer.code = element(&error, "Code");
            answer.message = element(&error, "Message");
            *exchange.answer.lock() = Some(answer);
            // object_store wants text.
            let text = String::from_utf8_lossy(&error).into_owned();
            return Ok(HttpResponse::from_parts(parts, text.into()));
        }
        *exchange.answer.lock() = Some(answer);
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
    let mut whole = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        let room = limit.saturating_sub(whole.len());
        match chunk.get(..room) {
            Some(part) if chunk.len() > room => {
                if too_long == TooLong::Fail {
                    return Err(HttpError::new(HttpErrorKind::Decode, PageTooLong));
                }
                whole.extend_from_slice(part);
                break;
            }
            Some(_) | None => whole.extend_from_slice(&chunk),
        }
    }
    Ok(whole.freeze())
}

/// The text of the first `<name>` in an error document.
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
