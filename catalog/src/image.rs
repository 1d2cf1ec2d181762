//! Reads a catalog image.

use std::path::Path;

use crate::{ObjectId, Result, Time};

/// The position of an inode in an image, in units of 32 bytes: the inode number that the kernel shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nid(pub u64);

/// What an inode is. There is nothing else in a catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file: one object.
    File,
    /// A directory.
    Directory,
}

/// The attributes of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Where it is.
    pub nid: Nid,
    /// What it is.
    pub kind: Kind,
    /// Length: a file's of its object, a directory's of its entries.
    pub size_bytes: u64,
    /// Last change.
    pub mtime: Time,
    /// Type and permission bits, as `st_mode`.
    pub mode: u16,
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// 1 for a file; 2 and the number of its directories for a directory.
    pub nlink: u32,
}

/// One entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Its name, `.` and `..` included: any bytes but `/` and zero.
    pub name: &'a [u8],
    /// The inode it leads to.
    pub nid: Nid,
    /// That inode's kind.
    pub kind: Kind,
    /// Where [`Image::read_dir`] goes on after this entry.
    pub next: u64,
}

/// The entries of a directory in the order of their names' bytes, from a cookie on.
#[derive(Debug)]
pub struct ReadDir<'a> {
    image: &'a Image,
}

impl<'a> Iterator for ReadDir<'a> {
    type Item = Result<DirEntry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let _ = self.image;
        unimplemented!("the next commit")
    }
}

/// A mapped catalog image.
#[derive(Debug)]
pub struct Image {}

impl Image {
    /// Maps an image. The file must never be changed or truncated afterwards.
    ///
    /// # Errors
    /// It cannot be read, or its superblock is not ours.
    pub fn open(_path: &Path) -> Result<Self> {
        unimplemented!("the next commit")
    }

    /// The root directory.
    pub fn root(&self) -> Nid {
        unimplemented!("the next commit")
    }

    /// The number of files and directories, as the superblock says.
    pub fn inodes(&self) -> u64 {
        unimplemented!("the next commit")
    }

    /// Reads the attributes of an inode.
    ///
    /// # Errors
    /// There is no such inode.
    pub fn inode(&self, _nid: Nid) -> Result<Inode> {
        unimplemented!("the next commit")
    }

    /// Finds a name in a directory.
    ///
    /// # Errors
    /// `dir` is not a directory, or damaged.
    pub fn lookup(&self, _dir: Nid, _name: &[u8]) -> Result<Option<DirEntry<'_>>> {
        unimplemented!("the next commit")
    }

    /// Lists a directory from the entry that `from` says: 0, or the [`next`](DirEntry::next) of an entry.
    ///
    /// # Errors
    /// `dir` is not a directory, or damaged.
    pub fn read_dir(&self, _dir: Nid, _from: u64) -> Result<ReadDir<'_>> {
        unimplemented!("the next commit")
    }

    /// Reads one extended attribute by its full name (`user.millpond.etag`); `None`: it has none of that name.
    ///
    /// # Errors
    /// There is no such inode, or it is damaged.
    pub fn xattr(&self, _nid: Nid, _name: &[u8]) -> Result<Option<&[u8]>> {
        unimplemented!("the next commit")
    }

    /// Reads all extended attributes, `trusted.overlay.*` included.
    ///
    /// # Errors
    /// There is no such inode, or it is damaged.
    pub fn xattrs(&self, _nid: Nid) -> Result<Vec<(Vec<u8>, &[u8])>> {
        unimplemented!("the next commit")
    }

    /// The id of the object that a file stands for.
    ///
    /// # Errors
    /// `nid` is not a file, or damaged.
    pub fn object_id(&self, _nid: Nid) -> Result<ObjectId> {
        unimplemented!("the next commit")
    }

    /// The directory above a directory; the root's is the root.
    ///
    /// # Errors
    /// `dir` is not a directory, or damaged.
    pub fn parent(&self, _dir: Nid) -> Result<Nid> {
        unimplemented!("the next commit")
    }

    /// The path of an inode from the root, without a leading `/`; empty for the root itself.
    ///
    /// # Errors
    /// `parent` has no entry that leads to `nid`, or something on the way is damaged.
    pub fn path_of(&self, _nid: Nid, _parent: Nid) -> Result<Vec<u8>> {
        unimplemented!("the next commit")
    }
}
