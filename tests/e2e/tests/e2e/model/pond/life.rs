//! Operations on the mount itself.

use anyhow::{Context, Result, anyhow, ensure};
use harness::{View, wait_until};

use super::{Pond, Shown};
use crate::model::operation::{Cache, PATHS};
use crate::model::tree::{Node, Tree};

impl Pond {
    pub(super) fn mount(&mut self, fresh: bool) -> Result<()> {
        let command = self.command.clone();
        let command = if fresh { command.switch("--fresh") } else { command };
        let first = self.seen.borrow().is_empty() && self.shown.is_none();
        self.mount = Some(command.try_mount()?);
        if fresh || first {
            self.floor = self.source.now();
        }
        self.seen.borrow_mut().clear();
        if self.view == View::Kernel {
            self.shown = None;
            self.shown = Some(self.observe()?);
        }
        Ok(())
    }

    /// Finds the tree that a kernel view shows for its whole life.
    pub(super) fn observe(&self) -> Result<Tree> {
        let mut shown = Vec::new();
        for path in PATHS {
            shown.push((*path, self.stat(path)?));
        }
        let tree = (self.floor..=self.source.now())
            .map(|epoch| self.source.tree(epoch))
            .find(|tree| {
                shown
                    .iter()
                    .all(|(path, shown)| match (tree.resolve(path), shown) {
                        (Ok(Node::File(known)), Shown::File(found)) => known == found,
                        (Ok(Node::Directory(_)), Shown::Directory) => true,
                        (Err(known), Shown::Missing(found)) => known == *found,
                        _ => false,
                    })
            });
        tree.cloned()
            .ok_or_else(|| anyhow!("the view shows what the source never was: {shown:?}"))
    }

    pub(super) fn unmount(&mut self) -> Result<()> {
        self.files.clear();
        self.directories.clear();
        self.settle();
        if let Some(mount) = self.mount.take() {
            mount.unmount();
        }
        if self.setting.memory {
            // The memory tier ends with the mount, and what it held with it.
            self.kept.borrow_mut().clear();
        }
        Ok(())
    }

    /// Commands need a server: waits for one that was not killed.
    pub(super) fn settle(&mut self) {
        if std::mem::take(&mut self.killed)
            && let Some(mount) = &self.mount
        {
            wait_until("a successor of the server", || {
                mount.command(&["stats", "--json"]).status.success()
            });
        }
    }

    pub(super) fn kill(&mut self) {
        if let Some(mount) = &self.mount {
            wait_until("a server to kill", || mount.kill_server().is_some());
            self.killed = true;
        }
    }

    pub(super) fn refresh(&mut self) -> Result<()> {
        self.settle();
        let mount = self.mount.as_ref().expect("it is mounted");
        mount.succeed(&["refresh"]);
        self.floor = self.source.now();
        self.seen.borrow_mut().clear();
        Ok(())
    }

    pub(super) fn warm_up(&mut self, path: &'static str) -> Result<()> {
        self.settle();
        let target = self.path(path);
        let output = self
            .scratch
            .millpond()
            .arg("warmup")
            .arg(&target)
            .output()
            .context("run millpond warmup")?;
        // It warms the newest generation, which is known where nothing changed since the last listing.
        if self.floor != self.source.now() {
            return Ok(());
        }
        let tree = self.source.tree(self.floor);
        let files: Vec<_> = tree
            .files()
            .filter(|(file, _)| {
                path.is_empty()
                    || file
                        .strip_prefix(path)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
            .collect();
        if files.is_empty() {
            return Ok(());
        }
        ensure!(
            output.status.success() || self.setting.cache != Cache::Roomy,
            "millpond warmup {path:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        if output.status.success() {
            for (file, content) in files {
                self.keep(file, content);
            }
        }
        Ok(())
    }

    /// The end of the mount's log, for who looks for a cause.
    pub(crate) fn log(&self) -> String {
        let Some(mount) = &self.mount else {
            return String::new();
        };
        mount.log()
    }
}
