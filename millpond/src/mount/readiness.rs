//! Progress of a mount that starts: JSON lines through a pipe.
//!
//! A server writes them to its standard output, which nothing else may use; the supervisor reads them there and forwards
//! them to its own, which `millpond mount` reads. A pipe that ends without a final report is a failure.

use std::io::{BufRead, BufReader, Read, Write};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::spec::ViewKind;

/// Exit code of a server whose failure is permanent: a restarted one would fail too (`EX_CONFIG`).
pub(crate) const EXIT_CONFIG: u8 = 78;

/// Progress report of a starting mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The source is being listed.
    Listing {
        /// Objects listed so far.
        objects: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// Note for the user.
    Note {
        /// Its text.
        text: String,
    },
    /// The mount is usable. Final report.
    Ready(Ready),
    /// The mount failed. Final report.
    Failed {
        /// Cause and fix.
        reason: String,
    },
}

/// Properties of a usable mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// Kind of view.
    pub(crate) view: ViewKind,
    /// Files in the catalog.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

impl Report {
    /// Returns the report as a line.
    pub(crate) fn line(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}

/// Writes `report` to the standard output; fails if its reader has exited.
pub(crate) fn send(report: &Report) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(report.line().as_bytes())?;
    output.flush()
}

/// Waits until a mount is usable.
///
/// # Errors
/// The reason why it will not be.
pub(crate) fn wait(pipe: impl Read, mut other: impl FnMut(&Report)) -> Result<Ready> {
    for line in BufReader::new(pipe).lines() {
        let Ok(report) = serde_json::from_str(&line?) else {
            continue;
        };
        other(&report);
        match report {
            Report::Ready(ready) => return Ok(ready),
            Report::Failed { reason } => bail!("{reason}"),
            Report::Listing { .. } | Report::Note { .. } => {}
        }
    }
    bail!("the mount's supervisor exited without a report")
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: Ready = Ready {
        view: ViewKind::Kernel,
        files: 3,
        bytes: 5,
    };

    #[test]
    fn readiness_is_reported_after_progress() {
        let listing = Report::Listing { objects: 1, bytes: 2 };
        let text = listing.line() + "not a report\n" + &Report::Ready(READY).line();
        let mut seen = Vec::new();
        assert_eq!(
            wait(text.as_bytes(), |report| seen.push(report.clone())).unwrap(),
            READY
        );
        assert_eq!(seen, [listing, Report::Ready(READY)]);
    }

    #[test]
    fn a_failure_is_its_reason() {
        let failed = Report::Failed {
            reason: "no such\nbucket".to_owned(),
        };
        let error = wait(failed.line().as_bytes(), |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "no such\nbucket");
    }

    #[test]
    fn an_end_without_a_report_is_a_failure() {
        assert!(wait(&b""[..], |_| {}).is_err());
    }
}
