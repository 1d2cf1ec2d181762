//! Output to the terminal.
//!
//! Unlike the `print` macros these do not panic when the reader closed the pipe (`millpond stats | head`).

use std::fmt::Display;
use std::io::{IsTerminal, Write};

/// Prints a line to the standard output.
pub(super) fn print_line(line: impl Display) {
    let _closed = writeln!(std::io::stdout(), "{line}");
}

/// Prints a line to the standard error output.
pub(super) fn print_error(line: impl Display) {
    let _closed = writeln!(std::io::stderr(), "{line}");
}

/// Line that is redrawn on a terminal, and not printed elsewhere.
#[derive(Debug, Default)]
pub(super) struct StatusLine {
    is_drawn: bool,
}

impl StatusLine {
    /// Replaces the line by `text`.
    pub(super) fn show(&mut self, text: impl Display) {
        if std::io::stderr().is_terminal() {
            self.is_drawn = true;
            // Carriage return, text, clear to the end of the line.
            let _closed =
                write!(std::io::stderr(), "\r{text}\x1b[K").and_then(|()| std::io::stderr().flush());
        }
    }

    /// Clears the line.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_drawn) {
            let _closed = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// Formats a number of bytes.
pub(super) fn bytes(bytes: u64) -> impl Display {
    bytesize::ByteSize::b(bytes).display().iec()
}

/// Formats a fraction of one as a percentage; `-` where there is none.
pub(super) fn percent(fraction: Option<f64>) -> String {
    fraction.map_or_else(|| "-".to_owned(), |fraction| format!("{:.1} %", fraction * 100.0))
}
