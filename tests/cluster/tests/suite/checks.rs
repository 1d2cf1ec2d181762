//! A suite of named checks that follow each other.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use test_cluster::{Cluster, Name};

/// What the checks of a suite came to.
#[derive(Default)]
pub(crate) struct Checks {
    passed: usize,
    failed: Vec<&'static str>,
}

impl Checks {
    /// Runs a check, and prints its outcome. The next one is run even if it fails.
    pub(crate) fn check(&mut self, sentence: &'static str, check: impl FnOnce() -> Result<()>) {
        let begun = Instant::now();
        let outcome = check();
        let seconds = begun.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("ok      {sentence} ({seconds:.1} s)");
            }
            Err(error) => {
                self.failed.push(sentence);
                println!("FAILED  {sentence} ({seconds:.1} s)\n{error:?}");
            }
        }
    }

    /// Fails if a check has.
    pub(crate) fn finish(self) {
        println!("{} passed, {} failed", self.passed, self.failed.len());
        assert!(self.failed.is_empty(), "{:#?}", self.failed);
    }
}

/// A cluster of a suite's own; it is taken down when this is dropped, and those of suites that were killed when this is made.
pub(crate) struct OwnCluster {
    pub(crate) name: Name,
}

impl OwnCluster {
    /// The cluster is called `PREFIX-PID`; nothing is brought up yet.
    pub(crate) fn new(prefix: &str) -> Result<Self> {
        take_down_orphans(prefix)?;
        let name = format!("{prefix}-{}", std::process::id()).parse()?;
        Ok(Self { name })
    }
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        if let Err(error) = Cluster::down(&self.name, None) {
            println!("{error:#}");
        }
    }
}

/// Takes down clusters `PREFIX-PID...` whose process has ended.
fn take_down_orphans(prefix: &str) -> Result<()> {
    for entry in fs::read_dir("/tmp")? {
        let folder = entry?.file_name();
        let folder = folder.to_string_lossy();
        let Some(name) = folder.strip_prefix("millpond-cluster-") else {
            continue;
        };
        let owner = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
        let owner = owner.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !fs::exists(format!("/proc/{pid}")).unwrap_or(true)) {
            Cluster::down(&name.parse()?, None)?;
        }
    }
    Ok(())
}

/// Fails if `outcome` is a success; returns the text of its failure.
pub(crate) fn refused<T: std::fmt::Debug>(outcome: Result<T>) -> Result<String> {
    match outcome {
        Ok(done) => bail!("was not to succeed: {done:?}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// Fails if `outcome` is a success, or a failure without `words`.
pub(crate) fn refused_with<T: std::fmt::Debug>(outcome: Result<T>, words: &str) -> Result<()> {
    let text = refused(outcome)?;
    ensure!(text.contains(words), "the failure is {text:?}, without {words:?}");
    Ok(())
}

/// Fails if the two are not the same.
pub(crate) fn same(found: &str, expected: &str) -> Result<()> {
    ensure!(found == expected, "is '{found}', not '{expected}'");
    Ok(())
}

/// Fails if the text does not have the words.
pub(crate) fn has(text: &str, words: &str) -> Result<()> {
    ensure!(text.contains(words), "there is no '{words}' in: {text}");
    Ok(())
}

/// Runs a command at the root of the repository, and returns what it prints.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .current_dir(test_cluster::workspace())
        .output()
        .with_context(|| format!("failed to run {}", command.get_program().display()))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    // Without its arguments, in which a test would find the words that it looks for.
    ensure!(
        output.status.success(),
        "{} failed: {}",
        command.get_program().display(),
        stderr.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A guard, never a measure.
pub(crate) const GUARD: Duration = Duration::from_secs(30);
