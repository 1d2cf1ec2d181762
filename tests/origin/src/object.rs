//! One object: its content, its ETag, its time.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use md5::{Digest, Md5};

use crate::data;

/// What an object holds.
#[derive(Debug, Clone)]
pub enum Body {
    /// Bytes in memory, or those of a mapped file.
    Bytes(Bytes),
    /// The first `len` bytes of [`data`] of `seed`, made while they are sent.
    Generated {
        /// The seed.
        seed: u64,
        /// The length in bytes.
        len: u64,
    },
}

impl Body {
    /// Maps a file, whose bytes then go from the page cache to the socket. The file must not be written or cut short
    /// while the object exists.
    ///
    /// # Errors
    /// When the file cannot be opened or mapped.
    pub fn mapped(path: &Path) -> io::Result<Self> {
        crate::io::map(path).map(Self::Bytes)
    }

    /// Content made from a seed while it is read.
    pub fn generated(seed: u64, len: u64) -> Self {
        Self::Generated { seed, len }
    }

    /// The length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Generated { len, .. } => *len,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of `range`, cut to the length. Copies nothing, except that generated data is made.
    pub fn slice(&self, range: Range<u64>) -> Bytes {
        let end = range.end.min(self.len());
        let start = range.start.min(end);
        match self {
            Self::Bytes(bytes) => {
                let in_memory = |at| usize::try_from(at).expect("no longer than bytes in memory");
                bytes.slice(in_memory(start)..in_memory(end))
            }
            Self::Generated { seed, .. } => data::bytes(*seed, start..end),
        }
    }

    /// The ETag of an object that was put with this content: the MD5 of bytes, as in S3; generated data is not read
    /// for it, but named by its seed and length.
    pub(crate) fn etag(&self) -> ETag {
        let digest = match self {
            Self::Bytes(bytes) => Md5::digest(bytes),
            Self::Generated { seed, len } => Md5::new()
                .chain_update(seed.to_le_bytes())
                .chain_update(len.to_le_bytes())
                .finalize(),
        };
        ETag {
            digest: digest.into(),
            parts: None,
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Bytes(Bytes::from_static(bytes))
    }
}

impl<const N: usize> From<&'static [u8; N]> for Body {
    fn from(bytes: &'static [u8; N]) -> Self {
        Self::Bytes(Bytes::from_static(bytes))
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::Bytes(Bytes::from_static(text.as_bytes()))
    }
}

/// An ETag; its `Display` is what stands between the quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ETag {
    digest: [u8; 16],
    /// The number of parts of a multipart upload; `None` for an object that was put whole.
    parts: Option<u32>,
}

impl ETag {
    /// The ETag of a multipart upload: the MD5 of its parts' MD5s, and their number.
    pub(crate) fn of_parts<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut digest = Md5::new();
        let mut count = 0;
        for part in parts {
            digest.update(part.digest);
            count += 1;
        }
        Self {
            digest: digest.finalize().into(),
            parts: Some(count),
        }
    }

    /// The header's form, with quotes.
    pub fn quoted(&self) -> String {
        format!("\"{self}\"")
    }

    /// An ETag that belongs to no object.
    pub(crate) fn wrong(self) -> Self {
        Self {
            digest: self.digest.map(|byte| !byte),
            parts: self.parts,
        }
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.digest))?;
        match self.parts {
            Some(parts) => write!(f, "-{parts}"),
            None => Ok(()),
        }
    }
}

/// The ETag header of an object that is put with these bytes in one piece: their MD5, in quotes.
pub fn etag(bytes: &[u8]) -> String {
    ETag {
        digest: Md5::digest(bytes).into(),
        parts: None,
    }
    .quoted()
}

/// An object as stored. It is never changed, only replaced.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) body: Body,
    pub(crate) etag: ETag,
    pub(crate) modified: SystemTime,
    /// What the upload said of itself, given back as it came. `None` (most objects) for nothing.
    pub(crate) described: Option<Arc<Description>>,
}

/// The headers of an upload that come back with the object.
#[derive(Debug, Clone, Default)]
pub(crate) struct Description {
    pub(crate) content_type: Option<String>,
    /// `x-amz-meta-*`, whole names.
    pub(crate) metadata: Vec<(String, String)>,
}

impl Object {
    pub(crate) fn new(body: Body, modified: SystemTime) -> Self {
        let etag = body.etag();
        Self {
            body,
            etag,
            modified: whole_seconds(modified),
            described: None,
        }
    }
}

/// S3 keeps whole seconds.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}
