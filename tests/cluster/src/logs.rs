//! The last lines of logs, for errors that show why.

use std::fmt::Write;
use std::path::Path;

use crate::process::Process;

/// Lines of each log.
const LINES: usize = 12;

/// A longer line is cut.
const LINE_LENGTH: usize = 300;

/// Returns the last lines of the logs of processes, each below its name.
pub(crate) fn tails(processes: &[Process]) -> String {
    let mut text = String::new();
    for process in processes {
        let tail = tail(process.log());
        if !tail.is_empty() {
            let _infallible = write!(
                text,
                "\n--- the last lines of {}\n{tail}",
                process.log().display()
            );
        }
    }
    text
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut lines: Vec<_> = text.lines().rev().take(LINES).collect();
    lines.reverse();
    lines
        .iter()
        .map(|line| line.chars().take(LINE_LENGTH).chain(['\n']).collect::<String>())
        .collect()
}
