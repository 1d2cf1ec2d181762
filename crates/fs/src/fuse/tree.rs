//! Names, attributes and listings of the mount, from the mapped catalogs alone.
//!
//! Everything here is pure: from a node to nodes and attributes, without requests.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use fuser::{Errno, FileAttr, FileType, INodeNo};
use millpond_catalog::{Kind, Nid};
use millpond_core::{Generation, ObjectRef};

use super::Layout;
use super::catalogs::{CatalogHandle, Catalogs};
use super::errno;
use super::node::{Node, ObjectHead, Prefix};

/// The TTL of what never changes.
pub(crate) const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The longest name of Linux file systems; the kernel passes longer ones to a FUSE server.
const MAX_NAME_BYTES: usize = 255;

/// The prefix of xattrs that readers may see; the others are the overlay's.
const VISIBLE_XATTRS: &[u8] = b"user.millpond.";

/// One entry of a listing.
#[derive(Clone, Debug)]
pub(crate) struct ReaddirEntry {
    pub(crate) name: Vec<u8>,
    pub(crate) attr: FileAttr,
    /// The offset of the next entry.
    pub(crate) next: u64,
    pub(crate) ttl: Duration,
}

/// The trees of a mount.
#[derive(Debug)]
pub(crate) struct Trees {
    pub(crate) catalogs: Catalogs,
    layout: Layout,
    /// The TTL of names in the root of the live tree: set when the session begins.
    live_ttl: OnceLock<Duration>,
}

impl Trees {
    pub(crate) fn new(layout: Layout) -> Self {
        Self {
            catalogs: Catalogs::default(),
            layout,
            live_ttl: OnceLock::new(),
        }
    }

    /// Sets the TTL of names in the root of the live tree.
    pub(crate) fn set_live_ttl(&self, ttl: Duration) {
        // It is set once, before the first request is read.
        let _ = self.live_ttl.set(ttl);
    }

    /// The TTL of a name of `generation` in `parent`.
    fn ttl_below(&self, parent: Node, generation: Generation) -> Duration {
        if parent != Node::Live {
            return FOREVER;
        }
        // A listing continues in the generation in which it began: its entries lead elsewhere than these names do now.
        let is_newest = self
            .catalogs
            .newest()
            .is_some_and(|newest| newest.generation == generation);
        if is_newest {
            self.live_ttl.get().copied().unwrap_or_default()
        } else {
            Duration::ZERO
        }
    }

    /// Decodes a node id of the kernel.
    pub(crate) fn node(&self, id: INodeNo) -> Result<Node, Errno> {
        match (Node::unpack(id.0), self.layout) {
            (Some(Node::Root), Layout::Live) => Ok(Node::Live),
            (Some(node), _) => Ok(node),
            (None, _) => Err(Errno::ESTALE),
        }
    }

    /// The attributes of a node.
    pub(crate) fn attr(&self, node: Node) -> Result<FileAttr, Errno> {
        match node {
            Node::Root | Node::Layer(_) | Node::LayerDirectory(..) => self.fixed(node),
            Node::Live => match self.catalogs.newest() {
                Some(open) => self.attr_in(node, &open, open.catalog.image().root()),
                None => self.fixed(node),
            },
            Node::Tree(generation, nid) | Node::LiveTree(generation, nid) => {
                self.attr_in(node, &self.open(generation)?, nid)
            }
            Node::Object(head) => {
                let (open, nid) = self.catalogs.find_head(head).ok_or(Errno::ESTALE)?;
                self.attr_in(node, &open, nid)
            }
        }
    }

    /// The object of a file.
    pub(crate) fn object(&self, node: Node) -> Result<ObjectRef, Errno> {
        let (open, nid) = match node {
            Node::Root | Node::Live | Node::Layer(_) | Node::LayerDirectory(..) => return Err(Errno::EISDIR),
            Node::Tree(generation, nid) | Node::LiveTree(generation, nid) => (self.open(generation)?, nid),
            Node::Object(head) => self.catalogs.find_head(head).ok_or(Errno::ESTALE)?,
        };
        open.object(nid).map_err(|error| match error {
            millpond_catalog::Error::WrongKind { .. } => Errno::EISDIR,
            error => errno::of_catalog(&error),
        })
    }

    /// Looks a name up in any directory except those of objects. `Ok(None)`: there is no such name, and there will be none
    /// within the TTL.
    pub(crate) fn lookup(&self, parent: Node, name: &[u8]) -> Result<(Option<FileAttr>, Duration), Errno> {
        if name.len() > MAX_NAME_BYTES {
            return Err(Errno::from_i32(libc::ENAMETOOLONG));
        }
        let (open, dir) = match parent {
            Node::Root => return self.lookup_root(name),
            Node::Layer(layer) => {
                let node = Prefix::parse(name).map(|prefix| Node::LayerDirectory(layer, prefix));
                return Ok((node.map(|node| self.fixed(node)).transpose()?, FOREVER));
            }
            Node::LayerDirectory(..) | Node::Object(_) => return Err(Errno::ENOTDIR),
            Node::Live => match self.catalogs.newest() {
                Some(open) => {
                    let root = open.catalog.image().root();
                    (open, root)
                }
                None => return Ok((None, Duration::ZERO)),
            },
            Node::Tree(generation, nid) | Node::LiveTree(generation, nid) => (self.open(generation)?, nid),
        };
        let ttl = self.ttl_below(parent, open.generation);
        let found = open
            .catalog
            .image()
            .lookup(dir, name)
            .map_err(|error| errno::of_catalog(&error))?;
        let Some(entry) = found else {
            return Ok((None, ttl));
        };
        let node = child(parent, open.generation, entry.nid);
        Ok((Some(self.attr_in(node, &open, entry.nid)?), ttl))
    }

    /// Returns the generation of a listing of this directory from its start to its end: a handle for `list`.
    pub(crate) fn open_directory(&self, node: Node) -> Result<u64, Errno> {
        match node {
            Node::Root | Node::Layer(_) | Node::LayerDirectory(..) => Ok(0),
            Node::Live => Ok(self.catalogs.newest().map_or(0, |open| open.generation.0)),
            Node::Tree(generation, nid) | Node::LiveTree(generation, nid) => {
                let open = self.open(generation)?;
                match open
                    .catalog
                    .image()
                    .inode(nid)
                    .map_err(|error| errno::of_catalog(&error))?
                    .kind
                {
                    Kind::Directory => Ok(generation.0),
                    Kind::File => Err(Errno::ENOTDIR),
                }
            }
            Node::Object(_) => Err(Errno::ENOTDIR),
        }
    }

    /// Passes the entries of a directory from an offset on to `take`, until it returns false: the reply is full.
    pub(crate) fn list(
        &self,
        node: Node,
        handle: u64,
        from: u64,
        mut take: impl FnMut(&ReaddirEntry) -> bool,
    ) -> Result<(), Errno> {
        let (open, dir) = match node {
            // It was opened before there was a catalog.
            Node::Live if handle == 0 => return self.list_fixed(node, from, take),
            Node::Live => {
                // Never truncated: where its generation was deleted, the reader has to begin again.
                let open = self.open(Generation(handle))?;
                let root = open.catalog.image().root();
                (open, root)
            }
            Node::Tree(generation, nid) | Node::LiveTree(generation, nid) => (self.open(generation)?, nid),
            Node::Root | Node::Layer(_) | Node::LayerDirectory(..) => {
                return self.list_fixed(node, from, take);
            }
            Node::Object(_) => return Err(Errno::ENOTDIR),
        };
        let ttl = self.ttl_below(node, open.generation);
        let image = open.catalog.image();
        for entry in image
            .read_dir(dir, from)
            .map_err(|error| errno::of_catalog(&error))?
        {
            let entry = entry.map_err(|error| errno::of_catalog(&error))?;
            let found = ReaddirEntry {
                name: entry.name.to_vec(),
                attr: self.attr_in(child(node, open.generation, entry.nid), &open, entry.nid)?,
                next: entry.next,
                ttl,
            };
            if !take(&found) {
                break;
            }
        }
        Ok(())
    }

    /// An xattr of a file of a tree.
    pub(crate) fn xattr(&self, node: Node, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let (Node::Tree(generation, nid) | Node::LiveTree(generation, nid)) = node else {
            return Err(Errno::ENODATA);
        };
        if !name.starts_with(VISIBLE_XATTRS) {
            return Err(Errno::ENODATA);
        }
        let open = self.open(generation)?;
        let value = open
            .catalog
            .image()
            .xattr(nid, name)
            .map_err(|error| errno::of_catalog(&error))?;
        value.map(<[u8]>::to_vec).ok_or(Errno::ENODATA)
    }

    /// The names of a node's xattrs, each ended by a zero byte.
    pub(crate) fn xattr_names(&self, node: Node) -> Result<Vec<u8>, Errno> {
        let (Node::Tree(generation, nid) | Node::LiveTree(generation, nid)) = node else {
            return Ok(Vec::new());
        };
        let open = self.open(generation)?;
        let xattrs = open
            .catalog
            .image()
            .xattrs(nid)
            .map_err(|error| errno::of_catalog(&error))?;
        let mut names = Vec::new();
        for (name, _) in xattrs.iter().filter(|(name, _)| name.starts_with(VISIBLE_XATTRS)) {
            names.extend_from_slice(name);
            names.push(0);
        }
        Ok(names)
    }

    /// Bytes and files of the tree that a node belongs to, for `statfs`.
    pub(crate) fn totals(&self, node: Node) -> (u64, u64) {
        let open = match node {
            Node::Tree(generation, _) | Node::LiveTree(generation, _) => self.catalogs.get(generation),
            Node::Root | Node::Live | Node::Layer(_) | Node::LayerDirectory(..) | Node::Object(_) => {
                self.catalogs.newest()
            }
        };
        open.map_or((0, 0), |open| {
            let summary = open.catalog.index().summary();
            (summary.bytes, summary.files.saturating_add(summary.dirs))
        })
    }

    /// The entry of an object below `objects` or `last`.
    pub(crate) fn object_entry(&self, object: &ObjectRef) -> Result<FileAttr, Errno> {
        let open = self.open(object.generation)?;
        self.attr_in(
            Node::Object(ObjectHead::of(object.id)),
            &open,
            Nid(object.inode.0),
        )
    }

    fn open(&self, generation: Generation) -> Result<CatalogHandle, Errno> {
        self.catalogs.get(generation).ok_or(Errno::ESTALE)
    }

    fn lookup_root(&self, name: &[u8]) -> Result<(Option<FileAttr>, Duration), Errno> {
        let node = match name {
            b"live" => Node::Live,
            b"objects" => Node::Layer(super::node::Layer::Objects),
            b"last" => Node::Layer(super::node::Layer::Last),
            name => {
                let generation = std::str::from_utf8(name)
                    .ok()
                    .and_then(|name| name.strip_prefix("gen-"))
                    .and_then(|number| number.parse().ok())
                    .map(Generation);
                let open = generation.and_then(|generation| self.catalogs.get(generation));
                let Some(open) = open else {
                    return Ok((None, Duration::ZERO));
                };
                Node::Tree(open.generation, open.catalog.image().root())
            }
        };
        Ok((Some(self.attr(node)?), FOREVER))
    }

    fn list_fixed(
        &self,
        node: Node,
        from: u64,
        mut take: impl FnMut(&ReaddirEntry) -> bool,
    ) -> Result<(), Errno> {
        let mut entries = vec![(b".".to_vec(), node), (b"..".to_vec(), Node::Root)];
        if node == Node::Root {
            for name in [b"live".as_slice(), b"objects", b"last"] {
                entries.push((name.to_vec(), node));
            }
            for generation in self.catalogs.generations() {
                entries.push((format!("gen-{generation}").into_bytes(), node));
            }
        }
        for (index, (name, node)) in (1..)
            .zip(entries)
            .skip(usize::try_from(from).unwrap_or(usize::MAX))
        {
            let attr = match self.lookup_root(&name)? {
                (Some(attr), _) if node == Node::Root => attr,
                _ => self.attr(node)?,
            };
            if !take(&ReaddirEntry {
                name,
                attr,
                next: index,
                ttl: Duration::ZERO,
            }) {
                break;
            }
        }
        Ok(())
    }

    fn attr_in(&self, node: Node, open: &CatalogHandle, nid: Nid) -> Result<FileAttr, Errno> {
        let inode = open
            .catalog
            .image()
            .inode(nid)
            .map_err(|error| errno::of_catalog(&error))?;
        let mut attr = self.fixed(node)?;
        let mtime = time(inode.mtime);
        attr.size = inode.size_bytes;
        attr.blocks = inode.size_bytes.div_ceil(512);
        attr.mtime = mtime;
        attr.atime = mtime;
        attr.ctime = mtime;
        attr.kind = match inode.kind {
            Kind::File => FileType::RegularFile,
            Kind::Directory => FileType::Directory,
        };
        attr.perm = inode.mode & 0o7777;
        attr.nlink = inode.nlink;
        attr.uid = inode.uid;
        attr.gid = inode.gid;
        Ok(attr)
    }

    /// The attributes of a directory that no catalog describes.
    fn fixed(&self, node: Node) -> Result<FileAttr, Errno> {
        let id = match (node, self.layout) {
            (Node::Live, Layout::Live) => Node::Root.pack(),
            (node, _) => node.pack(),
        };
        Ok(FileAttr {
            ino: INodeNo(id.ok_or(Errno::EOVERFLOW)?),
            size: 0,
            blocks: 0,
            atime: SystemTime::UNIX_EPOCH,
            mtime: SystemTime::UNIX_EPOCH,
            ctime: SystemTime::UNIX_EPOCH,
            crtime: SystemTime::UNIX_EPOCH,
            kind: FileType::Directory,
            perm: 0o555,
            nlink: 2,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

/// The node of an entry: nodes of the live tree differ from those of the generation's tree at every level.
fn child(parent: Node, generation: Generation, nid: Nid) -> Node {
    match parent {
        Node::Live | Node::LiveTree(..) => Node::LiveTree(generation, nid),
        Node::Root | Node::Layer(_) | Node::LayerDirectory(..) | Node::Tree(..) | Node::Object(_) => {
            Node::Tree(generation, nid)
        }
    }
}

fn time(time: millpond_core::Time) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(time.nanos));
    let seconds = Duration::from_secs(time.secs.unsigned_abs());
    let seconds = if time.secs < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    seconds
        .and_then(|seconds| seconds.checked_add(nanos))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}
