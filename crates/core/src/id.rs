//! Id of one version of one object.
//!
//! An id is 128 bits of BLAKE3 over everything that makes a version: source, key, validator and size. So equal ids mean
//! equal bytes, whichever generation, mount or machine they were derived on, and a cache file whose
//! name contains an id needs no other check of what it belongs to. 128 bits: two of 10^12 objects collide with a probability
//! below 10^-14, and only the owner of a source chooses what is hashed.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use data_encoding::{Encoding, Specification};

use crate::Validator;

/// Length of the text form: 128 bits at 5 bits a character.
const TEXT_LENGTH: usize = 26;
/// Characters of the text form that name the directory: at most 1,024 directories.
const DIRECTORY_LENGTH: usize = 2;

/// RFC 4648 base32 in lower case, without padding.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification
        .encoding()
        .expect("32 distinct symbols make an encoding")
});

/// Id of one object in one version: its content never changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId([u8; 16]);

impl ObjectId {
    /// Derives the id of the object that `source` holds under `key` in the version that `validator` and `size_bytes` name.
    pub fn derive(source: &str, key: &str, validator: &Validator, size_bytes: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        field(source.as_bytes());
        field(key.as_bytes());
        field(validator.text().as_bytes());
        field(&size_bytes.to_le_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }

    /// Returns the id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the id, in the order in which ids are sorted.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Returns the path of the object's file below an objects directory: `ab/cdef...`.
    pub fn path(&self) -> String {
        let text = self.text();
        let (directory, file) = text.split_at(DIRECTORY_LENGTH);
        let mut path = String::with_capacity(TEXT_LENGTH + 1);
        path.extend(directory.iter().copied().map(char::from));
        path.push('/');
        path.extend(file.iter().copied().map(char::from));
        path
    }

    /// Returns the id whose [`path`](Self::path) consists of these two components, if there is one.
    pub fn from_components(directory: &[u8], file: &[u8]) -> Option<Self> {
        if directory.len() != DIRECTORY_LENGTH || file.len() != TEXT_LENGTH - DIRECTORY_LENGTH {
            return None;
        }
        let mut text = [0; TEXT_LENGTH];
        let (head, tail) = text.split_at_mut(DIRECTORY_LENGTH);
        head.copy_from_slice(directory);
        tail.copy_from_slice(file);
        Self::from_text(&text)
    }

    /// Returns the id whose [`path`](Self::path) this is, if there is one.
    pub fn from_path(path: &[u8]) -> Option<Self> {
        let (directory, rest) = path.split_at_checked(DIRECTORY_LENGTH)?;
        let (slash, file) = rest.split_first()?;
        if *slash == b'/' {
            Self::from_components(directory, file)
        } else {
            None
        }
    }

    fn text(&self) -> [u8; TEXT_LENGTH] {
        let mut text = [0; TEXT_LENGTH];
        BASE32.encode_mut(&self.0, &mut text);
        text
    }

    fn from_text(text: &[u8; TEXT_LENGTH]) -> Option<Self> {
        let mut id = [0; 16];
        BASE32.decode_mut(text, &mut id).ok()?;
        Some(Self(id))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectId({self})")
    }
}

/// A text that is not an object id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an object id is 26 characters of lower-case base32")]
pub struct ParseObjectIdError;

impl FromStr for ObjectId {
    type Err = ParseObjectIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.as_bytes()
            .try_into()
            .ok()
            .and_then(Self::from_text)
            .ok_or(ParseObjectIdError)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Time;

    fn etag(text: &str) -> Validator {
        Validator::ETag(text.to_owned())
    }

    #[test]
    fn every_part_of_a_version_changes_its_id() {
        let time = Time { secs: 1, nanos: 2 };
        let ids = [
            ObjectId::derive("s3://b", "k", &etag("e"), 1),
            ObjectId::derive("s3://c", "k", &etag("e"), 1),
            ObjectId::derive("s3://b", "l", &etag("e"), 1),
            ObjectId::derive("s3://b", "k", &etag("f"), 1),
            ObjectId::derive("s3://b", "k", &Validator::VersionId("e".to_owned()), 1),
            ObjectId::derive("s3://b", "k", &Validator::Modified { time }, 1),
            ObjectId::derive("s3://b", "k", &etag("e"), 2),
            ObjectId::derive("s3://bk", "", &etag("e"), 1),
            ObjectId::derive("s3://b", "ke", &etag(""), 1),
        ];
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }

    #[test]
    fn the_derivation_never_changes() {
        // A cache directory outlives the program: another derivation would lose all of it.
        let id = ObjectId::derive(
            "s3://bucket/prefix",
            "prefix/a/b.jpg",
            &etag("\"0123456789abcdef\""),
            100_000,
        );
        assert_eq!(id.to_string(), "b2jxm2e6iv3hn4w5od65hifx3e");
    }

    #[test]
    fn refuses_what_is_no_id() {
        for text in [
            "",
            "a",
            &"a".repeat(25),
            &"a".repeat(27),
            &"A".repeat(26),
            &"1".repeat(26),
            &"b".repeat(26),
        ] {
            assert_eq!(text.parse::<ObjectId>(), Err(ParseObjectIdError), "{text}");
        }
        assert_eq!(ObjectId::from_path(b"aa-aaaaaaaaaaaaaaaaaaaaaaaa"), None);
        assert_eq!(ObjectId::from_path("é/aaaaaaaaaaaaaaaaaaaaaaaa".as_bytes()), None);
    }

    proptest! {
        #[test]
        fn text_and_path_lead_back_to_the_id(bytes: [u8; 16]) {
            let id = ObjectId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert_eq!(ObjectId::from_path(id.path().as_bytes()), Some(id));
            prop_assert_eq!(id.path().len(), 27);
            prop_assert_eq!(id.path().replace('/', ""), id.to_string());
        }

        #[test]
        fn ids_sort_as_their_bytes(a: [u8; 16], b: [u8; 16]) {
            prop_assert_eq!(ObjectId::from_bytes(a).cmp(&ObjectId::from_bytes(b)), a.cmp(&b));
        }
    }
}
