//! The source: a bucket that changes, and every state that it was ever in.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use origin::{Origin, OriginOptions};

use crate::model::tree::Tree;

/// The bucket's name.
const BUCKET: &str = "data";

/// Keys that operations put and delete. Among them are keys that collide with each other (`d` and `d/one`, `x`, `x/y` and
/// `x/y/z`), a marker of a directory, and last, some that no file can have.
pub(crate) const KEYS: &[&str] = &[
    "a",
    "b",
    "d",
    "d/one",
    "d/two",
    "d/deep/er/three",
    "e/only",
    "large/1",
    "large/2",
    "names/\u{fc}n\u{ef} & space,comma:colon",
    "x",
    "x/y",
    "x/y/z",
    LONGEST,
    "marker/",
    "a//b",
    "/abs",
    "../up",
    "./dot",
    "d/../a",
    "control/\u{1}",
    TOO_LONG,
];

/// So many of them, from the first on, can be files.
pub(crate) const FILES: usize = 14;

/// A name as long as one may be.
pub(crate) const LONGEST: &str = "names/lllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll";
/// One byte more.
pub(crate) const TOO_LONG: &str = "names/tttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt";

/// What an object holds: any byte of it follows from these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Content {
    pub(crate) seed: u64,
    pub(crate) size: u64,
}

/// What is in the bucket at one moment.
pub(crate) type Snapshot = BTreeMap<&'static str, Content>;

/// A moment of the source: its state after so many changes.
pub(crate) type Epoch = usize;

/// The bucket with its history.
pub(crate) struct Source {
    origin: Origin,
    snapshots: Vec<Snapshot>,
    trees: Vec<Tree>,
    etags: HashMap<Content, String>,
}

impl Source {
    pub(crate) fn new() -> Self {
        let origin = Origin::spawn(OriginOptions::default()).expect("start the origin");
        origin.create_bucket(BUCKET);
        Self {
            origin,
            snapshots: vec![Snapshot::new()],
            trees: vec![Tree::of(&Snapshot::new())],
            etags: HashMap::new(),
        }
    }

    pub(crate) fn url(&self) -> (String, String) {
        (format!("s3://{BUCKET}"), self.origin.url())
    }

    /// Puts an object, or another version of it.
    pub(crate) fn put(&mut self, key: &'static str, content: Content) {
        let bytes: Bytes = origin::data::bytes(content.seed, 0..content.size);
        let etag = self.origin.put(BUCKET, key, bytes).to_string();
        let known = self.content_of(&etag);
        assert!(
            known.is_none_or(|known| known == content),
            "{content:?} and {known:?} are the same bytes"
        );
        self.etags.insert(content, etag);
        self.step(|snapshot| {
            snapshot.insert(key, content);
        });
    }

    /// Deletes an object, which need not be there.
    pub(crate) fn delete(&mut self, key: &'static str) {
        self.origin.delete(BUCKET, key);
        self.step(|snapshot| {
            snapshot.remove(key);
        });
    }

    fn step(&mut self, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = self.snapshots.last().cloned().unwrap_or_default();
        change(&mut snapshot);
        self.trees.push(Tree::of(&snapshot));
        self.snapshots.push(snapshot);
    }

    pub(crate) fn now(&self) -> Epoch {
        self.snapshots.len() - 1
    }

    /// What the tree was at a moment.
    pub(crate) fn tree(&self, epoch: Epoch) -> &Tree {
        &self.trees[epoch]
    }

    /// The version of an object that the source has now.
    pub(crate) fn current(&self, key: &str) -> Option<Content> {
        self.snapshots
            .last()
            .and_then(|snapshot| snapshot.get(key).copied())
    }

    /// Whether the object was in this version and then, at any time, was not.
    pub(crate) fn was_ever_gone(&self, key: &str, content: Content) -> bool {
        self.snapshots
            .iter()
            .skip_while(|snapshot| snapshot.get(key) != Some(&content))
            .any(|snapshot| snapshot.get(key) != Some(&content))
    }

    /// The content that an ETag, with or without quotes, stands for.
    pub(crate) fn content_of(&self, etag: &str) -> Option<Content> {
        let etag = etag.trim_matches('"');
        self.etags
            .iter()
            .find(|(_, known)| known.trim_matches('"') == etag)
            .map(|(content, _)| *content)
    }
}
