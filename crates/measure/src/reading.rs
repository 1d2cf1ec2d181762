//! Read workloads: run on a mount and on the local disk, by the same code in the same order.
//!
//! Each returns how many bytes it read, so that a short pass is noticed. None inspects the bytes.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// Buffer for reads of small files.
const SMALL_BUFFER_BYTES: usize = 256 << 10;

/// Reads a file from its start to its end, or to `limit`.
///
/// # Errors
/// Errors of the kernel.
pub fn read_sequentially(path: &Path, limit: u64, buffer_bytes: usize) -> io::Result<u64> {
    let mut buffer = vec![0; buffer_bytes];
    read_through(path, limit, &mut buffer)
}

/// Reads `reads` pieces of `length_bytes` at random aligned offsets in the first `bytes` of a file; the same offsets for
/// the same seed. The last piece of a file may be short.
///
/// # Errors
/// Errors of the kernel.
pub fn read_randomly(path: &Path, bytes: u64, length_bytes: usize, reads: u64, seed: u64) -> io::Result<u64> {
    let file = File::open(path)?;
    let mut buffer = vec![0; length_bytes];
    let mut random = StdRng::seed_from_u64(seed);
    let length = u64::try_from(length_bytes).unwrap_or(u64::MAX).max(1);
    let places = (bytes / length).max(1);
    let mut total = 0;
    for _ in 0..reads {
        let offset = random.random_range(0..places) * length;
        total += u64::try_from(file.read_at(&mut buffer, offset)?).unwrap_or(u64::MAX);
    }
    Ok(total)
}

/// Maps a file and reads every byte of the map.
///
/// # Errors
/// Errors of the kernel.
pub fn read_mapped(path: &Path) -> io::Result<u64> {
    let map = crate::io::map(&File::open(path)?)?;
    let (words, rest) = map.as_chunks::<8>();
    let sum = words
        .iter()
        .fold(0_u64, |sum, word| sum.wrapping_add(u64::from_ne_bytes(*word)));
    std::hint::black_box((sum, rest.iter().map(|&byte| u64::from(byte)).sum::<u64>()));
    Ok(u64::try_from(map.len()).unwrap_or(u64::MAX))
}

/// Stats, opens, reads and closes each file below `root`, in this order, by `threads` threads that each take the next one.
///
/// # Errors
/// The first error of a thread.
pub fn read_files(root: &Path, files: &[PathBuf], threads: usize) -> io::Result<u64> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut buffer = vec![0; SMALL_BUFFER_BYTES];
        let mut total = 0;
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let path = root.join(file);
            fs::metadata(&path)?;
            total += read_through(&path, u64::MAX, &mut buffer)?;
        }
        Ok(total)
    };
    if threads <= 1 {
        return work();
    }
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let totals = threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_panic| Err(io::Error::other("a reading thread panicked")))
        });
        totals.sum()
    })
}

/// Stats each file below `root`, in this order.
///
/// # Errors
/// Errors of the kernel.
pub fn stat_files(root: &Path, files: &[PathBuf]) -> io::Result<()> {
    files
        .iter()
        .try_for_each(|file| fs::symlink_metadata(root.join(file)).map(drop))
}

/// Returns the paths in random order, the same for the same seed.
#[must_use]
pub fn shuffled(files: &[PathBuf], seed: u64) -> Vec<PathBuf> {
    let mut order = files.to_vec();
    order.shuffle(&mut StdRng::seed_from_u64(seed));
    order
}

fn read_through(path: &Path, limit: u64, buffer: &mut [u8]) -> io::Result<u64> {
    let mut file = File::open(path)?.take(limit);
    let mut total = 0;
    loop {
        let count = file.read(buffer)?;
        if count == 0 {
            return Ok(total);
        }
        total += u64::try_from(count).unwrap_or(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_reads_all_that_it_should() {
        let directory = tempfile::tempdir().expect("make a directory");
        let names: Vec<PathBuf> = (0..20)
            .map(|number| PathBuf::from(format!("file-{number}")))
            .collect();
        for name in &names {
            fs::write(directory.path().join(name), vec![7; 300_001]).expect("write a file");
        }
        let one = directory.path().join("file-3");
        assert_eq!(read_sequentially(&one, u64::MAX, 4096).expect("read"), 300_001);
        assert_eq!(read_sequentially(&one, 5000, 4096).expect("read"), 5000);
        assert_eq!(read_randomly(&one, 300_001, 1000, 50, 1).expect("read"), 50_000);
        assert_eq!(read_mapped(&one).expect("map"), 300_001);
        for threads in [1, 4] {
            assert_eq!(
                read_files(directory.path(), &shuffled(&names, 5), threads).expect("read"),
                20 * 300_001
            );
        }
        stat_files(directory.path(), &names).expect("stat");
    }

    #[test]
    fn a_missing_file_is_an_error_in_every_thread() {
        let directory = tempfile::tempdir().expect("make a directory");
        let missing = [PathBuf::from("missing")];
        for threads in [1, 4] {
            assert!(read_files(directory.path(), &missing, threads).is_err());
        }
        assert!(stat_files(directory.path(), &missing).is_err());
    }

    #[test]
    fn an_order_is_all_files_and_goes_by_its_seed() {
        let files: Vec<PathBuf> = (0..100).map(|number| PathBuf::from(number.to_string())).collect();
        let order = shuffled(&files, 1);
        assert_ne!(order, files);
        assert_eq!(order, shuffled(&files, 1));
        let mut sorted = order;
        sorted.sort_by_key(|path| files.iter().position(|known| known == path));
        assert_eq!(sorted, files);
    }
}
