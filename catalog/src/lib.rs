//! Stub.
/// Stub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId([u8; 16]);
impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
/// A moment, since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds.
    pub secs: i64,
    /// What is beyond them.
    pub nanos: u32,
}
/// What tells one version of a source object from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Validator {
    /// A strong ETag, with its quotes.
    ETag(String),
    /// The source's number of the version.
    VersionId(String),
    /// The time of the last change; the size goes with it.
    Modified {
        /// When.
        time: Time,
    },
}
