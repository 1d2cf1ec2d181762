//! `kubectl millpond`, found by kubectl itself as its plugin.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{Kubectl, workspace};

/// The plugin's answer.
#[derive(Debug)]
pub struct Answer {
    /// Whether it ended well.
    pub success: bool,
    /// What it printed, errors last.
    pub text: String,
}

/// Runs the plugin of the debug build.
///
/// # Errors
/// It cannot be run.
pub(crate) fn run(kubectl: &Kubectl, words: &[&str]) -> Result<Answer> {
    let folder = plugin_folder()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&path)))?;
    let output = kubectl
        .plugin_command()
        .args(words)
        .env("PATH", path)
        .output()
        .context("failed to run kubectl")?;
    let text = [output.stdout, output.stderr].concat();
    Ok(Answer {
        success: output.status.success(),
        text: String::from_utf8_lossy(&text).into_owned(),
    })
}

/// A folder with a link of the plugin's name to the program.
fn plugin_folder() -> Result<PathBuf> {
    let folder = workspace().join("target/tmp/plugin");
    fs::create_dir_all(&folder)?;
    match symlink(
        workspace().join("target/debug/millpond"),
        folder.join("kubectl-millpond"),
    ) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(folder),
    }
}
