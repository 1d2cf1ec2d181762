//! Tests with altered catalogs: neither reader nor check panics, and the check accepts only what the writer would write.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::Index as Position;
use tempfile::TempDir;

use super::*;
use crate::index::reseal;
use crate::{BuildOptions, Builder, Entry, Image, Owner, Place, SourceInfo};
use millpond_core::{Time, Validator};

const CREATED: Time = Time {
    secs: 1_700_000_000,
    nanos: 42,
};

/// Image and index of a small tree with every kind of entry.
static GOOD: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let mut entries: Vec<Entry> = (0..100u32)
        .map(|number| {
            let validator = match number % 3 {
                0 => Validator::ETag(format!("\"{number:032x}\"")),
                1 => Validator::VersionId(format!("v{number}")),
                _ => Validator::Modified {
                    time: Time {
                        secs: number.into(),
                        nanos: 1,
                    },
                },
            };
            Entry {
                source: u16::try_from(number % 2).unwrap(),
                key: format!(
                    "d{}/{}e/{number}-{}",
                    number % 7,
                    number % 3,
                    "long".repeat(number as usize % 40)
                ),
                size_bytes: u64::from(number) * 1000,
                modified: Time {
                    secs: number.into(),
                    nanos: 7,
                },
                validator,
            }
        })
        .collect();
    let empty = |key: &str| Entry {
        key: key.to_owned(),
        size_bytes: 0,
        ..entries[0].clone()
    };
    entries.extend([empty("empty/"), empty("a"), empty("!"), empty("d1/...")]);
    build(&entries, Owner::default())
});

fn sources() -> Vec<SourceInfo> {
    ["", "mounted/here"]
        .map(|path| SourceInfo {
            id: format!("s3://b/{path}"),
            prefix: String::new(),
            path: path.to_owned(),
        })
        .to_vec()
}

fn build(entries: &[Entry], owner: Owner) -> (Vec<u8>, Vec<u8>) {
    let files = Files::default();
    let spill_directory = files.directory.path().to_owned();
    let options = BuildOptions {
        sources: sources(),
        owner,
        created: CREATED,
        spill_directory,
        memory_bytes: 0,
    };
    let mut builder = Builder::new(options).unwrap();
    entries.iter().for_each(|entry| builder.add(entry).unwrap());
    builder.finish(&files.image, &files.index).unwrap();
    (fs::read(&files.image).unwrap(), fs::read(&files.index).unwrap())
}

struct Files {
    directory: TempDir,
    image: PathBuf,
    index: PathBuf,
}

impl Default for Files {
    fn default() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [image, index] = ["image", "index"].map(|name| directory.path().join(name));
        Self {
            directory,
            image,
            index,
        }
    }
}

impl Files {
    fn new(image: &[u8], index: &[u8]) -> Self {
        let files = Self::default();
        fs::write(&files.image, image).unwrap();
        fs::write(&files.index, index).unwrap();
        files
    }

    fn check(&self) -> Result<Summary> {
        check(&self.image, &self.index, self.directory.path())
    }
}

/// Calls every method of a reader, for all inodes that it returns, for a bounded number of steps.
fn read_all(image: &Image, catalog: Option<&Catalog>) {
    let mut rest = vec![(image.root(), image.root())];
    for step in 0..400 {
        let Some((nid, parent)) = rest.pop() else { break };
        let _ = (
            image.inode(nid),
            image.parent(nid),
            image.path_of(nid, parent),
            image.object_id(nid),
        );
        let _ = (image.xattrs(nid), image.xattr(nid, b"user.millpond.etag"));
        let _ = (
            image.lookup(nid, b"a"),
            image.lookup(nid, b".."),
            image.lookup(nid, b"zz"),
        );
        let _ = image
            .read_dir(nid, step * 12)
            .map(|mut entries| entries.next().is_some());
        if let Ok(entries) = image.read_dir(nid, 0) {
            rest.extend(entries.take(50).flatten().map(|entry| (entry.nid, nid)));
        }
        if let Some(catalog) = catalog {
            let _ = catalog.describe(Place { inode: nid, parent });
        }
    }
    for nid in [0, 2, 3, 1 << 31, u64::MAX / 32, u64::MAX].map(Nid) {
        let _ = (
            image.inode(nid),
            image.xattrs(nid),
            image.parent(nid),
            image.path_of(nid, image.root()),
        );
    }
}

/// A change of some bytes.
#[derive(Clone, Debug)]
enum Change {
    Flip {
        at: Position,
        bit: u8,
    },
    Write {
        at: Position,
        value: u64,
        bytes: usize,
    },
    Copy {
        from: Position,
        to: Position,
        bytes: usize,
    },
    Cut {
        at: Position,
    },
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        // Four bytes are the unit of most structures.
        let aligned = |at: &Position| at.index(bytes.len().max(1)) & !3;
        match self {
            Self::Flip { at, bit } => {
                let at = at.index(bytes.len().max(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            Self::Write {
                at,
                value,
                bytes: count,
            } => {
                let at = aligned(at);
                bytes
                    .iter_mut()
                    .skip(at)
                    .zip(value.to_le_bytes())
                    .take(*count)
                    .for_each(|(to, from)| *to = from);
            }
            Self::Copy {
                from,
                to,
                bytes: count,
            } => {
                let (from, to) = (aligned(from), aligned(to));
                let copied: Vec<u8> = bytes.iter().skip(from).take(*count).copied().collect();
                bytes
                    .iter_mut()
                    .skip(to)
                    .zip(copied)
                    .for_each(|(to, from)| *to = from);
            }
            Self::Cut { at } => bytes.truncate(at.index(bytes.len().max(1))),
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let value = prop_oneof![0..70_000u64, any::<u64>(), Just(u64::MAX), Just(0)];
    prop_oneof![
        4 => (any::<Position>(), 0..8u8).prop_map(|(at, bit)| Change::Flip { at, bit }),
        3 => (any::<Position>(), value, 1..9usize).prop_map(|(at, value, bytes)| Change::Write { at, value, bytes }),
        3 => (any::<Position>(), any::<Position>(), prop::sample::select(vec![4, 8, 12, 32, 64, 4096]))
            .prop_map(|(from, to, bytes)| Change::Copy { from, to, bytes }),
        1 => any::<Position>().prop_map(|at| Change::Cut { at }),
    ]
}

/// Changes of one of the two files.
fn changes() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    (prop::collection::vec(change(), 1..4), any::<bool>()).prop_map(|(changes, of_image)| {
        let (mut image, mut index) = GOOD.clone();
        let changed = if of_image { &mut image } else { &mut index };
        changes.iter().for_each(|change| change.apply(changed));
        (image, index)
    })
}

#[test]
fn what_the_writer_writes_passes() {
    let (image, index) = &*GOOD;
    let files = Files::new(image, index);
    let summary = files.check().unwrap();
    assert_eq!((summary.files, summary.refused.counts.len()), (103, 0));
    let catalog = Catalog::open(&files.image, &files.index).unwrap();
    read_all(catalog.image(), Some(&catalog));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_catalog_is_refused_and_never_a_panic((image, index) in changes()) {
        let files = Files::new(&image, &index);
        let is_same = (&image, &index) == (&GOOD.0, &GOOD.1);
        prop_assert_eq!(files.check().is_ok(), is_same);
        let catalog = Catalog::open(&files.image, &files.index).ok();
        if let Ok(image) = Image::open(&files.image) {
            read_all(&image, catalog.as_ref());
        }
    }

    #[test]
    fn a_forged_catalog_passes_only_if_the_writer_would_write_it((mut image, mut index) in changes()) {
        let _ = reseal(&mut image, &mut index);
        let files = Files::new(&image, &index);
        let Ok(catalog) = Catalog::open(&files.image, &files.index) else { return Ok(()) };
        read_all(catalog.image(), Some(&catalog));
        let Ok(summary) = files.check() else { return Ok(()) };
        if summary.refused.counts.len() + summary.refused.samples.len() > 0 || catalog.index().sources() != sources() {
            return Ok(());
        }
        let mut entries: Vec<Entry> = catalog.index().iter().map(|(_, place)| {
            let Object { id: _, source, key, size_bytes, validator, modified } = catalog.describe(place).unwrap();
            Entry { source, key, size_bytes, modified, validator }
        }).collect();
        let mut markers = Markers::default();
        read_tree(&catalog, &mut markers).unwrap();
        let marker = |key| Entry { source: 0, key, size_bytes: 0, modified: CREATED, validator: entries[0].validator.clone() };
        let directories: Vec<Entry> = markers.keys.into_iter().map(marker).collect();
        entries.extend(directories);
        if catalog.index().created() == CREATED {
            let (again, _) = build(&entries, catalog.index().owner());
            prop_assert!(again == image, "the image passed and differs from what the writer writes");
        }
    }
}

/// Collects the directories of a tree as keys.
#[derive(Default)]
struct Markers {
    path: Vec<String>,
    keys: Vec<String>,
}

impl Visitor for Markers {
    fn enter(&mut self, name: &[u8]) -> Result<()> {
        self.path.push(String::from_utf8_lossy(name).into_owned());
        self.keys.push(format!("{}/", self.path.join("/")));
        Ok(())
    }

    fn file(&mut self, _name: &[u8], _file: &FileRecord<'_>) -> Result<()> {
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        self.path.pop();
        Ok(())
    }

    fn refuse(&mut self, _reason: crate::Refusal, _path: &[u8], _file: &FileRecord<'_>) -> Result<()> {
        Ok(())
    }
}

/// Applies one forgery, sets valid digests, and returns the result of the check.
fn forged(forge: impl FnOnce(&Catalog, &mut [u8])) -> Result<Summary> {
    let (mut image, mut index) = GOOD.clone();
    let good = Files::new(&image, &index);
    forge(&Catalog::open(&good.image, &good.index).unwrap(), &mut image);
    assert!(image != GOOD.0, "the forgery changed the image");
    reseal(&mut image, &mut index).unwrap();
    Files::new(&image, &index).check()
}

fn offset_of(catalog: &Catalog, nid: Nid) -> usize {
    let meta = u64::from(catalog.image().superblock().meta_block) * BLOCK;
    usize::try_from(meta + nid.0 * 32).unwrap()
}

/// Returns the offset of `needle` in the image.
fn find(image: &[u8], needle: &[u8]) -> usize {
    image
        .windows(needle.len())
        .position(|window| window == needle)
        .unwrap()
}

#[test]
fn a_redirect_to_another_object_is_refused() {
    let result = forged(|catalog, image| {
        let (id, _) = catalog.index().iter().next().unwrap();
        let at = find(image, id.path().as_bytes());
        image[at + 5] = if image[at + 5] == b'a' { b'b' } else { b'a' };
    });
    assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
}

#[test]
fn a_redirect_out_of_the_layers_is_refused() {
    let result = forged(|catalog, image| {
        let (id, _) = catalog.index().iter().next().unwrap();
        let at = find(image, id.path().as_bytes());
        image[at..at + 9].copy_from_slice(b"../../etc");
    });
    assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
}

#[test]
fn a_directory_within_itself_is_refused() {
    let result = forged(|catalog, image| {
        let child = catalog
            .image()
            .lookup(catalog.image().root(), b"d1")
            .unwrap()
            .unwrap();
        // The entry of the root's child leads to the root.
        let nid = child.nid.0.to_le_bytes();
        let root = find(image, &[&nid[..], &[]].concat());
        image[root..root + 8].copy_from_slice(&1u64.to_le_bytes());
    });
    assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
}

#[test]
fn a_file_with_a_set_id_bit_is_refused() {
    let result = forged(|catalog, image| {
        let file = catalog
            .image()
            .lookup(catalog.image().root(), b"a")
            .unwrap()
            .unwrap();
        let mode = offset_of(catalog, file.nid) + 4;
        image[mode + 1] |= 0o4000u16.to_le_bytes()[1];
    });
    assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
}

#[test]
fn a_file_with_data_of_its_own_is_refused() {
    let result = forged(|catalog, image| {
        let (_, place) = catalog
            .index()
            .iter()
            .find(|(_, place)| catalog.image().inode(place.inode).unwrap().size_bytes > 0)
            .unwrap();
        // Inode format: flat instead of chunk-based.
        image[offset_of(catalog, place.inode)] = 1;
    });
    assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
}

#[test]
fn another_time_is_another_good_image() {
    let result = forged(|catalog, image| {
        let file = catalog
            .image()
            .lookup(catalog.image().root(), b"a")
            .unwrap()
            .unwrap();
        image[offset_of(catalog, file.nid) + 32] ^= 1;
    });
    assert_eq!(result.unwrap().files, 103);
}
