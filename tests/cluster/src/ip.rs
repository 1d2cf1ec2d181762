//! The program `ip`.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Runs it.
pub(crate) fn ip<W: AsRef<str>>(words: &[W]) -> Result<()> {
    output(words).map(drop)
}

/// Creates a bridge with an alias. Both or none, even if this process is killed: one `ip` does both.
pub(crate) fn create_bridge(name: &str, alias: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("failed to run ip: scripts/deps")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(format!("link add {name} type bridge\nlink set {name} alias {alias}\n").as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "failed to create the bridge {name}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
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
