//! The program `ip`.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Runs it.
pub(crate) fn ip<W: AsRef<str>>(words: &[W]) -> Result<()> {
    output(words).map(drop)
}

/// A bridge of the machine.
#[derive(Debug, Deserialize)]
pub(crate) struct Bridge {
    #[serde(rename = "ifname")]
    pub(crate) name: String,
    #[serde(rename = "ifalias")]
    pub(crate) alias: Option<String>,
}

/// Returns the machine's bridges.
pub(crate) fn bridges() -> Result<Vec<Bridge>> {
    let json = output(&["-json", "link", "show", "type", "bridge"])?;
    serde_json::from_slice(&json).context("ip printed other JSON than expected")
}

fn output<W: AsRef<str>>(words: &[W]) -> Result<Vec<u8>> {
    let words: Vec<_> = words.iter().map(AsRef::as_ref).collect();
    let output = Command::new("ip")
        .args(&words)
        .output()
        .context("failed to run ip: scripts/deps")?;
    ensure!(
        output.status.success(),
        "ip {} failed: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}
