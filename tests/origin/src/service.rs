//! Requests and answers: what S3 says to each operation.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use crate::condition;
use crate::content::Content;
use crate::counters::{Meter, Recorder};
use crate::error::{Code, Refusal};
use crate::fault::{Effects, Faults};
use crate::list::ListQuery;
use crate::multipart::{Assembled, Uploads};
use crate::object::{Body, Description, Object};
use crate::operation::{Operation, Query, Target};
use crate::options::Credentials;
use crate::pace::Pace;
use crate::range::{self, Asked};
use crate::serve::Connection;
use crate::signature;
use crate::store::Store;
use crate::xml::Document;

/// Everything that a running origin knows.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) credentials: Option<Credentials>,
    pub(crate) store: Store,
    pub(crate) uploads: Uploads,
    pub(crate) counters: Recorder,
    pub(crate) faults: Faults,
    pub(crate) pace: Arc<Pace>,
}

/// A request, taken apart.
struct Call<'a> {
    target: Target,
    operation: Operation,
    headers: &'a HeaderMap,
    meter: Option<Meter>,
}

impl Service {
    pub(crate) fn new(credentials: Option<Credentials>) -> Self {
        Self {
            credentials,
            store: Store::default(),
            uploads: Uploads::default(),
            counters: Recorder::default(),
            faults: Faults::default(),
            pace: Arc::default(),
        }
    }

    /// Answers a request. An error closes the connection without an answer.
    pub(crate) async fn answer(
        &self,
        connection: &Arc<Connection>,
        request: Request<Incoming>,
    ) -> io::Result<Response<Content>> {
        if let Some(answer) = self.control(&request) {
            return Ok(answer);
        }
        let latency = self.pace.latency();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let (parts, body) = request.into_parts();
        let target = Target::parse(&parts.uri);
        let path = target.path();
        let query = Query::parse(parts.uri.query());
        let parsed = Operation::parse(&parts.method, &target, &query, &parts.headers);
        let mut effects = Effects::default();
        let answer = match parsed {
            Err(refusal) => Err(refusal),
            Ok(operation) => {
                let kind = operation.kind();
                let about = match &operation {
                    Operation::List(list) => crate::operation::join(&target.bucket, list.prefix()),
                    _ => path.clone(),
                };
                effects = self.faults.effects(kind, &about);
                let meter = self.counters.request(kind, &path);
                let call = Call {
                    target,
                    operation,
                    headers: &parts.headers,
                    meter,
                };
                match self.admit(&effects, &parts.method, &parts.uri, &query, &parts.headers) {
                    Err(refusal) => Err(refusal),
                    Ok(()) => self.perform(call, &effects, body).await,
                }
            }
        };
        let mut answer = answer.unwrap_or_else(|refusal| refused(&refusal, &parts.method, &path));
        if answer.status().as_u16() >= 400 {
            self.counters.error();
        }
        answer
            .body_mut()
            .over(&self.pace, effects.trickle, effects.cut, connection);
        Ok(answer)
    }

    /// The requests of a test to a server in another process; no bucket has the name `-`.
    fn control(&self, request: &Request<Incoming>) -> Option<Response<Content>> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/-/counters") => {
                let text = serde_json::to_vec(&self.counters.snapshot()).expect("counters are plain data");
                Some(Response::new(Content::bytes(text)))
            }
            (&Method::POST, "/-/reset") => {
                self.counters.reset();
                Some(Response::new(Content::empty()))
            }
            _ => None,
        }
    }

    fn admit(
        &self,
        effects: &Effects,
        method: &Method,
        uri: &hyper::Uri,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        if effects.gone {
            return Err(Refusal::new(Code::InternalError, "a fault"));
        }
        if effects.slow_down {
            return Err(Refusal::new(Code::SlowDown, "please reduce your request rate"));
        }
        match &self.credentials {
            Some(credentials) => {
                signature::check(credentials, method, uri, query, headers, SystemTime::now())
            }
            None => Ok(()),
        }
    }

    async fn perform(
        &self,
        call: Call<'_>,
        effects: &Effects,
        body: Incoming,
    ) -> Result<Response<Content>, Refusal> {
        let Call {
            target,
            operation,
            headers,
            meter,
        } = call;
        let Target { bucket, key } = &target;
        match operation {
            Operation::GetObject => self.get(&target, headers, effects, meter),
            Operation::HeadObject => self.head(&target, headers, effects),
            Operation::List(list) => self.list(bucket, &list),
            Operation::HeadBucket => {
                self.store.has_bucket(bucket)?;
                Ok(Response::new(Content::empty()))
            }
            Operation::CreateBucket => {
                if !self.store.create_bucket(bucket) {
                    return Err(Code::BucketAlreadyOwnedByYou.into());
                }
                Ok(Response::new(Content::empty()))
            }
            Operation::PutObject => {
                let body = received(headers, body).await?;
                let mut object = Object::new(Body::Bytes(body), SystemTime::now());
                object.described = described(headers);
                let etag = object.etag;
                self.store
                    .put(bucket, key, object, |old| condition::for_writing(headers, old))?;
                Ok(with_etag(Response::new(Content::empty()), &etag.quoted()))
            }
            Operation::DeleteObject => {
                self.store.delete(bucket, key)?;
                Ok(status(StatusCode::NO_CONTENT))
            }
            Operation::CreateUpload => {
                self.store.has_bucket(bucket)?;
                let id = self.uploads.create(target.path(), described(headers));
                let names = [
                    ("Bucket", bucket.as_bytes()),
                    ("Key", key),
                    ("UploadId", id.as_bytes()),
                ];
                Ok(document("InitiateMultipartUploadResult", &names))
            }
            Operation::UploadPart { upload, number } => {
                let body = received(headers, body).await?;
                let etag = self.uploads.part(&upload, &target.path(), number, body)?;
                Ok(with_etag(Response::new(Content::empty()), &etag.quoted()))
            }
            Operation::CompleteUpload { upload } => {
                let request = received(headers, body).await?;
                self.complete(&target, headers, &upload, &request)
            }
            Operation::AbortUpload { upload } => {
                self.uploads.abort(&upload, &target.path())?;
                Ok(status(StatusCode::NO_CONTENT))
            }
        }
    }

    fn get(
        &self,
        target: &Target,
        headers: &HeaderMap,
        effects: &Effects,
        meter: Option<Meter>,
    ) -> Result<Response<Content>, Refusal> {
        let object = self.store.get(&target.bucket, &target.key)?;
        if !effects.wrong_etag {
            condition::for_reading(headers, &object)?;
        }
        let len = object.body.len();
        let asked = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
        let (code, range) = match range::asked(asked, len) {
            Asked::Whole => (StatusCode::OK, 0..len),
            Asked::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
            Asked::Unsatisfiable => return Ok(unsatisfiable(len, &target.path())),
        };
        if effects.change {
            self.store.change(&target.bucket, &target.key, changed);
        }
        let mut answer = Response::new(Content::new(object.body.clone(), range.clone(), meter));
        *answer.status_mut() = code;
        describe(answer.headers_mut(), &object, effects);
        if code == StatusCode::PARTIAL_CONTENT {
            let last = range.end.saturating_sub(1);
            let text = format!("bytes {}-{last}/{len}", range.start);
            answer.headers_mut().insert(header::CONTENT_RANGE, value(&text));
        }
        answer.body_mut().lengthen(effects.longer_by);
        let length = HeaderValue::from(answer.body().remaining());
        answer.headers_mut().insert(header::CONTENT_LENGTH, length);
        Ok(answer)
    }

    fn head(
        &self,
        target: &Target,
        headers: &HeaderMap,
        effects: &Effects,
    ) -> Result<Response<Content>, Refusal> {
        let object = self.store.get(&target.bucket, &target.key)?;
        if !effects.wrong_etag {
            condition::for_reading(headers, &object)?;
        }
        let mut answer = Response::new(Content::empty());
        describe(answer.headers_mut(), &object, effects);
        answer
            .headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from(object.body.len()));
        Ok(answer)
    }

    fn list(&self, bucket: &str, list: &ListQuery) -> Result<Response<Content>, Refusal> {
        let page = self.store.objects(bucket, |objects| list.page(objects))?;
        Ok(xml(Response::new(Content::bytes(list.document(bucket, &page)))))
    }

    fn complete(
        &self,
        target: &Target,
        headers: &HeaderMap,
        upload: &str,
        request: &[u8],
    ) -> Result<Response<Content>, Refusal> {
        let path = target.path();
        let Assembled {
            body,
            etag,
            described,
        } = self.uploads.assemble(upload, &path, request)?;
        let object = Object {
            etag,
            described,
            ..Object::new(Body::Bytes(body), SystemTime::now())
        };
        let Target { bucket, key } = target;
        self.store
            .put(bucket, key, object, |old| condition::for_writing(headers, old))?;
        self.uploads.abort(upload, &path)?;
        let etag = etag.quoted();
        let location = [b"/", path.as_slice()].concat();
        let names = [
            ("Location", location.as_slice()),
            ("Bucket", bucket.as_bytes()),
            ("Key", key),
            ("ETag", etag.as_bytes()),
        ];
        Ok(document("CompleteMultipartUploadResult", &names))
    }
}

/// Other content of the same length.
fn changed(object: &Object) -> Body {
    let etag = object.etag.to_string();
    let seed = etag.bytes().fold(0_u64, |seed, byte| {
        seed.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    Body::generated(seed, object.body.len())
}

/// Takes a request's body and checks its hashes.
async fn received(headers: &HeaderMap, body: Incoming) -> Result<Bytes, Refusal> {
    let body = body
        .collect()
        .await
        .map_err(|_cut| Code::IncompleteBody)?
        .to_bytes();
    signature::check_body(headers, &body)?;
    if let Some(digest) = headers.get("content-md5") {
        let ours = data_encoding::BASE64.encode(&md5_of(&body));
        if digest.as_bytes() != ours.as_bytes() {
            return Err(Code::BadDigest.into());
        }
    }
    Ok(body)
}

fn md5_of(body: &[u8]) -> [u8; 16] {
    use md5::Digest;
    md5::Md5::digest(body).into()
}

/// What an upload says of itself.
fn described(headers: &HeaderMap) -> Option<Arc<Description>> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let metadata = headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-amz-meta-"));
    let metadata: Vec<_> = metadata
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect();
    let content_type = headers.get(header::CONTENT_TYPE).map(text);
    if metadata.is_empty() && content_type.is_none() {
        return None;
    }
    Some(Arc::new(Description {
        content_type,
        metadata,
    }))
}

/// Puts what is known of an object into the headers of an answer.
fn describe(headers: &mut HeaderMap, object: &Object, effects: &Effects) {
    let etag = if effects.wrong_etag {
        object.etag.wrong()
    } else {
        object.etag
    };
    headers.insert(header::ETAG, value(&etag.quoted()));
    headers.insert(
        header::LAST_MODIFIED,
        value(&httpdate::fmt_http_date(object.modified)),
    );
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let content_type = object
        .described
        .as_ref()
        .and_then(|described| described.content_type.as_deref());
    headers.insert(
        header::CONTENT_TYPE,
        value(content_type.unwrap_or("binary/octet-stream")),
    );
    for (name, text) in object.described.iter().flat_map(|described| &described.metadata) {
        if let Ok(name) = header::HeaderName::from_bytes(name.as_bytes()) {
            headers.insert(name, value(text));
        }
    }
}

fn refused(refusal: &Refusal, method: &Method, path: &[u8]) -> Response<Content> {
    let bodyless = *method == Method::HEAD || refusal.code == Code::NotModified;
    let content = if bodyless {
        Content::empty()
    } else {
        Content::bytes(refusal.document(path))
    };
    let mut answer = Response::new(content);
    *answer.status_mut() = refusal.code.status();
    if bodyless { answer } else { xml(answer) }
}

fn unsatisfiable(len: u64, path: &[u8]) -> Response<Content> {
    let mut answer = refused(&Code::InvalidRange.into(), &Method::GET, path);
    answer
        .headers_mut()
        .insert(header::CONTENT_RANGE, value(&format!("bytes */{len}")));
    answer
}

fn document(root: &str, texts: &[(&str, &[u8])]) -> Response<Content> {
    let mut document = Document::new();
    document.open_root(root);
    for (name, text) in texts {
        document.text(name, text);
    }
    document.close(root);
    xml(Response::new(Content::bytes(document.finish())))
}

fn xml(mut answer: Response<Content>) -> Response<Content> {
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    answer
}

fn status(code: StatusCode) -> Response<Content> {
    let mut answer = Response::new(Content::empty());
    *answer.status_mut() = code;
    answer
}

fn with_etag(mut answer: Response<Content>, etag: &str) -> Response<Content> {
    answer.headers_mut().insert(header::ETAG, value(etag));
    answer
}

/// A header's value; what cannot be one (it came from another header, so it can) is sent empty.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_bytes(text.as_bytes()).unwrap_or(HeaderValue::from_static(""))
}
