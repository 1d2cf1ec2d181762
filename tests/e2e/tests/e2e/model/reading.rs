//! Reading a range of an open file in every way, and comparing each byte.

use std::fs::File;
use std::io::{self, IoSliceMut, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use anyhow::{Result, bail, ensure};
use rustix::fs::{Advice, MemfdFlags};

use crate::model::io::{Sharing, copy_mapped};
use crate::model::operation::{Part, Way};
use crate::model::source::Content;

/// Alignment that O_DIRECT wants at most.
const ALIGNMENT: u64 = 4096;

/// How a read ended that gave no wrong byte.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All bytes of the range came, and were right.
    Right {
        /// The range was all of the file.
        whole: bool,
    },
    /// What came was right, then this error.
    Failed(io::Error),
}

/// The part of a file, where it is not all of it.
fn range(content: Content, part: Part) -> Range<u64> {
    let start = part.offset % (content.size + 10_000);
    let start = start.min(content.size);
    start..content.size.min(start + part.length)
}

/// Reads a part of a file whose content is known.
///
/// # Errors
/// A wrong byte, or another number of bytes.
pub(crate) fn read(file: &File, content: Content, way: Way, part: Part) -> Result<Outcome> {
    let range = range(content, part);
    let whole = 0..content.size;
    let (read, range) = match way {
        Way::Positioned => (positioned(file, content, range.clone())?, range),
        Way::Advised => {
            for advice in [Advice::WillNeed, Advice::Random, Advice::Normal] {
                rustix::fs::fadvise(file, range.start, None, advice)?;
            }
            (positioned(file, content, range.clone())?, range)
        }
        Way::Whole => (sequential(file, content)?, whole),
        Way::Vectored => (vectored(file, content, range.clone())?, range),
        Way::Direct => {
            let start = range.start / ALIGNMENT * ALIGNMENT;
            let end = range.end.next_multiple_of(ALIGNMENT);
            (direct(file, content, start..end)?, start..end.min(content.size))
        }
        Way::MapPrivate => (mapped(file, content, Sharing::Private, range.clone())?, range),
        Way::MapShared => (mapped(file, content, Sharing::Shared, range.clone())?, range),
        Way::Sendfile => (sendfile(file, content, range.clone())?, range),
        Way::Copy => (copied(file, content, range.clone())?, range),
        Way::Holes => (holes(file, content)?, 0..0),
    };
    Ok(match read {
        Ok(()) => Outcome::Right {
            whole: range == (0..content.size),
        },
        Err(error) => Outcome::Failed(error),
    })
}

/// Errors of the kernel within, wrong bytes without.
type Attempt = Result<io::Result<()>>;

fn compare(content: Content, offset: u64, found: &[u8]) -> Result<()> {
    let end = offset + found.len() as u64;
    ensure!(
        end <= content.size,
        "{} bytes at {offset} of {content:?}",
        found.len()
    );
    if let Err(mismatch) = origin::data::check(content.seed, offset, found) {
        bail!("{content:?}: {mismatch}");
    }
    Ok(())
}

fn buffer(length: u64) -> Vec<u8> {
    vec![0xa5; usize::try_from(length).expect("a part fits in memory")]
}

fn positioned(file: &File, content: Content, range: Range<u64>) -> Attempt {
    let mut bytes = buffer(range.end - range.start + 100);
    let mut at = range.start;
    loop {
        let wanted = usize::try_from(range.end - at).expect("a part fits in memory");
        // At the very end one more read must give nothing.
        let wanted = if range.end == content.size {
            wanted + 100
        } else {
            wanted
        };
        if wanted == 0 {
            return Ok(Ok(()));
        }
        match file.read_at(&mut bytes[..wanted], at) {
            Ok(0) => {
                ensure!(at == range.end, "{content:?} ended at {at}");
                return Ok(Ok(()));
            }
            Ok(count) => {
                compare(content, at, &bytes[..count])?;
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Ok(Err(error)),
        }
    }
}

fn sequential(mut file: &File, content: Content) -> Attempt {
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = vec![0; 128 << 10];
    let mut at = 0;
    loop {
        match file.read(&mut bytes) {
            Ok(0) => {
                ensure!(at == content.size, "{content:?} ended at {at}");
                return Ok(Ok(()));
            }
            Ok(count) => {
                compare(content, at, &bytes[..count])?;
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Ok(Err(error)),
        }
    }
}

fn vectored(file: &File, content: Content, range: Range<u64>) -> Attempt {
    let mut at = range.start;
    while at < range.end {
        let (mut first, mut second) = (buffer(1_021), buffer(70_001));
        let mut slices = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        let count = match rustix::io::preadv(file, &mut slices, at) {
            Ok(count) => count,
            Err(error) => return Ok(Err(error.into())),
        };
        ensure!(count > 0, "{content:?} ended at {at}");
        let bytes = [first, second].concat();
        compare(content, at, &bytes[..count])?;
        at += count as u64;
    }
    Ok(Ok(()))
}

fn direct(file: &File, content: Content, range: Range<u64>) -> Attempt {
    let alignment = usize::try_from(ALIGNMENT)?;
    let mut bytes = buffer(range.end - range.start + ALIGNMENT);
    let start = bytes.as_ptr().align_offset(alignment);
    let aligned = &mut bytes[start..];
    let mut at = range.start;
    while at < range.end.min(content.size) {
        let length = usize::try_from(range.end - at)? / alignment * alignment;
        match file.read_at(&mut aligned[..length], at) {
            Ok(0) => bail!("{content:?} ended at {at}"),
            Ok(count) => {
                compare(content, at, &aligned[..count])?;
                at += count as u64;
                ensure!(
                    at == content.size || at.is_multiple_of(ALIGNMENT),
                    "{content:?}: a direct read ended at {at}"
                );
            }
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(()))
}

/// A file in memory that something is copied to.
fn target() -> Result<File> {
    Ok(File::from(rustix::fs::memfd_create("copy", MemfdFlags::CLOEXEC)?))
}

/// Compares what was copied, all of the range or its beginning.
fn check_copy(mut copy: &File, content: Content, range: Range<u64>, result: io::Result<()>) -> Attempt {
    let mut bytes = Vec::new();
    copy.rewind()?;
    copy.read_to_end(&mut bytes)?;
    compare(content, range.start, &bytes)?;
    let length = range.end - range.start;
    ensure!(
        result.is_err() || bytes.len() as u64 == length,
        "{content:?}: {} bytes were copied of {range:?}",
        bytes.len()
    );
    Ok(result)
}

fn mapped(file: &File, content: Content, sharing: Sharing, range: Range<u64>) -> Attempt {
    if content.size == 0 {
        // There is nothing to map.
        return Ok(Ok(()));
    }
    let mut copy = target()?;
    let within = usize::try_from(range.start)?..usize::try_from(range.end)?;
    let result = copy_mapped(file, sharing, within, &mut copy);
    check_copy(&copy, content, range, result)
}

fn sendfile(file: &File, content: Content, range: Range<u64>) -> Attempt {
    let copy = target()?;
    let result = pump(range.clone(), |offset, length| {
        rustix::fs::sendfile(copy.as_fd(), file.as_fd(), Some(offset), length)
    });
    check_copy(&copy, content, range, result)
}

fn copied(file: &File, content: Content, range: Range<u64>) -> Attempt {
    let copy = tempfile::tempfile()?;
    let mut target_offset = 0;
    let result = pump(range.clone(), |offset, length| {
        rustix::fs::copy_file_range(file, Some(offset), &copy, Some(&mut target_offset), length)
    });
    match result {
        // Between these two file systems it is for the program to read and write.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EXDEV | libc::EOPNOTSUPP | libc::EINVAL)
            ) =>
        {
            positioned(file, content, range)
        }
        result => check_copy(&copy, content, range, result),
    }
}

/// Calls until the range is copied, or nothing more comes.
fn pump(
    range: Range<u64>,
    mut copy: impl FnMut(&mut u64, usize) -> rustix::io::Result<usize>,
) -> io::Result<()> {
    let mut offset = range.start;
    while offset < range.end {
        let length = usize::try_from(range.end - offset).map_err(io::Error::other)?;
        if copy(&mut offset, length)? == 0 {
            break;
        }
    }
    Ok(())
}

fn holes(file: &File, content: Content) -> Attempt {
    use rustix::fs::SeekFrom as At;
    if content.size == 0 {
        let found = rustix::fs::seek(file, At::Data(0));
        ensure!(
            found == Err(rustix::io::Errno::NXIO),
            "data in an empty file: {found:?}"
        );
        return Ok(Ok(()));
    }
    for offset in [0, content.size / 2, content.size - 1] {
        match rustix::fs::seek(file, At::Data(offset)) {
            Ok(data) => ensure!(data == offset, "{content:?}: no data at {offset} but at {data}"),
            Err(error) => return Ok(Err(error.into())),
        }
        match rustix::fs::seek(file, At::Hole(offset)) {
            Ok(hole) => ensure!(hole == content.size, "{content:?}: a hole at {hole}"),
            Err(error) => return Ok(Err(error.into())),
        }
    }
    Ok(Ok(()))
}
