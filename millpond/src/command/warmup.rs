//! `millpond warmup`: prefetches files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use millpond_cache::dataset::{LoadOptions, LoadProgress};

use super::progress::{Display, Progress};
use super::terminal::{bytes, print_error, print_line};
use super::value;
use crate::mount::client::{Client, block_on};
use crate::mount::run_directory::RunDirectory;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Mount directory, or directories, files or globs in it.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Files fetched concurrently.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Most bytes per second, for example 1Gi [default: unlimited].
    #[arg(long, value_name = "SIZE", value_parser = value::size)]
    bandwidth: Option<u64>,
}

pub(super) fn run(arguments: Arguments) -> Result<ExitCode> {
    let (run_dir, paths) = one_mount(&arguments.paths)?;
    if arguments.bandwidth == Some(0) {
        bail!("--bandwidth 0 would never finish: leave it out for no limit");
    }
    let options = LoadOptions {
        paths,
        threads: usize::from(arguments.threads),
        bandwidth_bytes_per_second: arguments.bandwidth,
    };
    let mut display = Display::new();
    let end = block_on(async {
        Client::new(run_dir)
            .warm(&options, |progress| display.show(&progress.into()))
            .await
    })?;
    display.finish();
    for failed in &end.failed_samples {
        print_error(format_args!("failed: {failed}"));
    }
    print_line(format_args!(
        "{} files are here, {} ({} fetched now)",
        end.files_done,
        bytes(end.bytes_done),
        bytes(end.bytes_fetched)
    ));
    if end.left_out > 0 {
        print_error(format_args!(
            "{} files found no free space: give a larger --cache-size; reads make space themselves where --eviction is \
             not never",
            end.left_out
        ));
    }
    if end.failed > 0 {
        print_error(format_args!("error: {} files could not be fetched", end.failed));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the mount that all paths lie on, and the paths within it; none selects all files.
fn one_mount(paths: &[PathBuf]) -> Result<(RunDirectory, Vec<String>)> {
    let mut found: Option<(RunDirectory, PathBuf)> = None;
    let mut within = Vec::new();
    let mut everything = false;
    for path in paths {
        let (run_dir, directory, rest) = RunDirectory::containing(path)?;
        match &found {
            Some((_, other)) if *other != directory => bail!(
                "{} and {} are on different mounts: run warmup once for each",
                other.display(),
                directory.display()
            ),
            Some(_) => {}
            None => found = Some((run_dir, directory)),
        }
        match rest.to_str() {
            Some("") => everything = true,
            Some(rest) => within.push(rest.to_owned()),
            None => bail!(
                "{} is not Unicode and cannot be an object's name",
                Path::new(&rest).display()
            ),
        }
    }
    let Some((run_dir, _)) = found else {
        bail!("nothing to prefetch: name a mount, or files in it");
    };
    if everything {
        within.clear();
    }
    Ok((run_dir, within))
}

impl From<&LoadProgress> for Progress {
    fn from(progress: &LoadProgress) -> Self {
        Self {
            counted: progress.counted,
            files_total: progress.files_total,
            files_done: progress.files_done,
            failed: progress.failed,
            bytes_total: progress.bytes_total,
            bytes_done: progress.bytes_done,
            bytes_fetched: progress.bytes_fetched,
        }
    }
}
