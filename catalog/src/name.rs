//! Which keys can be paths.

use serde::{Deserialize, Serialize};

/// Why a listed object is not in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// Its key does not begin with its source's prefix.
    OutsidePrefix,
    /// Nothing is left of its key after the prefix.
    EmptyKey,
    /// Its key begins with `/`.
    LeadingSlash,
    /// Two `/` follow each other.
    EmptyComponent,
    /// A component is `.` or `..`.
    DotComponent,
    /// A zero byte.
    Nul,
    /// A component has more than 255 bytes.
    NameTooLong,
    /// The path has more than 4,095 bytes.
    PathTooLong,
    /// Its key ends in `/`, so that it would be a directory, but it has content.
    DirectoryWithContent,
    /// The validator has more than 1,024 bytes.
    ValidatorTooLong,
    /// It has more than 2^50 bytes.
    ObjectTooLarge,
    /// Another object's key makes a directory of this one's: `a` beside `a/b`.
    IsDirectory,
    /// Another object has the same path: of a source that comes earlier, or of the same one and newer.
    Duplicate,
}
