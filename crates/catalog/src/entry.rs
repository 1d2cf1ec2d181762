//! Input of a catalog, and its summary.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Refusal;
use millpond_core::{Time, Validator};

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Position of its source in [`BuildOptions::sources`](crate::BuildOptions).
    pub source: u16,
    /// Complete key at the source, including the source's prefix. A key that ends in `/` makes a directory.
    pub key: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Time of its last change, as reported by the source.
    pub modified: Time,
    /// Validator of its version.
    pub validator: Validator,
}

/// One source of a Dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// Canonical URL: part of every object's id, and the value of `user.millpond.source`.
    pub id: String,
    /// Prefix of all keys of the source, removed from their paths: empty, or ending in `/`.
    pub prefix: String,
    /// Directory of the source's files in the tree: empty for the root, else `a` or `a/b`.
    pub path: String,
}

/// Owner and permissions of files and directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Permission bits of files, at most 0o777.
    pub file_mode: u16,
    /// Permission bits of directories, at most 0o777.
    pub dir_mode: u16,
}

impl Default for Owner {
    /// Owned by root, readable by all.
    fn default() -> Self {
        Self {
            uid: 0,
            gid: 0,
            file_mode: 0o444,
            dir_mode: 0o555,
        }
    }
}

/// Summary of a finished catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Regular files.
    pub files: u64,
    /// Directories, the root included.
    pub dirs: u64,
    /// Sum of the files' sizes.
    pub bytes: u64,
    /// Listed objects that are not in it.
    pub refused: Refused,
}

/// Listed objects that cannot be files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Number of objects by reason.
    pub counts: BTreeMap<Refusal, u64>,
    /// First of them in order of reason and key, at most 1,000.
    pub samples: Vec<RefusedKey>,
}

/// One listed object that cannot be a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RefusedKey {
    /// Reason.
    pub reason: Refusal,
    /// Position of its source.
    pub source: u16,
    /// Key, truncated to 1,024 bytes.
    pub key: String,
}
