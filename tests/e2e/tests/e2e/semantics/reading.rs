//! Reading, in every way that a program may.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use harness::{expect_errno, read_range};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use rand::{RngExt, SeedableRng};

use super::Statement;
use super::tree::{EMPTY, LARGE, LARGE_BYTES, SMALL, SMALL_BYTES, Tree};

pub(crate) const STATEMENTS: &[Statement] = statements![
    a_file_reads_as_its_object,
    a_large_file_reads_as_its_object,
    an_empty_file_reads_as_nothing,
    any_range_reads_right,
    a_read_at_the_end_is_short,
    a_read_past_the_end_is_empty,
    many_readers_of_one_file_agree,
    a_file_can_be_opened_many_times_at_once,
    seeking_knows_the_end,
    direct_io_reads_right,
    a_private_mapping_reads_right,
    a_private_mapping_can_be_written_for_oneself,
    a_shared_mapping_reads_right,
    sendfile_reads_right,
    copy_file_range_reads_right,
    read_ahead_hints_are_taken,
    an_open_file_is_what_its_path_says,
    a_duplicate_descriptor_shares_the_position,
    a_shared_lock_is_granted,
    any_user_may_read,
    files_are_not_executable,
    fsync_of_a_file_succeeds,
    open_without_access_time_reads_right,
];

fn a_file_reads_as_its_object(tree: &Tree) {
    for key in [SMALL, "README", "train/n01440764/img_2.jpg"] {
        assert!(fs::read(tree.join(key)).unwrap() == tree.bytes(key), "{key}");
    }
}

fn a_large_file_reads_as_its_object(tree: &Tree) {
    assert!(fs::read(tree.join(LARGE)).unwrap() == tree.bytes(LARGE));
}

fn an_empty_file_reads_as_nothing(tree: &Tree) {
    assert!(fs::read(tree.join(EMPTY)).unwrap().is_empty());
}

fn any_range_reads_right(tree: &Tree) {
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let file = File::open(tree.join(LARGE)).unwrap();
    for _ in 0..200 {
        let offset = random.random_range(0..LARGE_BYTES);
        let length = random.random_range(1..300_000);
        let end = LARGE_BYTES.min(offset + length);
        assert!(
            read_range(&file, offset as u64, length).unwrap() == tree.bytes(LARGE)[offset..end],
            "{offset}+{length}"
        );
    }
}

fn a_read_at_the_end_is_short(tree: &Tree) {
    let file = File::open(tree.join(SMALL)).unwrap();
    let mut buffer = [0; 100];
    assert_eq!(file.read_at(&mut buffer, SMALL_BYTES as u64 - 10).unwrap(), 10);
    assert_eq!(buffer[..10], tree.bytes(SMALL)[SMALL_BYTES - 10..]);
}

fn a_read_past_the_end_is_empty(tree: &Tree) {
    for key in [SMALL, LARGE, EMPTY] {
        let file = File::open(tree.join(key)).unwrap();
        assert_eq!(file.read_at(&mut [0; 100], 1 << 40).unwrap(), 0, "{key}");
    }
}

fn many_readers_of_one_file_agree(tree: &Tree) {
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(fs::read(tree.join(LARGE)).unwrap() == tree.bytes(LARGE)));
        }
    });
}

fn a_file_can_be_opened_many_times_at_once(tree: &Tree) {
    let files: Vec<_> = (0..100).map(|_| File::open(tree.join(SMALL)).unwrap()).collect();
    for file in &files {
        assert!(read_range(file, 0, SMALL_BYTES).unwrap() == tree.bytes(SMALL));
    }
}

fn seeking_knows_the_end(tree: &Tree) {
    let mut file = File::open(tree.join(LARGE)).unwrap();
    assert_eq!(file.seek(SeekFrom::End(-5)).unwrap(), LARGE_BYTES as u64 - 5);
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, tree.bytes(LARGE)[LARGE_BYTES - 5..]);
    expect_errno(
        file.seek(SeekFrom::End(-(1 << 40))),
        libc::EINVAL,
        "before the beginning",
    );
}

fn direct_io_reads_right(tree: &Tree) {
    for key in [SMALL, LARGE] {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(tree.join(key))
            .unwrap();
        let layout = std::alloc::Layout::from_size_align(1 << 16, 4_096).unwrap();
        let mut buffer = vec![0_u8; layout.size() + layout.align()];
        let start = buffer.as_ptr().align_offset(layout.align());
        let aligned = &mut buffer[start..start + layout.size()];
        let count = file.read_at(aligned, 8_192).unwrap();
        assert!(
            count > 0 && aligned[..count] == tree.bytes(key)[8_192..8_192 + count],
            "{key}"
        );
    }
}

/// The whole file, copied out of a mapping of it.
fn mapped(path: &Path, length: usize, flags: MapFlags) -> Vec<u8> {
    let file = File::open(path).unwrap();
    let size = NonZeroUsize::new(length).unwrap();
    // SAFETY: a fresh mapping of `length` bytes of a file that no process truncates, copied and unmapped here.
    unsafe {
        let address = mmap(None, size, ProtFlags::PROT_READ, flags, &file, 0).expect("map the file");
        let bytes = std::slice::from_raw_parts(address.as_ptr().cast::<u8>(), length).to_vec();
        munmap(address, length).expect("unmap the file");
        bytes
    }
}

fn a_private_mapping_reads_right(tree: &Tree) {
    for key in [SMALL, LARGE] {
        let bytes = tree.bytes(key);
        assert!(
            mapped(&tree.join(key), bytes.len(), MapFlags::MAP_PRIVATE) == bytes,
            "{key}"
        );
    }
}

fn a_private_mapping_can_be_written_for_oneself(tree: &Tree) {
    let file = File::open(tree.join(SMALL)).unwrap();
    let length = NonZeroUsize::new(SMALL_BYTES).unwrap();
    // SAFETY: a fresh private mapping, written within its length and unmapped here.
    unsafe {
        let address = mmap(
            None,
            length,
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_PRIVATE,
            &file,
            0,
        )
        .expect("map the file");
        *address.as_ptr().cast::<u8>() ^= 0xff;
        munmap(address, SMALL_BYTES).expect("unmap the file");
    }
    assert!(fs::read(tree.join(SMALL)).unwrap() == tree.bytes(SMALL));
}

fn a_shared_mapping_reads_right(tree: &Tree) {
    // Read to the end first: what is complete is mapped natively, whatever the view.
    assert!(fs::read(tree.join(SMALL)).unwrap() == tree.bytes(SMALL));
    assert!(mapped(&tree.join(SMALL), SMALL_BYTES, MapFlags::MAP_SHARED) == tree.bytes(SMALL));
}

fn sendfile_reads_right(tree: &Tree) {
    for key in [SMALL, LARGE] {
        let source = File::open(tree.join(key)).unwrap();
        let mut target = tempfile::tempfile_in(tree.outside()).unwrap();
        let mut sent = 0;
        while sent < tree.bytes(key).len() {
            let count = nix::sys::sendfile::sendfile(&target, &source, None, 1 << 30).unwrap();
            assert!(count > 0, "{key}: ended after {sent} bytes");
            sent += count;
        }
        let mut copied = Vec::new();
        target.rewind().unwrap();
        target.read_to_end(&mut copied).unwrap();
        assert!(copied == tree.bytes(key), "{key}");
    }
}

fn copy_file_range_reads_right(tree: &Tree) {
    // The standard library's copy uses copy_file_range where the kernel does.
    let target = tempfile::NamedTempFile::new_in(tree.outside()).unwrap();
    fs::copy(tree.join(LARGE), target.path()).unwrap();
    assert!(fs::read(target.path()).unwrap() == tree.bytes(LARGE));
}

fn read_ahead_hints_are_taken(tree: &Tree) {
    let file = File::open(tree.join(LARGE)).unwrap();
    for advice in [
        rustix::fs::Advice::Sequential,
        rustix::fs::Advice::WillNeed,
        rustix::fs::Advice::Random,
    ] {
        rustix::fs::fadvise(&file, 0, None, advice).unwrap();
    }
    assert!(read_range(&file, 5_000_000, 100_000).unwrap() == tree.bytes(LARGE)[5_000_000..5_100_000]);
}

fn an_open_file_is_what_its_path_says(tree: &Tree) {
    use std::os::unix::fs::MetadataExt;
    let path = tree.join(SMALL);
    let (open, named) = (
        File::open(&path).unwrap().metadata().unwrap(),
        fs::metadata(&path).unwrap(),
    );
    assert_eq!(
        (open.ino(), open.len(), open.mode()),
        (named.ino(), named.len(), named.mode())
    );
    assert_eq!(open.modified().unwrap(), named.modified().unwrap());
}

fn a_duplicate_descriptor_shares_the_position(tree: &Tree) {
    let mut file = File::open(tree.join(SMALL)).unwrap();
    let mut duplicate = file.try_clone().unwrap();
    file.seek(SeekFrom::Start(1_000)).unwrap();
    let mut buffer = [0; 10];
    duplicate.read_exact(&mut buffer).unwrap();
    assert_eq!(buffer, tree.bytes(SMALL)[1_000..1_010]);
}

fn a_shared_lock_is_granted(tree: &Tree) {
    let file = File::open(tree.join(SMALL)).unwrap();
    file.lock_shared().unwrap();
    file.unlock().unwrap();
}

fn any_user_may_read(tree: &Tree) {
    // The scratch folder is the test's own user's alone: another one is let through its parents first.
    fs::set_permissions(
        tree.outside(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let output = Command::new("cat")
        .arg(tree.join("README"))
        .uid(4_321)
        .gid(4_321)
        .output()
        .unwrap();
    assert_eq!(
        output.stdout,
        tree.bytes("README"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn files_are_not_executable(tree: &Tree) {
    expect_errno(
        Command::new(tree.join(SMALL)).spawn(),
        libc::EACCES,
        "running a file",
    );
}

fn fsync_of_a_file_succeeds(tree: &Tree) {
    let file = File::open(tree.join(SMALL)).unwrap();
    // SAFETY: a plain system call on an open descriptor.
    let result = unsafe { libc::fsync(file.as_raw_fd()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn open_without_access_time_reads_right(tree: &Tree) {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOATIME | libc::O_NOFOLLOW)
        .open(tree.join(SMALL))
        .unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert!(bytes == tree.bytes(SMALL));
}
