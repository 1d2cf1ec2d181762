//! How a mount that starts says where it is: JSON lines through a pipe.
//!
//! A server writes them to its standard output, which nothing else may use; the supervisor reads them there and passes
//! them on to its own, at whose other end `millpond mount` waits. A pipe that ends without a last word is a failure.

use std::io::{BufRead, BufReader, Read, Write};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::spec::ViewKind;

/// A server ends with this code where another one would do no better (`EX_CONFIG`).
pub(crate) const EXIT_CONFIG: u8 = 78;

/// One word on the way of a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The source is being listed.
    Listing {
        /// Objects so far.
        objects: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// Something that the user should know.
    Note {
        /// What.
        text: String,
    },
    /// The mount is usable. The last word.
    Ready(Ready),
    /// There will be no mount. The last word.
    Failed {
        /// Why, and what helps.
        reason: String,
    },
}

/// What became usable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// How it is shown.
    pub(crate) view: ViewKind,
    /// Files in the catalog.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

impl Report {
    /// The line of a report.
    pub(crate) fn line(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}

/// Says `report` to whoever waits for this process, who may be gone.
pub(crate) fn tell(report: &Report) -> std::io::Result<()> {
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
    bail!("the mount's supervisor ended without a word")
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
    fn readiness_is_told_after_what_comes_before() {
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
    fn an_end_without_a_word_is_a_failure() {
        assert!(wait(&b""[..], |_| {}).is_err());
    }
}
