//! Words to the person at the terminal.
//!
//! Unlike the `print` macros these do not panic where the reader is gone (`millpond stats | head`).

use std::fmt::Display;
use std::io::{IsTerminal, Write};

/// Prints a line to the standard output.
pub(super) fn say(line: impl Display) {
    let _gone = writeln!(std::io::stdout(), "{line}");
}

/// Prints a line to the standard error output.
pub(super) fn complain(line: impl Display) {
    let _gone = writeln!(std::io::stderr(), "{line}");
}

/// A line that is written over and over on a terminal, and not at all elsewhere.
#[derive(Debug, Default)]
pub(super) struct StatusLine {
    shown: bool,
}

impl StatusLine {
    /// Shows `text` instead of what was there.
    pub(super) fn show(&mut self, text: impl Display) {
        if std::io::stderr().is_terminal() {
            self.shown = true;
            // Carriage return, text, clear to the end of the line.
            let _gone = write!(std::io::stderr(), "\r{text}\x1b[K").and_then(|()| std::io::stderr().flush());
        }
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _gone = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// A number of bytes for people.
pub(super) fn bytes(bytes: u64) -> impl Display {
    bytesize::ByteSize::b(bytes).display().iec()
}

/// A part of one for people.
pub(super) fn percent(part: Option<f64>) -> String {
    part.map_or_else(|| "-".to_owned(), |part| format!("{:.1} %", part * 100.0))
}
