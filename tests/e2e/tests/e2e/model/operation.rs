//! What may happen, and how often.
//!
//! Operations name files and open handles by numbers, which are taken modulo what there is: so every sequence can be
//! run, and shrinks to one that can.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::model::source::{Content, FILES, KEYS, LONGEST, TOO_LONG};

/// A way to read a range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// `pread`, until the range is read.
    Positioned,
    /// `read` from the beginning to the end.
    Whole,
    /// `preadv` into buffers of odd lengths.
    Vectored,
    /// `O_DIRECT`.
    Direct,
    /// A private mapping.
    MapPrivate,
    /// A shared mapping.
    MapShared,
    /// `sendfile`.
    Sendfile,
    /// `copy_file_range`, and what programs do where the kernel does not.
    Copy,
    /// `SEEK_DATA` and `SEEK_HOLE`: no byte of an object is a hole, or copies would lack it.
    Holes,
    /// `posix_fadvise`, then `pread`.
    Advised,
}

impl Way {
    pub(crate) const ALL: [Self; 10] = [
        Self::Positioned,
        Self::Whole,
        Self::Vectored,
        Self::Direct,
        Self::MapPrivate,
        Self::MapShared,
        Self::Sendfile,
        Self::Copy,
        Self::Holes,
        Self::Advised,
    ];
}

/// A part of a file: the offset is taken modulo somewhat more than the file's size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// One step.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    // Of the source.
    Put {
        key: &'static str,
        content: Content,
    },
    Delete {
        key: &'static str,
    },
    // By path.
    Stat {
        path: &'static str,
    },
    List {
        path: &'static str,
    },
    Read {
        path: &'static str,
        way: Way,
        part: Part,
    },
    Xattrs {
        path: &'static str,
    },
    Statfs {
        path: &'static str,
    },
    Modify {
        path: &'static str,
        how: u16,
    },
    /// All files, by some readers at once.
    ReadAll {
        readers: u8,
    },
    // On what is held open.
    Open {
        path: &'static str,
        direct: bool,
    },
    ReadOpen {
        file: u16,
        way: Way,
        part: Part,
    },
    StatOpen {
        file: u16,
    },
    ModifyOpen {
        file: u16,
        how: u16,
    },
    Close {
        file: u16,
    },
    OpenDirectory {
        path: &'static str,
    },
    /// So many calls of `getdents` with a small buffer.
    ListOn {
        directory: u16,
        calls: u8,
    },
    /// Back to behind an entry that was seen.
    SeekDirectory {
        directory: u16,
        entry: u16,
    },
    CloseDirectory {
        directory: u16,
    },
    // Of the mount.
    Refresh,
    Warmup {
        path: &'static str,
    },
    DropCaches,
    Kill,
    Remount {
        fresh: bool,
    },
}

/// The cache of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) cache: Cache,
    /// A memory tier in front of the disk.
    pub(crate) memory: bool,
}

/// How much fits, and what goes where it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cache {
    /// Everything fits.
    Roomy,
    /// A few files fit.
    Small { eviction: &'static str },
}

/// Paths that operations name: those of keys, directories, and some that are never there.
pub(crate) const PATHS: &[&str] = &[
    "",
    "a",
    "b",
    "d",
    "d/one",
    "d/two",
    "d/deep",
    "d/deep/er",
    "d/deep/er/three",
    "e",
    "e/only",
    "large",
    "large/1",
    "large/2",
    "names",
    "names/\u{fc}n\u{ef} & space,comma:colon",
    "x",
    "x/y",
    "x/y/z",
    "marker",
    "nothing",
    "nothing/below",
    "a/below",
    "d/One",
    "abs",
    "up",
    "dot",
    "control",
    LONGEST,
    TOO_LONG,
];

/// Sizes around pages, blocks and the limit up to which objects are fetched whole.
const SIZES: &[u64] = &[
    0,
    1,
    4_095,
    4_096,
    4_097,
    60_000,
    300_000,
    1 << 20,
    (1 << 20) + 1,
    3_000_000,
];
const LARGE_SIZES: &[u64] = &[8 << 20, (8 << 20) + 1, (9 << 20) + 77, 12 << 20];

fn content(key: &'static str) -> impl Strategy<Value = Content> {
    let sizes = if key.starts_with("large/") {
        LARGE_SIZES
    } else {
        SIZES
    };
    // Few seeds, so that earlier versions come back; and one for what has no byte to tell it by.
    (0..3_u64, select(sizes)).prop_map(|(seed, size)| Content {
        seed: if size == 0 { 0 } else { seed },
        size,
    })
}

/// The keys that files can have are at the beginning of the list, and chosen more often.
fn key() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => select(&KEYS[..FILES]), 1 => select(KEYS)]
}

fn path() -> impl Strategy<Value = &'static str> {
    prop_oneof![2 => select(&KEYS[..FILES]), 1 => select(PATHS)]
}

fn file() -> impl Strategy<Value = &'static str> {
    prop_oneof![9 => select(&KEYS[..FILES]), 1 => select(PATHS)]
}

fn part() -> impl Strategy<Value = Part> {
    (
        0..16_000_000_u64,
        prop_oneof![1..5_000_u64, 1..400_000_u64, 1..4_000_000_u64],
    )
        .prop_map(|(offset, length)| Part { offset, length })
}

fn way() -> impl Strategy<Value = Way> {
    select(&Way::ALL[..])
}

fn put() -> impl Strategy<Value = Operation> {
    key().prop_flat_map(|key| content(key).prop_map(move |content| Operation::Put { key, content }))
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation as O;
    prop_oneof![
        12 => put(),
        4 => key().prop_map(|key| O::Delete { key }),
        4 => path().prop_map(|path| O::Stat { path }),
        4 => path().prop_map(|path| O::List { path }),
        24 => (file(), way(), part()).prop_map(|(path, way, part)| O::Read { path, way, part }),
        3 => path().prop_map(|path| O::Xattrs { path }),
        1 => path().prop_map(|path| O::Statfs { path }),
        4 => (path(), any::<u16>()).prop_map(|(path, how)| O::Modify { path, how }),
        3 => (1..5_u8).prop_map(|readers| O::ReadAll { readers }),
        10 => (file(), prop::bool::weighted(0.2)).prop_map(|(path, direct)| O::Open { path, direct }),
        16 => (any::<u16>(), way(), part()).prop_map(|(file, way, part)| O::ReadOpen { file, way, part }),
        2 => any::<u16>().prop_map(|file| O::StatOpen { file }),
        1 => (any::<u16>(), any::<u16>()).prop_map(|(file, how)| O::ModifyOpen { file, how }),
        3 => any::<u16>().prop_map(|file| O::Close { file }),
        3 => path().prop_map(|path| O::OpenDirectory { path }),
        6 => (any::<u16>(), 1..6_u8).prop_map(|(directory, calls)| O::ListOn { directory, calls }),
        2 => (any::<u16>(), any::<u16>())
            .prop_map(|(directory, entry)| O::SeekDirectory { directory, entry }),
        1 => any::<u16>().prop_map(|directory| O::CloseDirectory { directory }),
        4 => Just(O::Refresh),
        3 => path().prop_map(|path| O::Warmup { path }),
        2 => Just(O::DropCaches),
        2 => Just(O::Kill),
        2 => any::<bool>().prop_map(|fresh| O::Remount { fresh }),
    ]
}

fn setting() -> impl Strategy<Value = Setting> {
    let cache = prop_oneof![
        2 => Just(Cache::Roomy),
        2 => select(&["never", "lru", "tinylfu"][..]).prop_map(|eviction| Cache::Small { eviction }),
    ];
    (cache, prop::bool::weighted(0.25)).prop_map(|(cache, memory)| Setting { cache, memory })
}

/// A source with something in it, and what happens then.
pub(crate) fn run() -> impl Strategy<Value = (Setting, Vec<Operation>, Vec<Operation>)> {
    (setting(), vec(put(), 6..20), vec(operation(), 1..90))
}
