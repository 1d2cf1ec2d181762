//! Lines for a person.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::Instant;

/// Prints a line.
pub fn say(line: impl Display) {
    // A reader that has closed its end needs no line.
    let _closed = writeln!(std::io::stdout(), "{line}");
}

/// Prints a line to standard error: progress of a program whose output is data, or what went wrong.
pub fn complain(line: impl Display) {
    let _closed = writeln!(std::io::stderr(), "{line}");
}

/// A step that takes a while: its line names at the end how long it took.
pub struct Step {
    begun: Instant,
}

impl Step {
    /// Names what begins, on a terminal.
    pub fn begin(what: impl Display) -> Self {
        if std::io::stdout().is_terminal() {
            let mut output = std::io::stdout();
            let _closed = write!(output, "  {what} ...").and_then(|()| output.flush());
        }
        Self {
            begun: Instant::now(),
        }
    }

    /// Names what was done, in its place.
    pub fn done(self, what: impl Display) {
        clear();
        say(format_args!(
            "  {:<92} {:>5.1} s",
            what.to_string(),
            self.begun.elapsed().as_secs_f64()
        ));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        clear();
    }
}

/// Removes the line of a step that has begun.
fn clear() {
    if std::io::stdout().is_terminal() {
        let mut output = std::io::stdout();
        let _closed = write!(output, "\r\x1b[K").and_then(|()| output.flush());
    }
}
