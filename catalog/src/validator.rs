//! What tells one version of an object from the next.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A point in time as file systems store it. The nanoseconds are below 10^9.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    /// Seconds since 1970, negative before.
    pub secs: i64,
    /// Nanoseconds after `secs`.
    pub nanos: u32,
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.secs, self.nanos)
    }
}

/// A text that is not a [`Time`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time is written as seconds, a dot and nine digits")]
pub struct ParseTimeError;

impl FromStr for Time {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (secs, nanos) = text.split_once('.').ok_or(ParseTimeError)?;
        let time = Self {
            secs: secs.parse().map_err(|_| ParseTimeError)?,
            nanos: nanos.parse().map_err(|_| ParseTimeError)?,
        };
        if time.nanos < 1_000_000_000 && time.to_string() == text {
            Ok(time)
        } else {
            Err(ParseTimeError)
        }
    }
}

/// What a source is asked for on every read, so that bytes of two versions are never mixed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Validator {
    /// A strong ETag, as the source wrote it.
    ETag(String),
    /// The version id of a versioned bucket.
    VersionId(String),
    /// Nothing better than the time of the last change.
    Modified {
        /// As the source tells it.
        time: Time,
    },
}

impl Validator {
    /// The extended attribute that shows the validator of a file.
    pub const fn xattr_name(&self) -> &'static str {
        match self {
            Self::ETag(_) => "user.millpond.etag",
            Self::VersionId(_) => "user.millpond.version",
            Self::Modified { .. } => "user.millpond.modified",
        }
    }

    /// The value of that attribute.
    pub fn text(&self) -> String {
        match self {
            Self::ETag(text) | Self::VersionId(text) => text.clone(),
            Self::Modified { time } => time.to_string(),
        }
    }

    /// The validator that an extended attribute shows; `None` where name or value are no validator's.
    pub fn from_xattr(name: &str, value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        match name {
            "user.millpond.etag" => Some(Self::ETag(text.to_owned())),
            "user.millpond.version" => Some(Self::VersionId(text.to_owned())),
            "user.millpond.modified" => Some(Self::Modified {
                time: text.parse().ok()?,
            }),
            _ => None,
        }
    }
}
