//! Some readers at once.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{Pond, file_xattr, number};
use crate::model::operation::{Part, Way};
use crate::model::reading::{Outcome, read};
use crate::model::source::{Content, Source};
use crate::model::tree::{Node, Tree};

impl Pond {
    /// Several readers read all files that may be there, each in an order of its own.
    pub(super) fn read_all(&self, readers: u8) -> Result<()> {
        // What is learnt on the way is not shared between threads: they only read.
        let root = self.root().to_owned();
        let candidates = self.candidates("");
        let trees: Vec<&Tree> = candidates.iter().map(|(_, tree)| *tree).collect();
        let reads: Vec<Result<Vec<(String, Content)>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..usize::from(readers))
                .map(|reader| {
                    let (root, trees, source) = (&root, &trees, &self.source);
                    scope.spawn(move || read_each(root, trees, source, reader))
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect()
        });
        for stale in reads {
            for (path, content) in stale? {
                self.stale(&path, content)?;
            }
        }
        Ok(())
    }
}

/// Reads every file of the trees once, starting from a place of the reader's own. Gives those that were stale.
fn read_each(root: &Path, trees: &[&Tree], source: &Source, reader: usize) -> Result<Vec<(String, Content)>> {
    let files: BTreeSet<&str> = trees
        .iter()
        .flat_map(|tree| tree.files().map(|(path, _)| path))
        .collect();
    let mut stale = Vec::new();
    let count = files.len();
    for path in files.iter().copied().cycle().skip(reader * 3).take(count) {
        let known: Vec<_> = trees.iter().map(|tree| tree.resolve(path)).collect();
        let contents = |known: &[Result<&Node, i32>]| -> Vec<Content> {
            known
                .iter()
                .filter_map(|node| match node {
                    Ok(Node::File(content)) => Some(*content),
                    _ => None,
                })
                .collect()
        };
        let file = match File::open(root.join(path)) {
            Ok(file) => file,
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => {
                stale.extend(
                    contents(&known)
                        .into_iter()
                        .take(1)
                        .map(|content| (path.to_owned(), content)),
                );
                continue;
            }
            Err(error) => {
                let number = number(&error, path)?;
                ensure!(known.contains(&Err(number)), "reading {path:?}: {error}");
                continue;
            }
        };
        if file.metadata()?.is_dir() {
            let may_be = known.iter().any(|node| matches!(node, Ok(Node::Directory(_))));
            ensure!(may_be, "{path:?} is a directory");
            continue;
        }
        let etag = file_xattr(&file, "user.millpond.etag")?;
        let content = source.content_of(&String::from_utf8_lossy(&etag));
        let content = content.filter(|content| contents(&known).contains(content));
        let content = content.ok_or_else(|| anyhow!("{path:?} is no version that it may be"))?;
        let part = Part {
            offset: 0,
            length: content.size,
        };
        match read(&file, content, Way::Positioned, part).with_context(|| path.to_owned())? {
            Outcome::Right { .. } => {}
            Outcome::Failed(error) if error.raw_os_error() == Some(libc::ESTALE) => {
                stale.push((path.to_owned(), content));
            }
            Outcome::Failed(error) => bail!("reading {path:?}: {error}"),
        }
    }
    Ok(stale)
}
