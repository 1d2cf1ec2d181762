//! find and ls -lR over many files, warm, beside a native tree of the same names and sizes.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use harness::View;
use millpond_measure::Comparison;

use crate::lab::Lab;
use crate::row::{Goal, Rate, Row};

const ROUNDS: usize = 7;

/// Runs a command on a directory, its output thrown away.
pub(super) fn run(words: &[&str], directory: &Path) -> Result<()> {
    let (program, words) = words.split_first().context("no command was given")?;
    let status = Command::new(program)
        .args(words)
        .arg(directory)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("failed to run {program}"))?;
    ensure!(status.success(), "{program} {}: {status}", directory.display());
    Ok(())
}

/// Counts what find finds.
pub(super) fn count(directory: &Path) -> Result<usize> {
    let output = Command::new("find")
        .arg(directory)
        .args(["-type", "f"])
        .stdin(Stdio::null())
        .output()
        .context("failed to run find")?;
    ensure!(
        output.status.success(),
        "find {}: {}",
        directory.display(),
        output.status
    );
    Ok(output.stdout.iter().filter(|&&byte| byte == b'\n').count())
}

pub(crate) fn measure(lab: &mut Lab) -> Result<Vec<Row>> {
    let server = lab.server_of(&lab.walked)?;
    let native = lab.scratch.fresh("walked")?;
    lab.walked.write_holes(&native)?;
    let cache = lab.scratch.fresh("walked-cache")?;
    let command = lab.command(&lab.walked.source(), &server, &cache, View::Kernel)?;
    let mount = command.during("find and ls -lR, kernel view").mount()?;
    let files = lab.walked.count();
    for tree in [native.as_path(), mount.path()] {
        let found = u64::try_from(count(tree)?)?;
        ensure!(
            found == files,
            "{} has {found} files, not {files}",
            tree.display()
        );
    }
    let mut rows = Vec::new();
    for (words, goal) in [(&["find"] as &[&str], 1.0), (&["ls", "-lR"], 0.7)] {
        for tree in [native.as_path(), mount.path()] {
            run(words, tree)?;
        }
        let measured = Comparison::default()
            .with("native", || run(words, &native))
            .with("Millpond", || run(words, mount.path()))
            .run(lab.rounds(ROUNDS))?;
        let what = format!(
            "kernel view, {} over {files} files, warm / native",
            words.join(" ")
        );
        rows.push(Row::ratio(what, &measured, Rate::Files(files))?.with_goal(Goal::AtLeast(goal)));
    }
    lab.unmount(mount)?;
    Ok(rows)
}
