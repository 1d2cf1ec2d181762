//! What a request asks for: bucket, key, query, operation.

use std::borrow::Cow;

use hyper::header::HeaderMap;
use hyper::{Method, Uri};
use percent_encoding::percent_decode;

use crate::error::{Code, Refusal};
use crate::fault::Kind;
use crate::list::ListQuery;

/// The parameters of a request, decoded, in their order.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let decode = |text: &str| -> Vec<u8> {
            let spaced = text.replace('+', " ");
            percent_decode(spaced.as_bytes()).collect()
        };
        let pairs = query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(name), decode(value))
            });
        Self {
            pairs: pairs.collect(),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.pairs
            .iter()
            .find(|(known, _)| known == name.as_bytes())
            .map(|(_, value)| value.as_slice())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(crate) fn pairs(&self) -> &[(Vec<u8>, Vec<u8>)] {
        &self.pairs
    }
}

/// The bucket and key of a path-style request, the key as bytes.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) bucket: String,
    /// Empty for a request about the bucket.
    pub(crate) key: Vec<u8>,
}

impl Target {
    /// Splits and decodes the path; nothing in it is normalised.
    pub(crate) fn parse(uri: &Uri) -> Self {
        let path = uri.path().strip_prefix('/').unwrap_or_default();
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        Self {
            bucket: percent_decode(bucket.as_bytes()).decode_utf8_lossy().into_owned(),
            key: percent_decode(key.as_bytes()).collect(),
        }
    }

    /// `bucket/key`, as counters and faults name it.
    pub(crate) fn path(&self) -> Vec<u8> {
        join(&self.bucket, &self.key)
    }
}

pub(crate) fn join(bucket: &str, key: &[u8]) -> Vec<u8> {
    [bucket.as_bytes(), b"/", key].concat()
}

/// The operations of this server.
#[derive(Debug)]
pub(crate) enum Operation {
    CreateBucket,
    HeadBucket,
    List(ListQuery),
    GetObject,
    HeadObject,
    PutObject,
    DeleteObject,
    CreateUpload,
    UploadPart { upload: String, number: u32 },
    CompleteUpload { upload: String },
    AbortUpload { upload: String },
}

impl Operation {
    pub(crate) fn parse(
        method: &Method,
        target: &Target,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<Self, Refusal> {
        if target.bucket.is_empty() {
            return Err(Refusal::new(Code::NotImplemented, "buckets are not listed here"));
        }
        if let Some(name) = unsupported(query, headers) {
            return Err(Refusal::new(
                Code::NotImplemented,
                format!("{name} is not implemented"),
            ));
        }
        let upload = || text(query, "uploadId");
        match (method, target.key.is_empty()) {
            (&Method::PUT, true) => Ok(Self::CreateBucket),
            (&Method::HEAD, true) => Ok(Self::HeadBucket),
            (&Method::GET, true) if query.get("list-type") == Some(b"2") => {
                ListQuery::parse(query).map(Self::List)
            }
            (&Method::GET, true) => Err(Refusal::new(
                Code::NotImplemented,
                "of the bucket's requests only ListObjectsV2",
            )),
            (&Method::GET, false) => Ok(Self::GetObject),
            (&Method::HEAD, false) => Ok(Self::HeadObject),
            (&Method::PUT, false) if query.has("partNumber") => {
                let number = text(query, "partNumber")
                    .parse()
                    .ok()
                    .filter(|number| (1..=10_000).contains(number));
                let number = number.ok_or_else(|| {
                    Refusal::new(Code::InvalidArgument, "a part number is a number from 1 to 10000")
                })?;
                Ok(Self::UploadPart {
                    upload: upload().into_owned(),
                    number,
                })
            }
            (&Method::PUT, false) => Ok(Self::PutObject),
            (&Method::POST, false) if query.has("uploads") => Ok(Self::CreateUpload),
            (&Method::POST, false) if query.has("uploadId") => Ok(Self::CompleteUpload {
                upload: upload().into_owned(),
            }),
            (&Method::DELETE, false) if query.has("uploadId") => Ok(Self::AbortUpload {
                upload: upload().into_owned(),
            }),
            (&Method::DELETE, false) => Ok(Self::DeleteObject),
            _ => Err(Code::MethodNotAllowed.into()),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::GetObject => Kind::Get,
            Self::HeadObject | Self::HeadBucket => Kind::Head,
            Self::List(_) => Kind::List,
            Self::CreateBucket
            | Self::PutObject
            | Self::DeleteObject
            | Self::CreateUpload
            | Self::UploadPart { .. }
            | Self::CompleteUpload { .. }
            | Self::AbortUpload { .. } => Kind::Other,
        }
    }
}

fn text<'a>(query: &'a Query, name: &str) -> Cow<'a, str> {
    String::from_utf8_lossy(query.get(name).unwrap_or_default())
}

/// Names what would be answered wrongly if it were ignored.
fn unsupported(query: &Query, headers: &HeaderMap) -> Option<&'static str> {
    let parameters = [
        "versionId",
        "versions",
        "delete",
        "acl",
        "tagging",
        "X-Amz-Signature",
        "attributes",
    ];
    let names = [
        "x-amz-copy-source",
        "x-amz-server-side-encryption-customer-algorithm",
    ];
    parameters
        .into_iter()
        .find(|name| query.has(name))
        .or_else(|| names.into_iter().find(|name| headers.contains_key(*name)))
}
