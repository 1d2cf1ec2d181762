//! The program itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::scratch::{MARK, Scratch};

/// The `millpond` program, and the scratch directory that its processes belong to.
#[derive(Clone, Debug)]
pub struct Millpond {
    program: PathBuf,
    scratch: PathBuf,
}

impl Millpond {
    /// The program that cargo built together with the running one.
    ///
    /// # Errors
    /// It was not built.
    pub fn built(scratch: &Scratch) -> Result<Self> {
        let this = std::env::current_exe().context("failed to find this program")?;
        let mut folder = this.parent().context("this program lies in no directory")?;
        // Tests lie in a directory of their own.
        if folder.ends_with("deps") {
            folder = folder.parent().unwrap_or(folder);
        }
        Self::at(&folder.join("millpond"), scratch)
    }

    /// The program of this path.
    ///
    /// # Errors
    /// There is none.
    pub fn at(program: &Path, scratch: &Scratch) -> Result<Self> {
        ensure!(
            program.is_file(),
            "there is no {}: build it first, in the same profile as this program",
            program.display()
        );
        Ok(Self {
            program: program.to_owned(),
            scratch: scratch.path().to_owned(),
        })
    }

    /// Its scratch directory.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// A command, marked so that its descendants are found.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env(MARK, &self.scratch).stdin(Stdio::null());
        command
    }

    /// Runs a command on a directory and returns how it ended.
    pub(crate) fn run(&self, words: &[&str], directory: &Path) -> Result<Output> {
        self.command()
            .args(words)
            .arg(directory)
            .output()
            .with_context(|| format!("failed to run {}", self.program.display()))
    }

    /// Runs a command on a directory and returns what it printed.
    ///
    /// # Errors
    /// With what it printed to standard error, where it fails.
    pub(crate) fn succeed(&self, words: &[&str], directory: &Path) -> Result<String> {
        let output = self.run(words, directory)?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!(
                "millpond {}: {}\n{printed}{}",
                words.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(printed)
    }
}
