//! `millpond warmup`: fetches files before anybody reads them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use millpond_cache::dataset::{LoadOptions, LoadProgress};

use super::progress::{Display, Progress};
use super::terminal::{bytes, complain, say};
use super::value;
use crate::mount::client::{Client, block_on};
use crate::mount::run_directory::Place;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A mount, or directories, files or globs in it.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Files at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Bytes a second at most, for example 1Gi [default: as fast as it goes].
    #[arg(long, value_name = "SIZE", value_parser = value::size)]
    bandwidth: Option<u64>,
}

pub(super) fn run(arguments: Arguments) -> Result<ExitCode> {
    let (place, paths) = one_mount(&arguments.paths)?;
    if arguments.bandwidth == Some(0) {
        bail!("--bandwidth 0 would never end: leave it out for no limit");
    }
    let options = LoadOptions {
        paths,
        threads: usize::from(arguments.threads),
        bandwidth_bytes_per_second: arguments.bandwidth,
    };
    let mut display = Display::new();
    let end = block_on(async {
        Client::new(place)
            .warm(&options, |progress| display.show(&progress.into()))
            .await
    })?;
    display.finish();
    for failed in &end.failed_samples {
        complain(format_args!("failed: {failed}"));
    }
    say(format_args!(
        "{} files are here, {} ({} fetched now)",
        end.files_done,
        bytes(end.bytes_done),
        bytes(end.bytes_fetched)
    ));
    if end.left_out > 0 {
        complain(format_args!(
            "{} files found no free room: a larger --cache-size makes some, and what is read finds some where --eviction \
             is not never",
            end.left_out
        ));
    }
    if end.failed > 0 {
        complain(format_args!("error: {} files could not be fetched", end.failed));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// The mount that all paths lie on, and the paths within it; none for all of it.
fn one_mount(paths: &[PathBuf]) -> Result<(Place, Vec<String>)> {
    let mut found: Option<(Place, PathBuf)> = None;
    let mut within = Vec::new();
    let mut everything = false;
    for path in paths {
        let (place, directory, rest) = Place::containing(path)?;
        match &found {
            Some((_, other)) if *other != directory => bail!(
                "{} and {} are two mounts: warm them one after the other",
                other.display(),
                directory.display()
            ),
            Some(_) => {}
            None => found = Some((place, directory)),
        }
        match rest.to_str() {
            Some("") => everything = true,
            Some(rest) => within.push(rest.to_owned()),
            None => bail!(
                "{} is not Unicode, and no object's name",
                Path::new(&rest).display()
            ),
        }
    }
    let Some((place, _)) = found else {
        bail!("nothing to warm: name a mount, or files in it");
    };
    if everything {
        within.clear();
    }
    Ok((place, within))
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
