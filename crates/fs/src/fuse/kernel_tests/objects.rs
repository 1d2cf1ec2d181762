//! `objects/` and `last/`, the layers of kernel views.

use std::fs::File;
use std::sync::atomic::Ordering;

use super::super::testing::{Fault, TestFile};
use super::{Mount, Setup};

#[test]
fn a_small_object_is_landed_and_then_denied() {
    let file = TestFile::new("a", 1000);
    let Some(mount) = Mount::new(std::slice::from_ref(&file), Setup::default()) else {
        return;
    };
    mount.worker.complete(&file);
    let path = mount.path("objects").join(file.id().path());
    assert_eq!(File::open(&path).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    assert_eq!(mount.worker.lands.load(Ordering::Relaxed), 1);
    // The last layer has it all the same.
    let path = mount.path("last").join(file.id().path());
    assert_eq!(std::fs::read(path).unwrap(), file.whole());
    assert_eq!(mount.metrics.passthrough_opens.get(), 1);
}

#[test]
fn an_object_that_cannot_land_is_served() {
    let file = TestFile::new("a", 3_000_000);
    let Some(mount) = Mount::new(std::slice::from_ref(&file), Setup::default()) else {
        return;
    };
    for layer in ["objects", "last"] {
        let path = mount.path(layer).join(file.id().path());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), file.size);
        assert!(std::fs::read(path).unwrap() == file.whole());
    }
}

#[test]
fn both_layers_tell_the_true_error() {
    let (changed, unreachable) = (TestFile::new("a", 1000), TestFile::new("b", 1000));
    let Some(mount) = Mount::new(&[changed.clone(), unreachable.clone()], Setup::default()) else {
        return;
    };
    let faults = [
        (changed, Fault::Changed, libc::ESTALE),
        (unreachable, Fault::Unavailable, libc::EIO),
    ];
    for (file, fault, number) in &faults {
        mount.worker.fail(file.id(), Some(*fault));
        for layer in ["objects", "last"] {
            let path = mount.path(layer).join(file.id().path());
            assert_eq!(
                File::open(path).unwrap_err().raw_os_error(),
                Some(*number),
                "{layer}"
            );
        }
    }
    assert_eq!(
        mount.worker.lands.load(Ordering::Relaxed),
        2,
        "the last layer waits for no second deadline"
    );
}

#[test]
fn what_is_no_object_does_not_exist() {
    let file = TestFile::new("a", 1000);
    let other = TestFile::new("b", 1000);
    let Some(mount) = Mount::new(&[file], Setup::default()) else {
        return;
    };
    for layer in ["objects", "last"] {
        for name in [
            other.id().path(),
            "zz/short".to_owned(),
            "A1/x".to_owned(),
            "abc".to_owned(),
        ] {
            let error = File::open(mount.path(layer).join(&name)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{name}");
        }
    }
}

#[test]
fn an_object_keeps_its_number_over_generations() {
    use std::os::unix::fs::MetadataExt;
    let file = TestFile::new("a", 1000);
    let Some(mount) = Mount::new(std::slice::from_ref(&file), Setup::default()) else {
        return;
    };
    let path = mount.path("last").join(file.id().path());
    let held = File::open(&path).unwrap();
    let before = held.metadata().unwrap().ino();
    mount.show(2, &[TestFile::new("0", 5), file.clone()]);
    super::wait_until("the new generation", || mount.path("live/0").exists());
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), before);
    assert_eq!(std::fs::read(path).unwrap(), file.whole());
}
