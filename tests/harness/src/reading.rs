//! Reading a mounted tree, and saying precisely how it went wrong.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Reads a whole file.
///
/// # Panics
/// With the path, where it cannot be read.
pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// Reads `length` bytes from `offset`; fewer at the file's end.
///
/// # Errors
/// As the kernel gives them.
pub fn read_range(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let position = offset + u64::try_from(filled).expect("a length in memory fits");
        match file.read_at(
            bytes.get_mut(filled..).expect("filled is within the buffer"),
            position,
        ) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Requires that `result` is the error `errno`.
///
/// # Panics
/// If it is not.
pub fn expect_errno<T>(result: io::Result<T>, errno: i32, what: &str) {
    match result {
        Ok(_) => panic!(
            "{what}: succeeded, expected {}",
            io::Error::from_raw_os_error(errno)
        ),
        Err(error) => assert_eq!(error.raw_os_error(), Some(errno), "{what}: {error}"),
    }
}

/// All regular files below `root`, relative to it, sorted.
///
/// # Panics
/// If a directory cannot be listed.
pub fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries = std::fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("list {}: {error}", directory.display()));
        for entry in entries {
            let entry = entry.expect("read a directory entry");
            if entry.file_type().expect("the type of a directory entry").is_dir() {
                pending.push(entry.path());
            } else {
                files.push(
                    entry
                        .path()
                        .strip_prefix(root)
                        .expect("below its root")
                        .to_owned(),
                );
            }
        }
    }
    files.sort();
    files
}

/// Drops the kernel's page cache, inodes and directory entries.
///
/// # Panics
/// Without root.
pub fn drop_caches() {
    millpond_measure::drop_caches(millpond_measure::Caches::All).expect("drop the kernel's caches");
}
