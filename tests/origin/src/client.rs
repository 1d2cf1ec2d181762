//! A plain S3 client: one request at a time, as it is written, over pooled connections.

use std::time::SystemTime;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use http_body_util::{BodyExt, Full};
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use sha2::{Digest, Sha256};

use crate::options::Credentials;
use crate::signature;

const KEY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b'.');

/// A client of one server.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: String,
    credentials: Option<Credentials>,
    pool: Pool<HttpConnector, Full<Bytes>>,
    unsigned_payload: bool,
}

/// An answer, all of it.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// A header's text; empty without the header.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The text of the first element of this name in the body; empty without it. (Not for nested names.)
    pub fn element(&self, name: &str) -> String {
        self.elements(name).into_iter().next().unwrap_or_default()
    }

    /// The texts of all elements of this name, in their order, as they are written (escapes and all).
    pub fn elements(&self, name: &str) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.body);
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let texts = text.split(&open).skip(1);
        texts
            .filter_map(|rest| rest.split_once(&close))
            .map(|(text, _)| text.to_owned())
            .collect()
    }
}

impl Client {
    /// A client of the server at `endpoint`, which signs if it has credentials.
    pub fn new(endpoint: impl Into<String>, credentials: Option<Credentials>) -> Self {
        let pool = Pool::builder(TokioExecutor::new()).build_http();
        Self {
            endpoint: endpoint.into(),
            credentials,
            pool,
            unsigned_payload: false,
        }
    }

    /// The same client, which leaves bodies unsigned.
    #[must_use]
    pub fn with_unsigned_payload(self) -> Self {
        Self {
            unsigned_payload: true,
            ..self
        }
    }

    /// The server's endpoint.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Sends a request whose path and query are encoded already, and sent as they are.
    ///
    /// # Errors
    /// When the connection fails or ends before the answer does, and for a path or header that HTTP cannot carry.
    pub async fn send(
        &self,
        method: Method,
        path_and_query: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Reply> {
        let body = body.into();
        let uri: Uri = format!("{}{path_and_query}", self.endpoint).parse()?;
        let mut request = Request::builder().method(method.clone()).uri(uri.clone());
        let signed = request
            .headers_mut()
            .ok_or_else(|| anyhow::anyhow!("the request is malformed"))?;
        for (name, value) in headers {
            signed.append(
                HeaderName::from_bytes(name.as_bytes())?,
                HeaderValue::from_str(value)?,
            );
        }
        let host = uri.authority().map_or("", |authority| authority.as_str());
        signed.insert(HOST, HeaderValue::from_str(host)?);
        if let Some(credentials) = &self.credentials {
            let hash = HEXLOWER.encode(&Sha256::digest(&body));
            let hash = if self.unsigned_payload {
                signature::UNSIGNED
            } else {
                &hash
            };
            if !signed.contains_key(signature::CONTENT_SHA256) {
                signed.insert(signature::CONTENT_SHA256, HeaderValue::from_str(hash)?);
            }
            let now = signature::format_date(SystemTime::now());
            signed.insert(signature::DATE, HeaderValue::from_str(&now)?);
            let authorization = signature::sign(credentials, &method, &uri, signed);
            signed.insert(AUTHORIZATION, HeaderValue::from_str(&authorization)?);
        }
        let answer = self.pool.request(request.body(Full::new(body))?).await?;
        let (parts, body) = answer.into_parts();
        Ok(Reply {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await?.to_bytes(),
        })
    }

    /// GetObject with these headers (`range`, `if-match`, ...).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn get(
        &self,
        bucket: &str,
        key: impl AsRef<[u8]>,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Reply> {
        self.send(Method::GET, &path(bucket, key), headers, Bytes::new())
            .await
    }

    /// HeadObject.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn head(
        &self,
        bucket: &str,
        key: impl AsRef<[u8]>,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Reply> {
        self.send(Method::HEAD, &path(bucket, key), headers, Bytes::new())
            .await
    }

    /// PutObject.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn put(
        &self,
        bucket: &str,
        key: impl AsRef<[u8]>,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Reply> {
        self.send(Method::PUT, &path(bucket, key), &[], body).await
    }

    /// DeleteObject.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn delete(&self, bucket: &str, key: impl AsRef<[u8]>) -> anyhow::Result<Reply> {
        self.send(Method::DELETE, &path(bucket, key), &[], Bytes::new())
            .await
    }

    /// CreateBucket.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn create_bucket(&self, bucket: &str) -> anyhow::Result<Reply> {
        self.send(Method::PUT, &path(bucket, ""), &[], Bytes::new()).await
    }

    /// ListObjectsV2 with these parameters.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn list(&self, bucket: &str, parameters: &[(&str, &str)]) -> anyhow::Result<Reply> {
        let mut query = format!("/{bucket}?list-type=2");
        for (name, value) in parameters {
            query.push_str(&format!(
                "&{name}={}",
                percent_encode(value.as_bytes(), NON_ALPHANUMERIC)
            ));
        }
        self.send(Method::GET, &query, &[], Bytes::new()).await
    }
}

/// The encoded path of an object; dots and doubled slashes stay as they are.
fn path(bucket: &str, key: impl AsRef<[u8]>) -> String {
    let key = percent_encode(key.as_ref(), KEY).to_string();
    if key.is_empty() {
        format!("/{bucket}")
    } else {
        format!("/{bucket}/{key}")
    }
}
