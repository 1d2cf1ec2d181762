//! Bytes: by passthrough, without it, complete and not.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::Ordering;

use super::super::Unmount;
use super::super::testing::{Fault, TestFile};
use super::io::{lease, map_private, map_shared};
use super::{Mount, Setup, wait_until};

const WITH: Setup = Setup {
    passthrough: true,
    layout: super::Layout::Directories,
    idle: 0,
};
const WITHOUT: Setup = Setup {
    passthrough: false,
    layout: super::Layout::Directories,
    idle: 0,
};

fn files() -> Vec<TestFile> {
    vec![
        TestFile::new("small", 4097),
        TestFile::new("large", 5_000_001),
        TestFile::new("empty", 0),
    ]
}

/// Reads a file in every way.
fn read_all_ways(mount: &Mount, file: &TestFile) {
    let path = mount.path("live").join(&file.path);
    let whole = file.whole();
    assert!(std::fs::read(&path).unwrap() == whole, "read");

    let open = File::open(&path).unwrap();
    for offset in [
        0,
        1,
        4095,
        4096,
        file.size / 2,
        file.size.saturating_sub(1),
        file.size,
        file.size + 10,
    ] {
        let mut piece = vec![0; 10_000];
        let length = open.read_at(&mut piece, offset).unwrap();
        assert!(
            piece[..length] == file.content(offset.min(file.size)..(offset + 10_000))[..],
            "{offset}"
        );
    }
    let mut end = File::open(&path).unwrap();
    assert_eq!(end.seek(SeekFrom::End(0)).unwrap(), file.size);
    assert_eq!(end.read(&mut [0]).unwrap(), 0);

    let mut direct = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)
        .unwrap();
    let mut bytes = Vec::new();
    // An aligned buffer: the allocator places large ones at page boundaries plus its header.
    let mut buffer = vec![0; 1 << 20];
    let skip = buffer.as_ptr().align_offset(4096);
    loop {
        let length = direct.read(&mut buffer[skip..skip + (1 << 19)]).unwrap();
        if length == 0 {
            break;
        }
        bytes.extend_from_slice(&buffer[skip..skip + length]);
    }
    assert!(bytes == whole, "O_DIRECT");
    drop(direct);

    let (mut reader, writer) = std::io::pipe().unwrap();
    let copied = std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let mut copied = Vec::new();
            reader.read_to_end(&mut copied).unwrap();
            copied
        });
        let mut offset = 0;
        while rustix::fs::sendfile(&writer, &open, Some(&mut offset), 1 << 20).unwrap() > 0 {}
        drop(writer);
        reading.join().unwrap()
    });
    assert!(copied == whole, "sendfile");

    if file.size > 0 {
        assert!(map_private(&open).unwrap()[..] == whole[..], "MAP_PRIVATE");
        assert!(map_shared(&open).unwrap()[..] == whole[..], "MAP_SHARED");
    }
}

#[test]
fn complete_files_read_right_by_passthrough() {
    let Some(mount) = Mount::new(&files(), WITH) else {
        return;
    };
    for file in files() {
        mount.worker.complete(&file);
        read_all_ways(&mount, &file);
    }
    assert_eq!(mount.worker.reads.load(Ordering::Relaxed), 0);
    assert_eq!(mount.metrics.direct_opens.get(), 0);
    assert!(mount.metrics.passthrough_opens.get() >= 12);
}

#[test]
fn complete_files_read_right_without_passthrough() {
    let Some(mount) = Mount::new(&files(), WITHOUT) else {
        return;
    };
    for file in files() {
        mount.worker.complete(&file);
        read_all_ways(&mount, &file);
    }
    assert_eq!(mount.metrics.passthrough_opens.get(), 0);
    assert!(mount.metrics.local_bytes.get() > 0);
}

#[test]
fn incomplete_files_read_right() {
    for setup in [WITH, WITHOUT] {
        let Some(mount) = Mount::new(&files(), setup) else {
            return;
        };
        for file in files() {
            read_all_ways(&mount, &file);
        }
        assert_eq!(mount.metrics.passthrough_opens.get(), 0);
        assert!(mount.metrics.origin_bytes.get() > 5_000_000);
    }
}

#[test]
fn a_file_that_became_complete_is_passed_through_when_nobody_has_it_open() {
    let file = TestFile::new("large", 3_000_000);
    let Some(mount) = Mount::new(std::slice::from_ref(&file), WITH) else {
        return;
    };
    let path = mount.path("live/large");
    let held = File::open(&path).unwrap();
    let mut piece = vec![0; 1000];
    held.read_exact_at(&mut piece, 10).unwrap();
    mount.worker.complete(&file);
    // While it is open, further opens join its mode.
    assert!(std::fs::read(&path).unwrap() == file.whole());
    let shared = map_shared(&held).unwrap();
    assert!(std::fs::read(&path).unwrap() == file.whole());
    assert_eq!(mount.metrics.passthrough_opens.get(), 0);
    assert!(shared[..] == file.whole()[..]);
    drop(shared);
    drop(held);
    wait_until("the releases", || mount.worker.closed.lock().len() == 3);
    let held = File::open(&path).unwrap();
    assert_eq!(mount.metrics.passthrough_opens.get(), 1);
    assert!(std::fs::read(&path).unwrap() == file.whole());
    held.read_exact_at(&mut piece, 10).unwrap();
    assert!(piece == file.content(10..1010));
}

#[test]
fn an_evicted_file_reads_on_while_it_is_open_by_passthrough() {
    let file = TestFile::new("large", 3_000_000);
    for idle in [0, 10] {
        let Some(mount) = Mount::new(std::slice::from_ref(&file), Setup { idle, ..WITH }) else {
            return;
        };
        mount.worker.complete(&file);
        let path = mount.path("live/large");
        let held = File::open(&path).unwrap();
        mount.worker.evict(&file);
        assert!(std::fs::read(&path).unwrap() == file.whole());
        assert_eq!(mount.worker.reads.load(Ordering::Relaxed), 0);
        drop(held);
        wait_until("the file to be closed", || {
            mount.server.release(&[file.id()]);
            let before = mount.metrics.direct_opens.get();
            assert!(std::fs::read(&path).unwrap() == file.whole());
            mount.metrics.direct_opens.get() > before
        });
    }
}

#[test]
fn an_object_can_be_leased_when_nobody_has_it_open() {
    let file = TestFile::new("f", 100_000);
    for idle in [0, 10] {
        let Some(mount) = Mount::new(std::slice::from_ref(&file), Setup { idle, ..WITH }) else {
            return;
        };
        mount.worker.complete(&file);
        let object = File::open(super::super::testing::object_path(
            mount.directory.path(),
            file.id(),
        ))
        .unwrap();
        let held = File::open(mount.path("live/f")).unwrap();
        assert!(lease(&object, libc::F_WRLCK).is_err(), "it is open");
        drop(held);
        if idle > 0 {
            assert!(lease(&object, libc::F_WRLCK).is_err(), "its id is idle");
        }
        wait_until("the lease", || {
            mount.server.release(&[file.id()]);
            lease(&object, libc::F_WRLCK).is_ok()
        });
        lease(&object, libc::F_UNLCK).unwrap();
    }
}

#[test]
fn many_files_are_opened_again_and_again() {
    let files: Vec<_> = (0..200)
        .map(|index| TestFile::new(format!("d/{index}"), 1000 + index))
        .collect();
    for idle in [0, 50, 1000] {
        let Some(mount) = Mount::new(&files, Setup { idle, ..WITH }) else {
            return;
        };
        for file in &files {
            mount.worker.complete(file);
        }
        std::thread::scope(|scope| {
            for start in 0..4 {
                let (mount, files) = (&mount, &files);
                scope.spawn(move || {
                    for index in 0..600 {
                        let file = &files[(start * 50 + index) % files.len()];
                        let path = mount.path("live").join(&file.path);
                        assert!(std::fs::read(path).unwrap() == file.whole());
                    }
                });
            }
        });
        assert_eq!(mount.metrics.passthrough_opens.get(), 2400);
        assert_eq!(mount.metrics.errors.get(), 0);
    }
}

#[test]
fn failures_have_their_error_numbers() {
    let file = TestFile::new("f", 100_000);
    let Some(mount) = Mount::new(std::slice::from_ref(&file), WITH) else {
        return;
    };
    let path = mount.path("live/f");
    for (fault, number) in [
        (Fault::Changed, libc::ESTALE),
        (Fault::Unavailable, libc::EIO),
        (Fault::Short, libc::EIO),
    ] {
        mount.worker.fail(file.id(), Some(fault));
        assert_eq!(
            std::fs::read(&path).unwrap_err().raw_os_error(),
            Some(number),
            "{fault:?}"
        );
    }
    mount.worker.fail(file.id(), None);
    assert!(std::fs::read(&path).unwrap() == file.whole());
}

#[test]
fn a_complete_file_cut_short_is_an_error_and_no_signal() {
    let file = TestFile::new("f", 100_000);
    let Some(mount) = Mount::new(std::slice::from_ref(&file), WITHOUT) else {
        return;
    };
    mount.worker.complete(&file);
    let held = File::open(mount.path("live/f")).unwrap();
    let object = super::super::testing::object_path(mount.directory.path(), file.id());
    OpenOptions::new()
        .write(true)
        .open(object)
        .unwrap()
        .set_len(0)
        .unwrap();
    let error = held.read_exact_at(&mut [0; 5000], 50_000).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
}

#[test]
fn a_mount_in_use_is_unmounted_only_by_force() {
    let file = TestFile::new("f", 100_000);
    let Some(mount) = Mount::new(std::slice::from_ref(&file), WITH) else {
        return;
    };
    let held = File::open(mount.path("live/f")).unwrap();
    assert!(mount.server.unmount(Unmount::IfIdle).is_err());
    mount.server.unmount(Unmount::Detach).unwrap();
    let mut whole = vec![0; 100_000];
    held.read_exact_at(&mut whole, 0).unwrap();
    assert!(whole == file.whole());
    drop(held);
    mount._runtime.block_on(mount.server.wait());
    assert!(!mount.path("live").exists());
}
