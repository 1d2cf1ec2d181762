//! The data that the statements are checked on, and one mount of it per view.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use harness::{Mount, MountCommand, Scratch, View};
use origin::{Origin, OriginOptions};

/// A small object: fetched whole on its first lookup.
pub(crate) const SMALL: &str = "train/n01440764/img_1.jpg";
/// Length of [`SMALL`].
pub(crate) const SMALL_BYTES: usize = 100_003;
/// An object above the limit for small ones, and no whole number of blocks.
pub(crate) const LARGE: &str = "shards/000.tar";
/// Length of [`LARGE`].
pub(crate) const LARGE_BYTES: usize = 20 * 1024 * 1024 + 77;
/// An object without a byte.
pub(crate) const EMPTY: &str = "train/empty";
/// A directory with more entries than one answer of getdents holds.
pub(crate) const MANY: &str = "many";
/// How many.
pub(crate) const MANY_FILES: usize = 3_000;

/// One mounted view and what it must show.
pub(crate) struct Tree {
    // Dropped in this order: the mount needs the origin and the folder to end well.
    mount: Mount,
    _origin: Origin,
    scratch: Scratch,
    view: View,
    objects: BTreeMap<String, Vec<u8>>,
    readme_etag: String,
}

impl Tree {
    /// Fills a bucket and mounts it.
    pub(crate) fn new(view: View) -> Self {
        let scratch = Scratch::new();
        let origin = Origin::spawn(OriginOptions::default()).expect("start the origin");
        let mut objects = BTreeMap::new();
        objects.insert(
            SMALL.to_owned(),
            origin::data::bytes(1, 0..SMALL_BYTES as u64).to_vec(),
        );
        objects.insert(
            "train/n01440764/img_2.jpg".to_owned(),
            origin::data::bytes(2, 0..4_096).to_vec(),
        );
        objects.insert(
            "train/n01443537/img_1.jpg".to_owned(),
            origin::data::bytes(3, 0..65_536).to_vec(),
        );
        objects.insert("README".to_owned(), b"hello, mill\n".to_vec());
        objects.insert("readme".to_owned(), b"another file\n".to_vec());
        objects.insert(
            "names/\u{fc}n\u{ef}c\u{f6}d\u{e9} & space,comma:colon".to_owned(),
            b"names".to_vec(),
        );
        objects.insert(format!("names/{}", "n".repeat(255)), b"longest".to_vec());
        objects.insert(EMPTY.to_owned(), Vec::new());
        objects.insert(
            LARGE.to_owned(),
            origin::data::bytes(4, 0..LARGE_BYTES as u64).to_vec(),
        );
        for number in 0..MANY_FILES {
            objects.insert(
                format!("{MANY}/file-{number:05}"),
                number.to_string().into_bytes(),
            );
        }
        origin.create_bucket("data");
        for (key, bytes) in &objects {
            origin.put("data", key, bytes.clone());
        }
        let readme_etag = origin.put("data", "README", objects["README"].clone()).quoted();
        let mount = MountCommand::new(&scratch, "s3://data", view)
            .with("--endpoint", origin.url())
            .switch("--anonymous")
            .with("--uid", "1234")
            .with("--gid", "2345")
            .mount();
        Self {
            mount,
            _origin: origin,
            scratch,
            view,
            objects,
            readme_etag,
        }
    }

    /// Which view it is.
    pub(crate) const fn view(&self) -> View {
        self.view
    }

    /// Where the view is.
    pub(crate) fn root(&self) -> &Path {
        self.mount.path()
    }

    /// A path in the view.
    pub(crate) fn join(&self, key: &str) -> PathBuf {
        self.mount.join(key)
    }

    /// What the source holds.
    pub(crate) fn objects(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.objects
    }

    /// The bytes of one object.
    pub(crate) fn bytes(&self, key: &str) -> &[u8] {
        &self.objects[key]
    }

    /// The source's ETag of `README`, in quotes.
    pub(crate) fn readme_etag(&self) -> &str {
        &self.readme_etag
    }

    /// A folder outside the view, of this test binary's own.
    pub(crate) fn outside(&self) -> &Path {
        self.scratch.path()
    }
}
