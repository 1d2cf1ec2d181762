//! A bucket on the tests' own origin, and what it must read as.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use origin::{Counters, Fault, Kind, Origin, OriginOptions, Rule, RuleId};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::mounted::{MountCommand, View};
use crate::reading::{files_below, read};
use crate::scratch::Scratch;

/// The bucket's name.
const NAME: &str = "data";

/// Objects in a running origin, and their bytes.
pub struct Bucket {
    origin: Origin,
    objects: BTreeMap<String, Bytes>,
}

impl Bucket {
    /// An empty bucket.
    ///
    /// # Panics
    /// If the origin cannot be started.
    #[expect(
        clippy::new_without_default,
        reason = "starting a server is not a default value"
    )]
    pub fn new() -> Self {
        let origin = Origin::spawn(OriginOptions::default()).expect("start the origin");
        origin.create_bucket(NAME);
        Self {
            origin,
            objects: BTreeMap::new(),
        }
    }

    /// A bucket with `count` objects `dir-D/file-NNNNN` of `size` bytes each, a hundred to a directory.
    pub fn with_files(count: u64, size: u64) -> Self {
        let mut bucket = Self::new();
        for number in 0..count {
            bucket.generate(&format!("dir-{:03}/file-{number:05}", number / 100), number, size);
        }
        bucket
    }

    /// Puts an object, or another version of it.
    pub fn put(&mut self, key: &str, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        self.origin.put(NAME, key, bytes.clone());
        self.objects.insert(key.to_owned(), bytes);
    }

    /// Puts `size` bytes that follow from `seed`.
    pub fn generate(&mut self, key: &str, seed: u64, size: u64) {
        self.put(key, origin::data::bytes(seed, 0..size));
    }

    /// Deletes an object.
    pub fn delete(&mut self, key: &str) {
        self.origin.delete(NAME, key);
        self.objects.remove(key);
    }

    /// Leaves an object in the bucket which the tree shall not show.
    pub fn forget(&mut self, key: &str) {
        self.objects.remove(key);
    }

    /// The words of a mount of the bucket.
    pub fn mount(&self, scratch: &Scratch, view: View) -> MountCommand {
        MountCommand::new(scratch, &format!("s3://{NAME}"), view)
            .with("--endpoint", self.origin.url())
            .switch("--anonymous")
    }

    /// The server.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Adds a fault to every GET of an object.
    pub fn fail_gets(&self, fault: Fault) -> RuleId {
        self.origin.faults().add(Rule::new(fault).on(&[Kind::Get]))
    }

    /// What the origin counted.
    pub fn counters(&self) -> Counters {
        self.origin.counters()
    }

    /// What is in the bucket.
    pub const fn objects(&self) -> &BTreeMap<String, Bytes> {
        &self.objects
    }

    /// The keys, in order.
    pub fn keys(&self) -> Vec<String> {
        self.objects.keys().cloned().collect()
    }

    /// Bytes of all objects together.
    pub fn total_bytes(&self) -> u64 {
        self.objects.values().map(|bytes| bytes.len() as u64).sum()
    }

    /// Requires that the file at `root` reads as the object.
    ///
    /// # Panics
    /// If it does not.
    pub fn check(&self, root: &Path, key: &str) {
        let found = read(&root.join(key));
        let expected = &self.objects[key];
        assert_eq!(found.len(), expected.len(), "length of {key}");
        if let Some(offset) = found
            .iter()
            .zip(expected.iter())
            .position(|(found, expected)| found != expected)
        {
            panic!("{key}: wrong byte at {offset}");
        }
    }

    /// Requires that all files at `root` read as their objects, each read once by one of four readers, in an order that
    /// follows from `seed`.
    ///
    /// # Panics
    /// If one does not.
    pub fn check_epoch(&self, root: &Path, seed: u64) {
        let mut keys = self.keys();
        keys.shuffle(&mut StdRng::seed_from_u64(seed));
        std::thread::scope(|scope| {
            for part in keys.chunks(keys.len().div_ceil(4)) {
                scope.spawn(move || part.iter().for_each(|key| self.check(root, key)));
            }
        });
    }

    /// Requires that the tree at `root` is the bucket, names and bytes.
    ///
    /// # Panics
    /// If it is not.
    pub fn check_all(&self, root: &Path) {
        let mut listed: Vec<_> = files_below(root)
            .into_iter()
            .map(|path| path.to_str().expect("names are UTF-8").to_owned())
            .collect();
        listed.sort();
        assert_eq!(listed, self.keys());
        for key in self.objects.keys() {
            self.check(root, key);
        }
    }
}
