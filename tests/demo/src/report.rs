//! Words and the table, for a person.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::Instant;

use crate::epoch::Pass;
use crate::server::HandedOut;

/// Prints a line.
pub(crate) fn say(line: impl Display) {
    let _gone = writeln!(std::io::stdout(), "{line}");
}

/// Prints a line for those who look for what went wrong.
pub(crate) fn complain(line: impl Display) {
    let _gone = writeln!(std::io::stderr(), "{line}");
}

/// Something that takes a while: its line says at the end how long.
pub(crate) struct Step {
    begun: Instant,
}

impl Step {
    /// Says what begins, on a terminal.
    pub(crate) fn begin(what: impl Display) -> Self {
        if std::io::stdout().is_terminal() {
            let mut output = std::io::stdout();
            let _gone = write!(output, "  {what} ...").and_then(|()| output.flush());
        }
        Self {
            begun: Instant::now(),
        }
    }

    /// Says what was done, in its place.
    pub(crate) fn done(self, what: impl Display) {
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

fn clear() {
    if std::io::stdout().is_terminal() {
        let mut output = std::io::stdout();
        let _gone = write!(output, "\r\x1b[K").and_then(|()| output.flush());
    }
}

/// One epoch, through the mount and from the local disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epoch {
    pub(crate) through: Pass,
    pub(crate) local: Pass,
    pub(crate) from_origin: HandedOut,
}

/// The part of bytes that did not come from the origin, by the origin's account.
pub(crate) fn hit_rate(epochs: &[Epoch]) -> f64 {
    let from_origin: u64 = epochs.iter().map(|epoch| epoch.from_origin.bytes).sum();
    let read: u64 = epochs.iter().map(|epoch| epoch.through.bytes).sum();
    // Heads of answers are among the origin's bytes.
    (1.0 - float(from_origin) / float(read)).clamp(0.0, 1.0)
}

/// The lines above the epochs.
pub(crate) fn table_head() {
    say(format_args!(
        "\n  {:5}  {:>29}  {:>31}  {:>27}",
        "", "through Millpond      ", "by the S3 server's own account ", "the local disk beside it "
    ));
    row([
        "epoch", "files/s", "MB/s", "seconds", "hit rate", "bytes", "GETs", "files/s", "MB/s", "ratio",
    ]);
}

/// The line of an epoch.
pub(crate) fn table_row(number: usize, epoch: &Epoch) {
    let Epoch {
        through,
        local,
        from_origin,
    } = epoch;
    row([
        &number.to_string(),
        &whole(files_per_second(through)),
        &whole(megabytes_per_second(through)),
        &format!("{:.1}", through.time.as_secs_f64()),
        &format!("{:.2} %", hit_rate(std::slice::from_ref(epoch)) * 100.0),
        &bytes(from_origin.bytes),
        &from_origin.gets.to_string(),
        &whole(files_per_second(local)),
        &whole(megabytes_per_second(local)),
        &format!(
            "{:.2}",
            local.time.as_secs_f64() / through.time.as_secs_f64().max(f64::EPSILON)
        ),
    ]);
}

fn row(cells: [&str; 10]) {
    let [
        epoch,
        files,
        megabytes,
        seconds,
        rate,
        bytes,
        gets,
        local_files,
        local_megabytes,
        ratio,
    ] = cells;
    say(format_args!(
        "  {epoch:5}  {files:>9} {megabytes:>9} {seconds:>9}  {rate:>9} {bytes:>11} {gets:>9}  \
         {local_files:>9} {local_megabytes:>9} {ratio:>7}"
    ));
}

fn files_per_second(pass: &Pass) -> f64 {
    float(u64::try_from(pass.files).unwrap_or(u64::MAX)) / pass.time.as_secs_f64().max(f64::EPSILON)
}

fn megabytes_per_second(pass: &Pass) -> f64 {
    float(pass.bytes) / 1e6 / pass.time.as_secs_f64().max(f64::EPSILON)
}

/// A number of bytes for people, in the same units as the rates.
pub(crate) fn bytes(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().si().to_string()
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn float(value: u64) -> f64 {
    value as f64
}
