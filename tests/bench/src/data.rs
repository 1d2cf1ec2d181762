//! Sets of files that follow from a seed: as objects of the server, as a native copy, and checked byte for byte.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Error, Result, bail};

/// Written and checked at once.
const PIECE_BYTES: usize = 1 << 20;

/// Threads that write or check.
const THREADS: usize = 4;

/// The bucket of all sets.
pub(crate) const BUCKET: &str = "figures";

/// Files of one size: file N has the data of seed + N.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    name: &'static str,
    count: u64,
    file_bytes: u64,
    seed: u64,
    /// Files in a directory.
    each: u64,
    /// Their paths, in the order of their numbers.
    files: Vec<PathBuf>,
}

impl Set {
    pub(crate) fn new(name: &'static str, count: u64, file_bytes: u64, seed: u64, each: u64) -> Self {
        let path = |number: u64| PathBuf::from(format!("{:05}/{number:08}", number / each.max(1)));
        Self {
            name,
            count,
            file_bytes,
            seed,
            each,
            files: (0..count).map(path).collect(),
        }
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// Where it is at the server.
    pub(crate) fn source(&self) -> String {
        format!("s3://{BUCKET}/{}", self.name)
    }

    /// The words that give it to the server.
    pub(crate) fn objects(&self) -> String {
        let Self {
            name,
            count,
            file_bytes,
            seed,
            each,
            files: _,
        } = self;
        format!("{BUCKET}/{name}/,{count},{file_bytes},{seed},{each}")
    }

    /// The path of a request for a file.
    pub(crate) fn request(&self, file: &Path) -> String {
        format!("/{BUCKET}/{}/{}", self.name, file.display())
    }

    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The first file: the only one of a large set.
    pub(crate) fn first(&self) -> &Path {
        self.files.first().map_or(Path::new(""), PathBuf::as_path)
    }

    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    pub(crate) const fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    pub(crate) const fn total_bytes(&self) -> u64 {
        self.count * self.file_bytes
    }

    /// The directories of the files.
    pub(crate) fn make_directories(&self, root: &Path) -> Result<()> {
        let directories = self.files.iter().step_by(usize::try_from(self.each)?);
        for directory in directories.filter_map(|file| file.parent()) {
            let path = root.join(directory);
            fs::create_dir_all(&path).with_context(|| format!("failed to make {}", path.display()))?;
        }
        Ok(())
    }

    /// Writes the files below `root`.
    pub(crate) fn write(&self, root: &Path) -> Result<()> {
        self.make_directories(root)?;
        // One thread: each file in one piece of the disk, in the order of their numbers.
        let mut buffer = vec![0; PIECE_BYTES];
        for (number, file) in self.files.iter().enumerate() {
            let path = root.join(file);
            self.write_one(&path, number, &mut buffer)
                .with_context(|| format!("failed to write {}", path.display()))?;
        }
        Ok(())
    }

    fn write_one(&self, path: &Path, number: usize, buffer: &mut [u8]) -> Result<()> {
        let mut file = File::create(path)?;
        let mut offset = 0;
        while offset < self.file_bytes {
            let length = usize::try_from(self.file_bytes - offset)?.min(buffer.len());
            let (piece, _) = buffer.split_at_mut(length);
            origin::data::fill(self.seed_of(number)?, offset, piece);
            file.write_all(piece)?;
            offset += u64::try_from(length)?;
        }
        Ok(())
    }

    /// Makes the files below `root` with their sizes and no data.
    pub(crate) fn write_holes(&self, root: &Path) -> Result<()> {
        self.make_directories(root)?;
        for file in &self.files {
            let path = root.join(file);
            File::create(&path)
                .and_then(|file| file.set_len(self.file_bytes))
                .with_context(|| format!("failed to write {}", path.display()))?;
        }
        Ok(())
    }

    /// Reads these files of the set below `root`, in this order, by so many threads, and compares every byte.
    pub(crate) fn check_in_order(&self, root: &Path, order: &[usize], threads: usize) -> Result<()> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut buffer = vec![0; PIECE_BYTES];
            while let Some(&number) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                let file = self.files.get(number).context("a number beyond the set")?;
                let path = root.join(file);
                self.check_one(&path, number, &mut buffer)
                    .with_context(|| format!("{} is not what it should be", path.display()))?;
            }
            Ok::<(), Error>(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
            for thread in threads {
                match thread.join() {
                    Ok(result) => result?,
                    Err(_panic) => bail!("a checking thread panicked"),
                }
            }
            Ok(())
        })
    }

    /// Compares every byte of the files below `root`.
    pub(crate) fn check(&self, root: &Path) -> Result<()> {
        let order: Vec<usize> = (0..self.files.len()).collect();
        self.check_in_order(root, &order, THREADS)
    }

    fn check_one(&self, path: &Path, number: usize, buffer: &mut [u8]) -> Result<()> {
        let mut file = File::open(path)?;
        let seed = self.seed_of(number)?;
        let mut offset = 0;
        loop {
            let count = read_full(&mut file, buffer)?;
            let (piece, _) = buffer.split_at(count);
            origin::data::check(seed, offset, piece)?;
            offset += u64::try_from(count)?;
            if count < buffer.len() {
                break;
            }
        }
        if offset != self.file_bytes {
            bail!("it has {offset} bytes, not {}", self.file_bytes);
        }
        Ok(())
    }

    fn seed_of(&self, number: usize) -> Result<u64> {
        Ok(self.seed.wrapping_add(u64::try_from(number)?))
    }
}

/// Requires that a pass read what it should.
pub(crate) fn expect_bytes(found: u64, expected: u64) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    bail!("a pass read {found} bytes, not {expected}")
}

/// Fills the buffer, or as much of it as there is.
fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> Set {
        Set::new("some", 7, 70_000, 5, 3)
    }

    #[test]
    fn what_is_written_is_right_and_one_wrong_byte_is_seen() {
        let root = tempfile::tempdir().expect("make a directory");
        let set = set();
        set.write(root.path()).expect("write");
        set.check(root.path()).expect("all is right");
        let file = root.path().join(set.files().last().expect("seven files"));
        let mut bytes = fs::read(&file).expect("read");
        bytes[60_000] ^= 1;
        fs::write(&file, &bytes).expect("write");
        let error = format!("{:#}", set.check(root.path()).expect_err("a byte is wrong"));
        assert!(error.contains("byte 60000"), "{error}");
        fs::write(&file, &bytes[..60_000]).expect("write");
        let error = format!("{:#}", set.check(root.path()).expect_err("bytes are missing"));
        assert!(error.contains("60000 bytes, not 70000"), "{error}");
    }

    #[test]
    fn the_server_is_told_the_same_names() {
        let set = set();
        assert_eq!(set.objects(), "figures/some/,7,70000,5,3");
        assert_eq!(set.request(&set.files()[6]), "/figures/some/00002/00000006");
    }
}
