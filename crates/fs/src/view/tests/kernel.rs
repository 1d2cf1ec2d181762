//! One kernel view.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use super::super::{InUse, KernelView, OverlayMode, ViewError};
use super::fixture::{Fixture, MODES};
use super::io::take_write_lease;
use crate::mount::{MountTable, detach};

fn read(path: impl AsRef<std::path::Path>) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs::File::open(path)?.read_to_end(&mut content)?;
    Ok(content)
}

#[test]
fn names_sizes_and_attributes_come_from_the_catalog_without_any_object() {
    let fixture = Fixture::new(30);
    let _image = fixture.image();
    for mode in MODES {
        let spec = fixture.spec(format!("view-{mode:?}"));
        let view = KernelView::mount(spec.clone(), mode, &fixture.mounter).unwrap();
        let names = |dir: &str| {
            let list = fs::read_dir(spec.target.join(dir)).unwrap();
            let mut names: Vec<_> = list.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names("").len(), 10);
        assert_eq!(names("d3"), ["f13", "f23", "f3"]);
        for file in &fixture.files {
            let path = spec.target.join(&file.name);
            assert_eq!(fs::metadata(&path).unwrap().size(), file.content.len() as u64);
            let mut etag = [0; 100];
            let length = rustix::fs::getxattr(&path, "user.millpond.etag", &mut etag[..]).unwrap();
            let number = file.name.split_once("/f").unwrap().1;
            assert_eq!(etag[..length], *format!("etag-{number}").as_bytes());
        }
        view.unmount(InUse::Refuse).unwrap();
    }
}

#[test]
fn an_object_is_found_in_every_layer_and_in_the_fastest_first() {
    let fixture = Fixture::new(5);
    let _image = fixture.image();
    let layers = fixture.spec("unused").data_layers();
    assert_eq!(layers.len(), 6);
    for mode in MODES {
        let target = fixture.path().join(format!("view-{mode:?}"));
        for (layer, path) in (b'a'..).zip(&layers).collect::<Vec<_>>().into_iter().rev() {
            let view = KernelView::mount(fixture.spec(&target), mode, &fixture.mounter).unwrap();
            let marked = |byte: u8| vec![byte; fixture.files[0].content.len()];
            let object = fixture.put(path, &fixture.files[0]);
            fs::write(&object, marked(layer)).unwrap();
            assert_eq!(read(target.join(&fixture.files[0].name)).unwrap(), marked(layer));
            view.unmount(InUse::Refuse).unwrap();
        }
        for path in &layers {
            fs::remove_dir_all(path).unwrap();
            fs::create_dir(path).unwrap();
        }
    }
}

#[test]
fn a_missing_object_is_found_as_soon_as_it_is_there() {
    let fixture = Fixture::new(3);
    let _image = fixture.image();
    for mode in MODES {
        let spec = fixture.spec(format!("view-{mode:?}"));
        let view = KernelView::mount(spec.clone(), mode, &fixture.mounter).unwrap();
        let file = &fixture.files[1];
        assert_eq!(
            read(spec.target.join(&file.name)).unwrap_err().raw_os_error(),
            Some(libc::ENOENT)
        );
        let landed = fixture.put("memory/landing", file);
        assert_eq!(read(spec.target.join(&file.name)).unwrap(), file.content);
        fs::rename(landed, fixture.put("memory/objects", file)).unwrap();
        assert_eq!(read(spec.target.join(&file.name)).unwrap(), file.content);
        view.unmount(InUse::Refuse).unwrap();
        fs::remove_file(fixture.path().join("memory/objects").join(file.id.path())).unwrap();
    }
}

#[test]
fn modifying_calls_are_refused() {
    let fixture = Fixture::new(3);
    let _image = fixture.image();
    fixture.put_all("memory/objects");
    let spec = fixture.spec("view");
    let view = KernelView::mount(spec.clone(), OverlayMode::Handles, &fixture.mounter).unwrap();
    let path = spec.target.join(&fixture.files[0].name);
    let errors = [
        fs::OpenOptions::new().write(true).open(&path).err(),
        fs::remove_file(&path).err(),
        fs::write(spec.target.join("new"), "").err(),
        fs::set_permissions(&path, fs::metadata(&path).unwrap().permissions()).err(),
    ];
    for error in errors {
        assert_eq!(error.unwrap().raw_os_error(), Some(libc::EROFS));
    }
    view.unmount(InUse::Refuse).unwrap();
}

#[test]
fn a_remount_gives_the_space_of_unlinked_objects_back() {
    let fixture = Fixture::new(50);
    let _image = fixture.image();
    let memory = fixture.path().join("memory");
    let context = crate::mount::Context::open("tmpfs", &memory).unwrap();
    context.text("size", OsStr::new("16M")).unwrap();
    context.create_writable().unwrap().attach(&memory).unwrap();
    fs::create_dir(memory.join("objects")).unwrap();
    fs::create_dir(memory.join("landing")).unwrap();
    let used = || {
        let found = rustix::fs::statvfs(&memory).unwrap();
        found.f_blocks - found.f_bfree
    };
    for mode in MODES {
        let empty = used();
        fixture.put_all("memory/objects");
        let spec = fixture.spec(format!("view-{mode:?}"));
        let view = KernelView::mount(spec.clone(), mode, &fixture.mounter).unwrap();
        for file in &fixture.files {
            assert_eq!(read(spec.target.join(&file.name)).unwrap(), file.content);
        }
        let held = fs::File::open(spec.target.join(&fixture.files[7].name)).unwrap();
        for file in &fixture.files {
            fs::remove_file(memory.join("objects").join(file.id.path())).unwrap();
        }
        assert!(
            used() >= empty + 50,
            "the overlay references the unlinked objects"
        );
        view.remount().unwrap();
        assert!(used() < empty + 50, "the overlay has released them");
        let mut content = vec![0; fixture.files[7].content.len()];
        held.read_exact_at(&mut content, 0).unwrap();
        assert_eq!(content, fixture.files[7].content, "an open file stays readable");
        drop(held);
        for file in &fixture.files {
            // The one that was open stays referenced until the next remount.
            if file.id != fixture.files[7].id {
                let error = read(spec.target.join(&file.name)).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
            }
        }
        view.unmount(InUse::Refuse).unwrap();
        fs::remove_dir_all(memory.join("objects")).unwrap();
        fs::create_dir(memory.join("objects")).unwrap();
    }
    detach(&memory).unwrap();
}

#[test]
fn a_write_lease_is_refused_while_the_object_is_open_through_the_view() {
    let fixture = Fixture::new(3);
    let _image = fixture.image();
    let object = fixture.put("memory/objects", &fixture.files[0]);
    for mode in MODES {
        let spec = fixture.spec(format!("view-{mode:?}"));
        let view = KernelView::mount(spec.clone(), mode, &fixture.mounter).unwrap();
        let lease = || {
            let owner = fs::File::open(&object).unwrap();
            take_write_lease(&owner).map_err(|error| error.raw_os_error())
        };
        let reader = fs::File::open(spec.target.join(&fixture.files[0].name)).unwrap();
        assert_eq!(lease(), Err(Some(libc::EAGAIN)));
        drop(reader);
        assert_eq!(lease(), Ok(()), "though the overlay still references the inode");
        view.unmount(InUse::Refuse).unwrap();
    }
}

#[test]
fn hostile_targets_are_only_bytes() {
    let fixture = Fixture::new(10);
    let _image = fixture.image();
    fixture.put_all("disk, a:b\\c/objects");
    let names: [&[u8]; 6] = [
        b"a,b=c:d",
        b"sp ace\ttab",
        b"line\nbreak",
        b"back\\040slash",
        b"\xff\xfe",
        &[b'n'; 250],
    ];
    let views: Vec<_> = names
        .iter()
        .map(|name| {
            let target = PathBuf::from("targets").join(OsStr::from_bytes(name));
            KernelView::mount(fixture.spec(target), OverlayMode::Handles, &fixture.mounter).unwrap()
        })
        .collect();
    for view in &views {
        assert!(view.is_mounted().unwrap());
        for file in &fixture.files {
            assert_eq!(read(view.spec().target.join(&file.name)).unwrap(), file.content);
        }
        assert!(matches!(
            KernelView::mount(view.spec().clone(), OverlayMode::Handles, &fixture.mounter),
            Err(ViewError::Occupied { .. })
        ));
    }
    for view in &views {
        view.unmount(InUse::Refuse).unwrap();
        assert!(!view.is_mounted().unwrap());
        view.unmount(InUse::Refuse).unwrap();
    }
}

#[test]
fn layers_with_long_paths_are_mounted_and_found_again() {
    let fixture = Fixture::new(3);
    let _image = fixture.image();
    let mut spec = fixture.spec("view");
    let long = fixture.path().join("x".repeat(200)).join("y".repeat(200));
    fs::create_dir_all(&long).unwrap();
    fs::rename(fixture.path().join("memory"), long.join("memory")).unwrap();
    spec.tiers[0].objects = long.join("memory/objects");
    spec.tiers[0].landing = long.join("memory/landing");
    fixture.put(&spec.tiers[0].objects, &fixture.files[0]);
    let _view = KernelView::mount(spec.clone(), OverlayMode::Handles, &fixture.mounter).unwrap();
    assert_eq!(
        read(spec.target.join(&fixture.files[0].name)).unwrap(),
        fixture.files[0].content
    );
    assert!(KernelView::adopt(spec).unwrap().is_some());
}

#[test]
fn a_view_is_adopted_only_where_it_is_the_same() {
    let fixture = Fixture::new(3);
    let _image = fixture.image();
    fixture.put_all("memory/objects");
    for mode in MODES {
        let spec = fixture.spec(format!("view-{mode:?}"));
        assert!(
            KernelView::adopt(spec.clone()).unwrap().is_none(),
            "nothing is mounted yet"
        );
        drop(KernelView::mount(spec.clone(), mode, &fixture.mounter).unwrap());
        let view = KernelView::adopt(spec.clone()).unwrap().unwrap();
        assert_eq!(view.mode(), mode);
        assert_eq!(
            read(spec.target.join(&fixture.files[0].name)).unwrap(),
            fixture.files[0].content
        );
        view.remount().unwrap();

        let mut other = spec.clone();
        other.name = "other".to_owned();
        assert!(matches!(
            KernelView::adopt(other),
            Err(ViewError::Occupied { .. })
        ));
        let mut other = spec.clone();
        other.tiers.pop();
        assert!(matches!(
            KernelView::adopt(other),
            Err(ViewError::Occupied { .. })
        ));
        let mut other = spec.clone();
        other.catalog.generation.0 = 2;
        assert!(matches!(
            KernelView::adopt(other),
            Err(ViewError::Occupied { .. })
        ));
        view.unmount(InUse::Refuse).unwrap();
        assert!(
            !MountTable::read()
                .unwrap()
                .iter()
                .any(|mount| mount.point == spec.target)
        );
    }
}

#[test]
fn a_view_in_use_stays_or_is_detached_as_asked() {
    let fixture = Fixture::new(3);
    let _image = fixture.image();
    fixture.put_all("memory/objects");
    let spec = fixture.spec("view");
    let view = KernelView::mount(spec.clone(), OverlayMode::Handles, &fixture.mounter).unwrap();
    let held = fs::File::open(spec.target.join(&fixture.files[0].name)).unwrap();
    assert!(matches!(view.unmount(InUse::Refuse), Err(ViewError::Busy { .. })));
    assert!(view.is_mounted().unwrap());
    view.unmount(InUse::Detach).unwrap();
    assert!(!view.is_mounted().unwrap());
    let mut byte = [0];
    held.read_exact_at(&mut byte, 0).unwrap();
}

#[test]
fn a_view_outlives_the_mount_of_its_image() {
    let fixture = Fixture::new(3);
    let image = fixture.image();
    fixture.put_all("memory/objects");
    let spec = fixture.spec("view");
    let view = KernelView::mount(spec.clone(), OverlayMode::Handles, &fixture.mounter).unwrap();
    image.detach().unwrap();
    assert!(!image.point().exists());
    for file in &fixture.files {
        assert_eq!(read(spec.target.join(&file.name)).unwrap(), file.content);
    }
    view.remount().unwrap();
    assert_eq!(
        read(spec.target.join(&fixture.files[0].name)).unwrap(),
        fixture.files[0].content
    );
    view.unmount(InUse::Refuse).unwrap();
}
