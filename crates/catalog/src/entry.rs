//! What goes into a catalog, and what is said about it afterwards.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Refusal;
use millpond_core::{Time, Validator};

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Position of its source in [`BuildOptions::sources`](crate::BuildOptions).
    pub source: u16,
    /// Its whole key at the source, the source's prefix included. One that ends in `/` makes a directory.
    pub key: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// When the source says it was last changed.
    pub modified: Time,
    /// Which version it is.
    pub validator: Validator,
}

/// One source of a Dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// Its canonical URL: goes into every object's id, and is shown as `user.millpond.source`.
    pub id: String,
    /// What all keys of the source begin with and their paths do not show: empty, or ending in `/`.
    pub prefix: String,
    /// The directory of the tree where the source's files are: empty for the root, else `a` or `a/b`.
    pub path: String,
}

/// Whom files and directories belong to, and who may do what with them.
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
    /// root's, readable by all.
    fn default() -> Self {
        Self {
            uid: 0,
            gid: 0,
            file_mode: 0o444,
            dir_mode: 0o555,
        }
    }
}

/// What a finished catalog holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Regular files.
    pub files: u64,
    /// Directories, the root included.
    pub dirs: u64,
    /// Sum of the files' sizes.
    pub bytes: u64,
    /// What is not in it.
    pub refused: Refused,
}

/// Listed objects that cannot be files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// How many, by reason.
    pub counts: BTreeMap<Refusal, u64>,
    /// The first of them in order of reason and key, at most 1,000.
    pub samples: Vec<RefusedKey>,
}

/// One listed object that cannot be a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RefusedKey {
    /// Why.
    pub reason: Refusal,
    /// Position of its source.
    pub source: u16,
    /// Its key; cut after 1,024 bytes.
    pub key: String,
}
