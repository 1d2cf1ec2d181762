//! A directory that is held open, and what its listing must be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::mem::MaybeUninit;

use anyhow::{Result, ensure};
use rustix::fs::{FileType, RawDir, SeekFrom};

use crate::model::source::Epoch;
use crate::model::tree::{Node, Tree};

/// A buffer that holds few entries, but the longest.
const BUFFER: usize = 320;

/// The names that a listing may show, and those that it must.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    /// With what each may be: a directory or not.
    may: BTreeMap<String, BTreeSet<bool>>,
    must: BTreeSet<String>,
}

impl Expected {
    /// Of the directory `path` in one of these trees. `None`: it is a directory in none of them.
    pub(crate) fn of<'a>(path: &str, trees: impl Iterator<Item = &'a Tree>) -> Option<Self> {
        let mut expected: Option<Self> = None;
        for tree in trees {
            let Ok(Node::Directory(names)) = tree.resolve(path) else {
                continue;
            };
            let one = expected.get_or_insert_with(|| Self {
                may: BTreeMap::new(),
                must: names.clone(),
            });
            one.must.retain(|name| names.contains(name));
            for name in names {
                let node = tree.resolve(format!("{path}/{name}").trim_start_matches('/'));
                let is_directory = matches!(node, Ok(Node::Directory(_)));
                one.may.entry(name.clone()).or_default().insert(is_directory);
            }
        }
        expected
    }

    /// Requires that these names, each once, are a whole listing.
    pub(crate) fn check(&self, path: &str, listed: &[(String, FileType)]) -> Result<()> {
        let mut names = BTreeSet::new();
        for (name, kind) in listed {
            ensure!(names.insert(name.clone()), "{path:?} lists {name:?} twice");
            let kinds = self.may.get(name);
            ensure!(
                kinds.is_some_and(|kinds| kinds.contains(&(*kind == FileType::Directory))),
                "{path:?} lists {name:?} as {kind:?}, expected {self:?}"
            );
        }
        let missing: Vec<_> = self.must.difference(&names).collect();
        ensure!(missing.is_empty(), "{path:?} does not list {missing:?}");
        Ok(())
    }
}

struct Entry {
    name: String,
    kind: FileType,
    /// The offset at which the listing continues after it.
    cookie: u64,
}

/// An open directory.
pub(crate) struct HeldDirectory {
    file: File,
    path: String,
    expected: Expected,
    /// What its generation shows is of this moment at the earliest: what the source became later may be another one.
    pub(crate) since: Epoch,
    /// All entries that were ever seen, in order.
    entries: Vec<Entry>,
    /// How many of them are before the position.
    position: usize,
}

impl HeldDirectory {
    pub(crate) fn new(file: File, path: &str, expected: Expected, since: Epoch) -> Self {
        Self {
            file,
            path: path.to_owned(),
            expected,
            since,
            entries: Vec::new(),
            position: 0,
        }
    }

    /// Lists on by so many calls; at the end, checks the whole.
    ///
    /// # Errors
    /// Outside for what is wrong, inside for errors of the kernel.
    pub(crate) fn list_on(&mut self, calls: u8) -> Result<rustix::io::Result<()>> {
        for _ in 0..calls {
            let mut buffer = [MaybeUninit::uninit(); BUFFER];
            let mut listing = RawDir::new(&self.file, &mut buffer);
            let mut first = true;
            while first || !listing.is_buffer_empty() {
                first = false;
                let entry = match listing.next() {
                    Some(Ok(entry)) => entry,
                    Some(Err(error)) => return Ok(Err(error)),
                    None => {
                        ensure!(
                            self.position == self.entries.len(),
                            "{:?} ended after {} entries, and had {}",
                            self.path,
                            self.position,
                            self.entries.len()
                        );
                        self.check()?;
                        return Ok(Ok(()));
                    }
                };
                let name = entry.file_name().to_str()?.to_owned();
                let (kind, cookie) = (entry.file_type(), entry.next_entry_cookie());
                match self.entries.get(self.position) {
                    Some(before) => ensure!(
                        before.name == name && before.kind == kind,
                        "{:?} listed {:?} and then, at the same place, {name:?}",
                        self.path,
                        before.name
                    ),
                    None => self.entries.push(Entry { name, kind, cookie }),
                }
                self.position += 1;
            }
        }
        Ok(Ok(()))
    }

    fn check(&self) -> Result<()> {
        let (dots, names): (Vec<_>, Vec<_>) = self
            .entries
            .iter()
            .map(|entry| (entry.name.clone(), entry.kind))
            .partition(|(name, _)| name == "." || name == "..");
        ensure!(dots.len() == 2, "{:?} lists {dots:?}", self.path);
        self.expected.check(&self.path, &names)
    }

    /// Goes back to behind an entry that was seen, or to the beginning.
    pub(crate) fn seek(&mut self, entry: u16) -> Result<()> {
        let position = usize::from(entry) % (self.entries.len() + 1);
        let cookie = position
            .checked_sub(1)
            .map_or(0, |before| self.entries[before].cookie);
        rustix::fs::seek(&self.file, SeekFrom::Start(cookie))?;
        self.position = position;
        Ok(())
    }
}
