//! A catalog, tiers and a stand-in for the FUSE mount in a temporary directory; unmounts everything below it at its end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millpond_catalog::{BuildOptions, Builder, Catalog, Entry, SourceInfo};
use millpond_core::{CatalogFile, Generation, TierDirectories};
use millpond_core::{ObjectId, Time, Validator};
use tempfile::TempDir;

use super::super::{OverlayMode, ViewSpec};
use crate::mount::{ImageMount, MountTable, detach};
use crate::mounter::{Mounter, testing};

pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) id: ObjectId,
    pub(crate) content: Vec<u8>,
}

pub(crate) struct Fixture {
    pub(crate) root: TempDir,
    pub(crate) files: Vec<File>,
    pub(crate) catalog: CatalogFile,
    /// Its threads end with the test's process.
    pub(crate) mounter: Mounter,
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
        let catalog = write_catalog(root.path(), 1, &files);
        let mounter = testing::mounter(root.path());
        Self {
            root,
            files,
            catalog,
            mounter,
        }
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
            context: None,
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

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        Arc::new(Catalog::open(&self.catalog.image, &self.catalog.index).unwrap())
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

const SOURCE: &str = "file:///test";

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
    let id = ObjectId::derive(SOURCE, &name, &validator(number), content.len() as u64);
    File { name, id, content }
}

fn validator(number: usize) -> Validator {
    Validator::ETag(format!("etag-{number}"))
}

fn write_catalog(root: &Path, generation: u64, files: &[File]) -> CatalogFile {
    let source = SourceInfo {
        id: SOURCE.to_owned(),
        ..SourceInfo::default()
    };
    let options = BuildOptions {
        sources: vec![source],
        spill_directory: root.to_owned(),
        memory_bytes: 1 << 20,
        ..BuildOptions::default()
    };
    let mut builder = Builder::new(options).unwrap();
    for (number, file) in files.iter().enumerate() {
        let entry = Entry {
            source: 0,
            key: file.name.clone(),
            size_bytes: file.content.len() as u64,
            modified: Time::new(1_700_000_000, 5),
            validator: validator(number),
        };
        builder.add(&entry).unwrap();
    }
    let image = root.join(format!("gen-{generation}.erofs"));
    let index = root.join(format!("gen-{generation}.index"));
    assert_eq!(builder.finish(&image, &index).unwrap().files, files.len() as u64);
    CatalogFile {
        generation: Generation(generation),
        image,
        index,
    }
}
