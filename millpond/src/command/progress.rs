//! Display of a load's progress: a bar on a terminal, lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::terminal::{bytes, print_line};

/// Interval between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Files and bytes of one load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Whether the totals are final; else they still grow.
    pub(super) counted: bool,
    pub(super) files_total: u64,
    pub(super) files_done: u64,
    pub(super) failed: u64,
    pub(super) bytes_total: u64,
    pub(super) bytes_done: u64,
    /// Of these, bytes fetched over the network.
    pub(super) bytes_fetched: u64,
}

/// Prints progress to the terminal.
pub(super) struct Display {
    bar: Option<ProgressBar>,
    started: Instant,
    last_line: Option<Instant>,
}

impl Display {
    pub(super) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            let style = "{msg} [{wide_bar}] {bytes}/{total_bytes} {binary_bytes_per_sec} ETA {eta}";
            // The template is constant; an invalid one would show in the first run.
            bar.set_style(
                ProgressStyle::with_template(style).unwrap_or_else(|_bad| ProgressStyle::default_bar()),
            );
            bar
        });
        Self {
            bar,
            started: Instant::now(),
            last_line: None,
        }
    }

    pub(super) fn show(&mut self, progress: &Progress) {
        if let Some(bar) = &self.bar {
            bar.set_length(progress.bytes_total);
            bar.set_position(progress.bytes_done);
            bar.set_message(files(progress));
            return;
        }
        if self.last_line.is_some_and(|at| at.elapsed() < LINE_INTERVAL) {
            return;
        }
        self.last_line = Some(Instant::now());
        if !progress.counted {
            print_line(format_args!("{} files so far", progress.files_done));
            return;
        }
        let seconds = self.started.elapsed().as_secs().max(1);
        let rate = progress.bytes_fetched / seconds;
        let left = progress.bytes_total.saturating_sub(progress.bytes_done);
        let eta = match left.checked_div(rate) {
            Some(seconds) => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
            None => "unknown".to_owned(),
        };
        print_line(format_args!(
            "{}, {} of {}, {}/s, ETA {eta}",
            files(progress),
            bytes(progress.bytes_done),
            bytes(progress.bytes_total),
            bytes(rate)
        ));
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn files(progress: &Progress) -> String {
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
