//! ListObjectsV2.

use std::ops::Bound;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::error::{Code, Refusal};
use crate::object::Object;
use crate::operation::Query;
use crate::store::Objects;
use crate::xml::Document;

/// S3's limit for a page.
const MAX_KEYS: usize = 1000;
/// What stays as it is under `encoding-type=url`.
const LISTED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b'*');

/// A list request's parameters.
#[derive(Debug, Default)]
pub(crate) struct ListQuery {
    prefix: Vec<u8>,
    delimiter: Vec<u8>,
    max_keys: usize,
    /// As it was sent, and what it means.
    continuation: Option<(Vec<u8>, Cursor)>,
    start_after: Vec<u8>,
    encode: bool,
}

/// Where a page ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cursor {
    /// After this key.
    Key(Vec<u8>),
    /// After all keys of this common prefix.
    Prefix(Vec<u8>),
}

impl Cursor {
    fn token(&self) -> String {
        let (kind, text) = match self {
            Self::Key(key) => (b'k', key),
            Self::Prefix(prefix) => (b'p', prefix),
        };
        BASE64URL_NOPAD.encode(&[&[kind], text.as_slice()].concat())
    }

    fn parse(token: &[u8]) -> Option<Self> {
        let decoded = BASE64URL_NOPAD.decode(token).ok()?;
        match decoded.split_first()? {
            (b'k', key) => Some(Self::Key(key.to_vec())),
            (b'p', prefix) => Some(Self::Prefix(prefix.to_vec())),
            _ => None,
        }
    }

    fn bound(&self) -> Bound<Vec<u8>> {
        match self {
            Self::Key(key) => Bound::Excluded(key.clone()),
            Self::Prefix(prefix) => after_prefix(prefix),
        }
    }
}

/// Where the keys begin that come after all keys with this prefix.
fn after_prefix(prefix: &[u8]) -> Bound<Vec<u8>> {
    let mut next = prefix.to_vec();
    while let Some(last) = next.pop() {
        if last < u8::MAX {
            next.push(last + 1);
            return Bound::Included(next);
        }
    }
    // Nothing sorts after a prefix of bytes 0xff only but the longer ones, which have it too.
    Bound::Excluded(vec![u8::MAX; 1025])
}

/// One page: rows in the order of the keys.
#[derive(Debug)]
pub(crate) struct Page {
    rows: Vec<Row>,
    next: Option<Cursor>,
}

#[derive(Debug)]
enum Row {
    Object(Vec<u8>, Arc<Object>),
    Prefix(Vec<u8>),
}

impl ListQuery {
    pub(crate) fn parse(query: &Query) -> Result<Self, Refusal> {
        let text = |name| query.get(name).unwrap_or_default().to_vec();
        let max_keys = match query.get("max-keys") {
            None => MAX_KEYS,
            Some(number) => std::str::from_utf8(number)
                .ok()
                .and_then(|number| number.parse::<usize>().ok())
                .ok_or_else(|| Refusal::new(Code::InvalidArgument, "max-keys is not a number"))?
                .min(MAX_KEYS),
        };
        let continuation = match query.get("continuation-token") {
            None => None,
            Some(token) => {
                let cursor = Cursor::parse(token)
                    .ok_or_else(|| Refusal::new(Code::InvalidArgument, "no such continuation token"))?;
                Some((token.to_vec(), cursor))
            }
        };
        let encode = match query.get("encoding-type") {
            None => false,
            Some(b"url") => true,
            Some(_) => {
                return Err(Refusal::new(
                    Code::InvalidArgument,
                    "encoding-type is url or nothing",
                ));
            }
        };
        Ok(Self {
            prefix: text("prefix"),
            delimiter: text("delimiter"),
            max_keys,
            continuation,
            start_after: text("start-after"),
            encode,
        })
    }

    pub(crate) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    pub(crate) fn page(&self, objects: &Objects) -> Page {
        let mut page = Page {
            rows: Vec::new(),
            next: None,
        };
        if self.max_keys == 0 {
            return page;
        }
        let mut from = self.start();
        'seek: loop {
            for (key, object) in objects.range::<[u8], _>((as_slice(&from), Bound::Unbounded)) {
                if !key.starts_with(&self.prefix) {
                    break 'seek;
                }
                if page.rows.len() == self.max_keys {
                    page.next = page.rows.last().map(Row::cursor);
                    break 'seek;
                }
                if let Some(common) = self.common_prefix(key) {
                    from = after_prefix(common);
                    // A token or start-after within a common prefix has listed it already.
                    if self.listed_before(common) {
                        continue 'seek;
                    }
                    page.rows.push(Row::Prefix(common.to_vec()));
                    continue 'seek;
                }
                page.rows.push(Row::Object(key.clone(), Arc::clone(object)));
            }
            break;
        }
        page
    }

    fn start(&self) -> Bound<Vec<u8>> {
        match &self.continuation {
            Some((_, cursor)) => cursor.bound(),
            None if self.start_after > self.prefix => Bound::Excluded(self.start_after.clone()),
            None => Bound::Included(self.prefix.clone()),
        }
    }

    /// Whether a listing that starts after `start-after` has the common prefix behind it.
    fn listed_before(&self, common: &[u8]) -> bool {
        self.continuation.is_none() && self.start_after.as_slice() >= common && !self.start_after.is_empty()
    }

    fn common_prefix<'a>(&self, key: &'a [u8]) -> Option<&'a [u8]> {
        if self.delimiter.is_empty() {
            return None;
        }
        let rest = key.get(self.prefix.len()..)?;
        let at = rest
            .windows(self.delimiter.len())
            .position(|window| window == self.delimiter)?;
        key.get(..self.prefix.len() + at + self.delimiter.len())
    }

    pub(crate) fn document(&self, bucket: &str, page: &Page) -> Vec<u8> {
        let mut document = Document::new();
        document.open_root("ListBucketResult");
        document.text("Name", bucket.as_bytes());
        self.key_text(&mut document, "Prefix", &self.prefix);
        if !self.delimiter.is_empty() {
            self.key_text(&mut document, "Delimiter", &self.delimiter);
        }
        document.text("MaxKeys", self.max_keys.to_string().as_bytes());
        document.text("KeyCount", page.rows.len().to_string().as_bytes());
        document.text("IsTruncated", page.next.is_some().to_string().as_bytes());
        if self.encode {
            document.text("EncodingType", b"url");
        }
        if let Some((token, _)) = &self.continuation {
            document.text("ContinuationToken", token);
        }
        if let Some(next) = &page.next {
            document.text("NextContinuationToken", next.token().as_bytes());
        }
        if !self.start_after.is_empty() {
            self.key_text(&mut document, "StartAfter", &self.start_after);
        }
        for row in &page.rows {
            match row {
                Row::Object(key, object) => self.object(&mut document, key, object),
                Row::Prefix(prefix) => {
                    document.open("CommonPrefixes");
                    self.key_text(&mut document, "Prefix", prefix);
                    document.close("CommonPrefixes");
                }
            }
        }
        document.close("ListBucketResult");
        document.finish()
    }

    fn object(&self, document: &mut Document, key: &[u8], object: &Object) {
        document.open("Contents");
        self.key_text(document, "Key", key);
        let modified = humantime::format_rfc3339_millis(object.modified).to_string();
        document.text("LastModified", modified.as_bytes());
        document.text("ETag", object.etag.quoted().as_bytes());
        document.text("Size", object.body.len().to_string().as_bytes());
        document.text("StorageClass", b"STANDARD");
        document.close("Contents");
    }

    fn key_text(&self, document: &mut Document, name: &str, text: &[u8]) {
        if self.encode {
            document.text(name, percent_encode(text, LISTED).to_string().as_bytes());
        } else {
            document.text(name, text);
        }
    }
}

impl Row {
    fn cursor(&self) -> Cursor {
        match self {
            Self::Object(key, _) => Cursor::Key(key.clone()),
            Self::Prefix(prefix) => Cursor::Prefix(prefix.clone()),
        }
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}
