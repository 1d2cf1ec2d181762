//! A catalog, tiers and a stand-in for the FUSE mount in a temporary directory; unmounts everything below it at its end.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use catalog::{ObjectId, Validator};
use protocol::{CatalogFile, Generation, TierDirectories};
use tempfile::TempDir;

use super::super::places::Places;
use super::super::{OverlayMode, ViewSpec};
use crate::mount::{ImageMount, MountTable, detach};

pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) id: ObjectId,
    pub(crate) content: Vec<u8>,
}

pub(crate) struct Fixture {
    pub(crate) root: TempDir,
    pub(crate) files: Vec<File>,
    pub(crate) catalog: CatalogFile,
}

impl Fixture {
    /// A catalog of `count` files `d0/f0`, `d1/f1`, ... of some hundred bytes each; none is in a tier.
    pub(crate) fn new(count: usize) -> Self {
        let root = tempfile::Builder::new()
            .prefix("millpond-view-")
            .tempdir()
            .unwrap();
        let files: Vec<_> = (0..count).map(file).collect();
        for tier in tiers(root.path()) {
            fs::create_dir_all(tier.objects).unwrap();
            fs::create_dir_all(tier.landing).unwrap();
        }
        for layer in ["fuse/objects", "fuse/last"] {
            fs::create_dir_all(root.path().join(layer)).unwrap();
        }
        let catalog = write_catalog(root.path(), &files);
        Self { root, files, catalog }
    }

    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn tiers(&self) -> Vec<TierDirectories> {
        tiers(self.path())
    }

    pub(crate) fn spec(&self, target: impl AsRef<Path>) -> ViewSpec {
        let target = self.path().join(target);
        fs::create_dir_all(&target).unwrap();
        ViewSpec {
            name: "test".to_owned(),
            catalog: self.catalog.clone(),
            catalog_mount: self.path().join("catalog-mount"),
            tiers: self.tiers(),
            fuse_root: self.path().join("fuse"),
            target,
            count_opens: true,
        }
    }

    pub(crate) fn image(&self) -> ImageMount {
        ImageMount::take(&self.catalog.image, &self.path().join("catalog-mount")).unwrap()
    }

    /// Puts the object of a file into one of the layers.
    pub(crate) fn put(&self, layer: impl AsRef<Path>, file: &File) -> PathBuf {
        let path = self.path().join(layer).join(file.id.path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &file.content).unwrap();
        path
    }

    pub(crate) fn put_all(&self, layer: &str) {
        for file in &self.files {
            self.put(layer, file);
        }
    }

    /// What the image says of its inodes.
    pub(crate) fn places(&self) -> TestPlaces {
        let image = self.image();
        let place = |file: &File| {
            let inode = fs::metadata(image.point().join(&file.name)).unwrap().ino();
            (inode, (file.id, file.content.len() as u64))
        };
        TestPlaces(self.files.iter().map(place).collect())
    }

    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        let table = MountTable::read().unwrap();
        table
            .iter()
            .map(|mount| mount.point.clone())
            .filter(|point| point.starts_with(self.path()))
            .collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for point in self.mounts().iter().rev() {
            let _gone = detach(point);
        }
    }
}

pub(crate) struct TestPlaces(HashMap<u64, (ObjectId, u64)>);

impl Places for TestPlaces {
    fn object_at(&self, inode: u64) -> Option<(ObjectId, u64)> {
        self.0.get(&inode).copied()
    }

    fn names(&self, id: ObjectId) -> bool {
        self.0.values().any(|(known, _)| *known == id)
    }
}

pub(crate) const MODES: [OverlayMode; 2] = [OverlayMode::Handles, OverlayMode::Descriptors];

fn tiers(root: &Path) -> Vec<TierDirectories> {
    let tier = |name: &str| TierDirectories {
        objects: root.join(name).join("objects"),
        landing: root.join(name).join("landing"),
    };
    vec![tier("memory"), tier("disk, a:b\\c")]
}

fn file(number: usize) -> File {
    let name = format!("d{}/f{number}", number % 10);
    let content = format!("content of {name} ").repeat(10 + number % 7).into_bytes();
    let validator = Validator::ETag(format!("etag-{number}"));
    let id = ObjectId::derive("file:///test", &name, &validator, content.len() as u64);
    File { name, id, content }
}

fn write_catalog(root: &Path, files: &[File]) -> CatalogFile {
    let tree = root.join("tree");
    for (number, file) in files.iter().enumerate() {
        let path = tree.join(&file.name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::create(&path)
            .unwrap()
            .set_len(file.content.len() as u64)
            .unwrap();
        let set = |name: &str, value: &str| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(&path, name, value.as_bytes(), flags).unwrap();
        };
        set("trusted.overlay.metacopy", "");
        set("trusted.overlay.redirect", &format!("/{}", file.id.path()));
        set("user.millpond.etag", &format!("etag-{number}"));
    }
    let image = root.join("gen-1.erofs");
    let mut mkfs = Command::new("mkfs.erofs");
    mkfs.args(["--quiet", "-Eforce-inode-extended"])
        .args([&image, &tree]);
    assert!(mkfs.output().unwrap().status.success());
    fs::remove_dir_all(tree).unwrap();
    CatalogFile {
        generation: Generation(1),
        image,
        index: root.join("gen-1.index"),
    }
}
