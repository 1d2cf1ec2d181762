//! The tree that a state of the source makes, as `docs/semantics.md` says.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::source::{Content, Snapshot};

/// Longest name of a file.
const NAME_MAX: usize = 255;

/// A file or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    File(Content),
    Directory(BTreeSet<String>),
}

/// All nodes by their paths; the root's is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tree {
    nodes: BTreeMap<String, Node>,
}

/// The parent of a path that is not the root's, and its name there.
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Whether a key can be a path.
fn is_a_path(key: &str) -> bool {
    let names_are_good = key
        .split('/')
        .all(|name| !matches!(name, "" | "." | "..") && name.len() <= NAME_MAX);
    names_are_good && !key.chars().any(char::is_control)
}

impl Tree {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let mut tree = Self {
            nodes: BTreeMap::from([(String::new(), Node::Directory(BTreeSet::new()))]),
        };
        // Directories first: where both want a name, the file is left out.
        for (key, content) in snapshot {
            match key.strip_suffix('/') {
                Some(directory) if content.size == 0 && is_a_path(directory) => tree.directory(directory),
                None if is_a_path(key) => tree.directory(split(key).0),
                _ => {}
            }
        }
        for (key, content) in snapshot.iter().filter(|(key, _)| is_a_path(key)) {
            if !tree.nodes.contains_key(*key) {
                tree.enter(key);
                tree.nodes.insert((*key).to_owned(), Node::File(*content));
            }
        }
        tree
    }

    fn directory(&mut self, path: &str) {
        if !self.nodes.contains_key(path) {
            self.directory(split(path).0);
            self.enter(path);
            self.nodes
                .insert(path.to_owned(), Node::Directory(BTreeSet::new()));
        }
    }

    /// Writes a name into its directory, which is there.
    fn enter(&mut self, path: &str) {
        let (parent, name) = split(path);
        if let Some(Node::Directory(names)) = self.nodes.get_mut(parent) {
            names.insert(name.to_owned());
        }
    }

    /// What a path leads to, or the error that a system call gives.
    pub(crate) fn resolve(&self, path: &str) -> Result<&Node, i32> {
        let mut node = &self.nodes[""];
        let mut end = 0;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            if matches!(node, Node::File(_)) {
                return Err(libc::ENOTDIR);
            }
            if name.len() > NAME_MAX {
                return Err(libc::ENAMETOOLONG);
            }
            end += name.len() + usize::from(end > 0);
            node = self.nodes.get(&path[..end]).ok_or(libc::ENOENT)?;
        }
        Ok(node)
    }

    /// All files, by path.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, Content)> {
        self.nodes.iter().filter_map(|(path, node)| match node {
            Node::File(content) => Some((path.as_str(), *content)),
            Node::Directory(_) => None,
        })
    }

    /// Bytes of all files together.
    pub(crate) fn bytes(&self) -> u64 {
        self.files().map(|(_, content)| content.size).sum()
    }
}
