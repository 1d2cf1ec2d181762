//! `kubectl`, as a person types it.

use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The timeout of a call; the caller waits for an API server that is unavailable.
const CALL_SECONDS: &str = "60";

/// Speaks to one cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: Vec<PathBuf>,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// Uses `program` (with its first words) and the cluster of `kubeconfig`.
    pub const fn new(program: Vec<PathBuf>, kubeconfig: PathBuf) -> Self {
        Self { program, kubeconfig }
    }

    /// Runs it, and gives what it prints.
    ///
    /// # Errors
    /// It fails: with all that it printed.
    pub fn run<W: AsRef<OsStr>>(&self, words: &[W]) -> Result<String> {
        stdout(self.output(words, "")?, words)
    }

    /// Runs it with a text as its standard input.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_with<W: AsRef<OsStr>>(&self, words: &[W], input: &str) -> Result<String> {
        stdout(self.output(words, input)?, words)
    }

    /// Runs it, whatever becomes of it.
    ///
    /// # Errors
    /// It cannot be run at all.
    pub fn output<W: AsRef<OsStr>>(&self, words: &[W], input: &str) -> Result<Output> {
        let mut child = self
            .command()
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("failed to run kubectl: scripts/deps")?;
        if let Some(mut stdin) = child.stdin.take() {
            // A kubectl that ends without reading fails by its exit status.
            let _ended = stdin.write_all(input.as_bytes());
        }
        Ok(child.wait_with_output()?)
    }

    /// The command without its words, for who runs it beside others.
    pub fn command(&self) -> Command {
        let mut command = Command::new("timeout");
        command.arg(CALL_SECONDS).args(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }

    /// `kubectl millpond`: kubectl hands a plugin no flags that stand before its name.
    pub fn plugin_command(&self) -> Command {
        let mut command = Command::new("timeout");
        command.arg(CALL_SECONDS).args(&self.program).arg("millpond");
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Applies objects.
    ///
    /// # Errors
    /// The API server refuses them.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        self.run_with(&["apply", "-f", "-"], manifest).map(drop)
    }

    /// An object or a list as JSON.
    ///
    /// # Errors
    /// It is not there.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let mut all = vec!["get", "-o", "json"];
        all.extend_from_slice(words);
        serde_json::from_str(&self.run(&all)?).context("kubectl printed no JSON")
    }

    /// The file that names the cluster.
    pub fn kubeconfig(&self) -> &std::path::Path {
        &self.kubeconfig
    }
}

fn stdout<W: AsRef<OsStr>>(output: Output, words: &[W]) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words: Vec<_> = words.iter().map(|word| word.as_ref().to_string_lossy()).collect();
    bail!(
        "kubectl {} failed ({}): {}{}",
        words.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    )
}
