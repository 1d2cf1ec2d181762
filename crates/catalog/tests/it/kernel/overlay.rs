//! Test of a catalog as the top layer of an overlay whose data layer has the objects.

use std::os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt};
use std::path::Path;

use millpond_catalog::{BuildOptions, Builder, Catalog, Entry, SourceInfo};
use millpond_core::{ObjectId, Time, Validator};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use super::mounted::Mounted;

/// Mount that is unmounted when it is dropped.
struct View {
    directory: TempDir,
}

impl View {
    fn new(catalog: &Path, objects: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = format!(
            "metacopy=on,redirect_dir=follow,lowerdir={}::{}",
            catalog.display(),
            objects.display()
        );
        let options = std::ffi::CString::new(options).unwrap();
        mount(
            "millpond",
            directory.path(),
            "overlay",
            MountFlags::RDONLY,
            options.as_c_str(),
        )
        .unwrap();
        Self { directory }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let _ = unmount(self.directory.path(), UnmountFlags::DETACH);
    }
}

#[test]
fn an_overlay_finds_the_objects_that_a_catalog_names() {
    let directory = tempfile::tempdir().unwrap();
    let [image, index, objects] = ["image", "index", "objects"].map(|name| directory.path().join(name));
    let options = BuildOptions {
        sources: vec![SourceInfo {
            id: "s3://b".to_owned(),
            ..SourceInfo::default()
        }],
        spill_directory: directory.path().to_owned(),
        ..BuildOptions::default()
    };
    let mut builder = Builder::new(options).unwrap();
    let entry = |key: &str, size_bytes| Entry {
        source: 0,
        key: key.to_owned(),
        size_bytes,
        modified: Time { secs: 5, nanos: 6 },
        validator: Validator::ETag(format!("\"{key}\"")),
    };
    for entry in [entry("a/cached", 6), entry("a/missing", 6), entry("a/empty", 0)] {
        builder.add(&entry).unwrap();
    }
    builder.finish(&image, &index).unwrap();

    let cached = entry("a/cached", 6);
    let id = ObjectId::derive("s3://b", &cached.key, &cached.validator, 6);
    let object = objects.join(id.path());
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(object.parent().unwrap())
        .unwrap();
    std::fs::write(&object, b"cached").unwrap();
    std::fs::set_permissions(&object, std::fs::Permissions::from_mode(0o400)).unwrap();

    let mounted = Mounted::new(&image);
    let view = View::new(mounted.path(), &objects);
    let file = |name: &str| view.directory.path().join("a").join(name);
    assert_eq!(std::fs::read(file("cached")).unwrap(), b"cached");
    assert_eq!(
        std::fs::metadata(file("cached")).unwrap().permissions().mode(),
        0o100_444
    );
    // Its content is looked up when it is opened, and not before.
    assert_eq!(std::fs::metadata(file("missing")).unwrap().len(), 6);
    assert_eq!(
        std::fs::File::open(file("missing")).unwrap_err().kind(),
        std::io::ErrorKind::NotFound
    );
    // An empty file has no content to look up.
    let empty = std::fs::File::open(file("empty")).unwrap();
    assert_eq!(empty.read_at(&mut [0; 8], 0).unwrap(), 0);

    let mut names = [0; 1024];
    let length = rustix::fs::llistxattr(file("cached"), &mut names).unwrap();
    let names = String::from_utf8(names[..length].to_vec()).unwrap();
    assert!(
        names.contains("user.millpond.etag") && !names.contains("overlay"),
        "{names:?}"
    );
    let catalog = Catalog::open(&image, &index).unwrap();
    assert_eq!(
        catalog.describe(catalog.find(id).unwrap()).unwrap().key,
        "a/cached"
    );
}
