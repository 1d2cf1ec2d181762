//! What fsx does, read-only: one file, thousands of reads of random parts in random ways, closed and opened again and
//! dropped from the page cache in between, every byte compared.
//!
//! fsx itself (crate `fsx` 0.3.1) cannot be kept from writing: it opens its file with O_RDWR whatever its weights are, and
//! checks only what it wrote itself, having truncated the file or filled it with zeros before its first operation.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use harness::{Bucket, Mount, Scratch, View};
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rustix::fs::Advice;

use crate::model::operation::{Part, Way};
use crate::model::reading::{Outcome, read};
use crate::model::source::Content;

/// For each file of each view.
const OPERATIONS: u32 = 2_000;

fn open(mount: &Mount, key: &str, direct: bool) -> File {
    let flags = if direct { libc::O_DIRECT } else { 0 };
    OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(mount.join(key))
        .unwrap_or_else(|error| panic!("open {key}: {error}"))
}

fn exercise(mount: &Mount, key: &str, content: Content, random: &mut rand::rngs::StdRng) {
    let mut file = open(mount, key, false);
    for number in 0..OPERATIONS {
        let way = *Way::ALL.choose(random).expect("there are ways");
        let part = Part {
            offset: random.random_range(0..content.size + 10_000),
            length: random.random_range(1..250_000),
        };
        match random.random_range(0..20) {
            0 => file = open(mount, key, false),
            1 => rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("drop the file's pages"),
            _ => {}
        }
        let outcome = match way {
            // All of it, each time, would be most of the work.
            Way::Whole if number % 50 > 0 => continue,
            Way::Direct => read(&open(mount, key, true), content, way, part),
            way => read(&file, content, way, part),
        };
        match outcome {
            Ok(Outcome::Right { .. }) => {}
            // As docs/semantics.md says of a file that is not whole in the cache.
            Ok(Outcome::Failed(error))
                if way == Way::MapShared && error.raw_os_error() == Some(libc::ENODEV) => {}
            Ok(Outcome::Failed(error)) => panic!("{key}: operation {number}, {way:?} {part:?}: {error}"),
            Err(error) => panic!("{key}: operation {number}, {way:?} {part:?}: {error:?}"),
        }
    }
}

fn reads_right_in_every_way(view: View) {
    let seed = rand::random::<u64>();
    println!("{view:?}: seed {seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let scratch = Scratch::new();
    let mut bucket = Bucket::new();
    let files = [("small", 256 * 1024 + 3), ("large", (12 << 20) + 5)];
    for (seed, (key, size)) in (1..).zip(files) {
        bucket.generate(key, seed, size);
    }
    let mount = bucket.mount(&scratch, view).mount();
    for (seed, (key, size)) in (1..).zip(files) {
        exercise(&mount, key, Content { seed, size }, &mut random);
    }
    mount.unmount();
}

#[test]
fn one_file_of_the_kernel_view_reads_right_in_every_way() {
    reads_right_in_every_way(View::Kernel);
}

#[test]
fn one_file_of_the_fuse_view_reads_right_in_every_way() {
    reads_right_in_every_way(View::Fuse);
}
