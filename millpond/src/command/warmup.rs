//! `millpond warmup`: fetches files before anybody reads them.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use cache_worker::dataset::{LoadOptions, LoadProgress};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::terminal::{bytes, complain, say};
use super::value;
use crate::mount::client::{Client, block_on};
use crate::mount::place::Place;

/// Between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

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
            .warm(&options, |progress| display.show(progress))
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

/// A bar on a terminal, lines elsewhere.
struct Display {
    bar: Option<ProgressBar>,
    started: Instant,
    said: Option<Instant>,
}

impl Display {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            let style = "{msg} [{wide_bar}] {bytes}/{total_bytes} {binary_bytes_per_sec} ETA {eta}";
            // The template is ours; a bad one would show in the first run.
            bar.set_style(
                ProgressStyle::with_template(style).unwrap_or_else(|_bad| ProgressStyle::default_bar()),
            );
            bar
        });
        Self {
            bar,
            started: Instant::now(),
            said: None,
        }
    }

    fn show(&mut self, progress: &LoadProgress) {
        if let Some(bar) = &self.bar {
            bar.set_length(progress.bytes_total);
            bar.set_position(progress.bytes_done);
            bar.set_message(files(progress));
            return;
        }
        if self.said.is_some_and(|said| said.elapsed() < LINE_INTERVAL) {
            return;
        }
        self.said = Some(Instant::now());
        if !progress.counted {
            say(format_args!("{} files so far", progress.files_done));
            return;
        }
        let seconds = self.started.elapsed().as_secs().max(1);
        let rate = progress.bytes_fetched / seconds;
        let left = progress.bytes_total.saturating_sub(progress.bytes_done);
        let eta = match left.checked_div(rate) {
            Some(seconds) => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
            None => "unknown".to_owned(),
        };
        say(format_args!(
            "{}, {} of {}, {}/s, ETA {eta}",
            files(progress),
            bytes(progress.bytes_done),
            bytes(progress.bytes_total),
            bytes(rate)
        ));
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn files(progress: &LoadProgress) -> String {
    // The catalog is still being searched.
    let more = if progress.counted { "" } else { "+" };
    match progress.failed {
        0 => format!("{}/{}{more} files", progress.files_done, progress.files_total),
        failed => format!(
            "{}/{}{more} files, {failed} failed",
            progress.files_done, progress.files_total
        ),
    }
}
