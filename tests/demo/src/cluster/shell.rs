//! Commands, shown as a person would type them.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use harness::report::say;

/// A command that prints nothing is named again after each of these.
const SILENCE: Duration = Duration::from_secs(30);

/// Where commands run: the project's directory, with these environment variables.
#[derive(Debug)]
pub(crate) struct Shell {
    directory: PathBuf,
    environment: Vec<(&'static str, OsString)>,
}

impl Shell {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            environment: Vec::new(),
        }
    }

    /// Sets an environment variable of the commands that follow.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.environment.push((name, value.into()));
    }

    /// Shows a command, runs it, and shows all that it prints.
    pub(crate) fn show(&self, words: &[&str]) -> Result<()> {
        say(format_args!("\n$ {}", words.join(" ")));
        let (mut command, name) = self.command(words)?;
        let status = with_progress(&name, || command.status())?;
        if !status.success() {
            bail!("{name}: {status}");
        }
        Ok(())
    }

    /// Runs a command and returns what it printed to its standard output. Where it fails, its errors are the error's.
    pub(crate) fn output(&self, words: &[&str]) -> Result<String> {
        let (mut command, name) = self.command(words)?;
        let output = with_progress(&name, || command.output())?;
        if !output.status.success() {
            let printed = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
            bail!("{name}: {}\n{}", output.status, printed.concat().trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn command(&self, words: &[&str]) -> Result<(Command, String)> {
        let (program, rest) = words.split_first().context("a command without words")?;
        let mut command = Command::new(program);
        command
            .args(rest)
            .current_dir(&self.directory)
            .stdin(Stdio::null());
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        let name = words.iter().take(2).copied().collect::<Vec<_>>().join(" ");
        Ok((command, name))
    }
}

/// Does some work; one that takes long is named from time to time.
fn with_progress<T>(name: &str, work: impl FnOnce() -> io::Result<T>) -> Result<T> {
    let begun = Instant::now();
    let (ended, waiting) = channel::<()>();
    let result = std::thread::scope(|scope| {
        scope.spawn(move || {
            while waiting.recv_timeout(SILENCE) == Err(RecvTimeoutError::Timeout) {
                say(format_args!(
                    "  ... {name}: {} s so far",
                    begun.elapsed().as_secs()
                ));
            }
        });
        let result = work();
        drop(ended);
        result
    });
    result.with_context(|| format!("failed to run {name}"))
}
