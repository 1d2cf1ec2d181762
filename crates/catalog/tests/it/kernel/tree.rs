//! Tree of files and directories, for comparing the listing, the kernel and the catalog's reader.

use std::collections::BTreeMap;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use millpond_catalog::{Catalog, Entry, Kind, Nid, Owner, Refusal, SourceInfo};
use millpond_core::Time;

/// Attributes and content of one file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) nid: u64,
    pub(crate) mode: u32,
    pub(crate) nlink: u64,
    pub(crate) owner: (u32, u32),
    pub(crate) size_bytes: u64,
    pub(crate) mtime: Time,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Nodes by path from the root, which is the empty path.
pub(crate) type Tree = BTreeMap<Vec<u8>, Node>;

/// Reads the tree below a directory through the kernel.
pub(crate) fn through_the_kernel(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut rest = vec![PathBuf::new()];
    while let Some(path) = rest.pop() {
        let full = root.join(&path);
        let metadata = std::fs::symlink_metadata(&full).unwrap();
        if metadata.is_dir() {
            for entry in std::fs::read_dir(&full).unwrap() {
                let entry = entry.unwrap();
                let below = std::fs::symlink_metadata(entry.path()).unwrap();
                assert_eq!(entry.ino(), below.ino());
                assert_eq!(entry.file_type().unwrap(), below.file_type());
                rest.push(path.join(entry.file_name()));
            }
        }
        let node = Node {
            nid: metadata.ino(),
            mode: metadata.mode(),
            nlink: metadata.nlink(),
            owner: (metadata.uid(), metadata.gid()),
            size_bytes: metadata.size(),
            mtime: Time {
                secs: metadata.mtime(),
                nanos: u32::try_from(metadata.mtime_nsec()).unwrap(),
            },
            xattrs: xattrs(&full),
        };
        tree.insert(path.into_os_string().into_vec(), node);
    }
    tree
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    let mut xattrs = BTreeMap::new();
    for name in names[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
    {
        let mut value = vec![0; 65536];
        let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
        value.truncate(length);
        assert!(
            xattrs.insert(name.to_vec(), value).is_none(),
            "an attribute is listed once"
        );
    }
    xattrs
}

/// Reads the tree through the catalog's reader, and checks all its other methods.
pub(crate) fn through_the_reader(catalog: &Catalog) -> Tree {
    let image = catalog.image();
    let mut tree = Tree::new();
    let mut rest = vec![(Vec::new(), image.root(), image.root())];
    while let Some((path, nid, parent)) = rest.pop() {
        let inode = image.inode(nid).unwrap();
        assert_eq!(image.path_of(nid, parent).unwrap(), path);
        match inode.kind {
            Kind::Directory => {
                assert_eq!(image.parent(nid).unwrap(), parent);
                rest.extend(
                    children(catalog, nid)
                        .into_iter()
                        .map(|(name, child)| (join(&path, &name), child, nid)),
                );
            }
            Kind::File => {
                let id = image.object_id(nid).unwrap();
                let places: Vec<_> = catalog.index().find(id).collect();
                assert!(
                    places
                        .iter()
                        .any(|place| (place.inode, place.parent) == (nid, parent))
                );
            }
        }
        let xattrs = image.xattrs(nid).unwrap();
        for (name, value) in &xattrs {
            assert_eq!(image.xattr(nid, name).unwrap(), Some(*value));
        }
        assert_eq!(image.xattr(nid, b"user.no").unwrap(), None);
        let node = Node {
            nid: nid.0,
            mode: inode.mode.into(),
            nlink: inode.nlink.into(),
            owner: (inode.uid, inode.gid),
            size_bytes: inode.size_bytes,
            mtime: inode.mtime,
            xattrs: xattrs
                .into_iter()
                .map(|(name, value)| (name, value.to_vec()))
                .collect(),
        };
        tree.insert(path, node);
    }
    tree
}

/// Lists a directory in one call and in pieces, and looks each name up.
fn children(catalog: &Catalog, dir: Nid) -> Vec<(Vec<u8>, Nid)> {
    let image = catalog.image();
    let entries: Vec<_> = image.read_dir(dir, 0).unwrap().map(Result::unwrap).collect();
    assert!(entries.is_sorted_by(|left, right| left.name < right.name));
    for (index, entry) in entries.iter().enumerate() {
        assert_eq!(image.lookup(dir, entry.name).unwrap().as_ref(), Some(entry));
        let mut longer = entry.name.to_vec();
        longer.push(b'!');
        let is_there = entries.iter().any(|entry| entry.name == longer);
        assert_eq!(image.lookup(dir, &longer).unwrap().is_some(), is_there);
        if index % 97 == 0 {
            let rest: Vec<_> = image
                .read_dir(dir, entry.next)
                .unwrap()
                .map(Result::unwrap)
                .collect();
            assert_eq!(rest, entries[index + 1..]);
        }
    }
    let is_dot = |name: &[u8]| matches!(name, b"." | b"..");
    assert_eq!(entries.iter().filter(|entry| is_dot(entry.name)).count(), 2);
    let named = entries.iter().filter(|entry| !is_dot(entry.name));
    named.map(|entry| (entry.name.to_vec(), entry.nid)).collect()
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() {
        name.to_vec()
    } else {
        [path, b"/", name].concat()
    }
}

/// Returns the expected tree, from the listing alone. Inode numbers are not predicted: `nid` is 0.
pub(crate) fn expected(
    sources: &[SourceInfo],
    entries: &[Entry],
    owner: Owner,
    created: Time,
) -> (Tree, u64) {
    let mut directories = std::collections::BTreeSet::from([String::new()]);
    let mut files: BTreeMap<String, &Entry> = BTreeMap::new();
    let mut refused = 0;
    let add_directory = |directories: &mut std::collections::BTreeSet<String>, path: &str| {
        directories.extend(path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
        directories.insert(path.to_owned());
    };
    for source in sources {
        add_directory(&mut directories, &source.path);
    }
    for entry in entries {
        let source = &sources[usize::from(entry.source)];
        let Some(path) = path_of(source, entry) else {
            refused += 1;
            continue;
        };
        match path.strip_suffix('/') {
            Some(path) => add_directory(&mut directories, path),
            None => {
                if let Some((directory, _)) = path.rsplit_once('/') {
                    add_directory(&mut directories, directory);
                }
                let rank = |entry: &Entry| (entry.source, std::cmp::Reverse(entry.modified));
                let best = files.entry(path).or_insert(entry);
                if best.key != entry.key || *best != entry {
                    refused += 1;
                    assert_ne!(
                        rank(best),
                        rank(entry),
                        "the test has no two equal versions of one key"
                    );
                    if rank(entry) < rank(best) {
                        *best = entry;
                    }
                }
            }
        }
    }
    let node = |mode: u16, nlink, size_bytes, mtime| Node {
        nid: 0,
        mode: mode.into(),
        nlink,
        owner: (owner.uid, owner.gid),
        size_bytes,
        mtime,
        xattrs: BTreeMap::new(),
    };
    let mut tree = Tree::new();
    for path in &directories {
        let below = |other: &&String| {
            !other.is_empty()
                && *other != path
                && other.rsplit_once('/').map_or("", |(above, _)| above) == path
        };
        let nlink = 2 + directories.iter().filter(below).count() as u64;
        tree.insert(
            path.clone().into_bytes(),
            node(0o40_000 | owner.dir_mode, nlink, 0, created),
        );
    }
    for (path, entry) in files {
        if directories.contains(&path) {
            refused += 1;
            continue;
        }
        let source = &sources[usize::from(entry.source)];
        let id = millpond_core::ObjectId::derive(&source.id, &entry.key, &entry.validator, entry.size_bytes);
        let mut node = node(0o100_000 | owner.file_mode, 1, entry.size_bytes, entry.modified);
        let mut add = |name: &str, value: Vec<u8>| node.xattrs.insert(name.as_bytes().to_vec(), value);
        add("user.millpond.source", source.id.clone().into_bytes());
        add(
            "user.millpond.etag",
            entry.validator.text().into_owned().into_bytes(),
        );
        add("trusted.overlay.redirect", format!("/{}", id.path()).into_bytes());
        if entry.size_bytes > 0 {
            add("trusted.overlay.metacopy", Vec::new());
        }
        tree.insert(path.into_bytes(), node);
    }
    (tree, refused)
}

/// Returns the path of a key by a simple model of the naming rules; `None`: refused.
fn path_of(source: &SourceInfo, entry: &Entry) -> Option<String> {
    let rest = entry.key.strip_prefix(&source.prefix)?;
    let file = rest.strip_suffix('/');
    let is_valid = |name: &str| !matches!(name, "" | "." | "..") && !name.contains('\0') && name.len() <= 255;
    let fits = file.unwrap_or(rest).split('/').all(is_valid) || (rest.is_empty() && entry.key.ends_with('/'));
    let slash = if source.path.is_empty() || rest.is_empty() {
        ""
    } else {
        "/"
    };
    let path = format!("{}{slash}{rest}", source.path);
    let path = if rest.is_empty() { format!("{path}/") } else { path };
    (fits && (!entry.key.ends_with('/') || entry.size_bytes == 0) && path.trim_end_matches('/').len() <= 4095)
        .then_some(path)
}

/// Returns the tree without inode numbers and directory sizes, for comparison.
pub(crate) fn without_places(tree: Tree) -> Tree {
    let strip = |(path, node): (Vec<u8>, Node)| {
        let size_bytes = if node.mode & 0o40_000 == 0 {
            node.size_bytes
        } else {
            0
        };
        (
            path,
            Node {
                nid: 0,
                size_bytes,
                ..node
            },
        )
    };
    tree.into_iter().map(strip).collect()
}

/// Returns all refusals of a summary.
pub(crate) fn refused(counts: &BTreeMap<Refusal, u64>) -> u64 {
    counts.values().sum()
}

/// Converts a path to the kernel's form.
pub(crate) fn os_path(path: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path))
}
