//! One pass over all files in random order, each byte checked.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::SeedableRng;
use rand::seq::SliceRandom;

use super::dataset::{DataSet, checksum};
use crate::interrupt::Interrupt;

/// Files that are read at once, as by the workers of a data loader.
pub(crate) const READERS: usize = 16;

const BUFFER_BYTES: usize = 256 << 10;

/// What is read, and what it must be.
pub(crate) struct Work<'a> {
    pub(crate) data: &'a DataSet,
    /// Of each file, in the order of `data`.
    pub(crate) checksums: &'a [u64],
    pub(crate) interrupt: &'a Interrupt,
}

/// How a pass went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
}

impl Work<'_> {
    /// Reads all files below `root` in the order of `seed`. `halfway` is called once, by a reader, when half of the
    /// files have been taken.
    pub(crate) fn read(
        &self,
        root: &Path,
        seed: u64,
        halfway: &(dyn Fn() -> Result<()> + Sync),
    ) -> Result<Pass> {
        let mut order: Vec<usize> = (0..self.data.files.len()).collect();
        order.shuffle(&mut rand::rngs::StdRng::seed_from_u64(seed));
        let next = AtomicUsize::new(0);
        let reader = || -> Result<u64> {
            let mut buffer = vec![0; BUFFER_BYTES];
            let mut bytes = 0;
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(&index) = order.get(at) else {
                    return Ok(bytes);
                };
                if at == order.len() / 2 {
                    halfway()?;
                }
                bytes += self.read_file(root, index, &mut buffer).inspect_err(|_failed| {
                    // The other readers can stop.
                    next.store(order.len(), Ordering::Relaxed);
                })?;
            }
        };
        let begun = Instant::now();
        let results: Vec<Result<u64>> = std::thread::scope(|scope| {
            let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(reader)).collect();
            readers
                .into_iter()
                .map(|reader| reader.join().unwrap_or_else(|_panic| bail!("a reader panicked")))
                .collect()
        });
        let time = begun.elapsed();
        let mut bytes = 0;
        for result in results {
            bytes += result?;
        }
        Ok(Pass {
            files: order.len(),
            bytes,
            time,
        })
    }

    fn read_file(&self, root: &Path, index: usize, buffer: &mut [u8]) -> Result<u64> {
        let (Some(file), Some(expected)) = (self.data.files.get(index), self.checksums.get(index)) else {
            bail!("there is no file {index}");
        };
        let path = root.join(&file.key);
        let failed = || format!("failed to read {}", path.display());
        let mut opened = fs::File::open(&path).with_context(failed)?;
        let mut sum = checksum();
        let mut bytes = 0;
        loop {
            self.interrupt.check()?;
            let count = opened.read(buffer).with_context(failed)?;
            if count == 0 {
                break;
            }
            sum.update(buffer.get(..count).unwrap_or_default());
            bytes += u64::try_from(count)?;
        }
        if bytes != file.size_bytes {
            bail!(
                "{} has {bytes} bytes instead of {}",
                path.display(),
                file.size_bytes
            );
        }
        if sum.finalize() != *expected {
            bail!("{} has other bytes than were uploaded", path.display());
        }
        Ok(bytes)
    }
}
