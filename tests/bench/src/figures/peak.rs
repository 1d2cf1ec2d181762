//! The most memory that the processes of a mount held in all of the run.

use anyhow::{Context, Result};

use super::epochs;
use crate::lab::Lab;
use crate::row::{Goal, Row, Unit};

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^53")]
pub(crate) fn measure(lab: &mut Lab) -> Result<Vec<Row>> {
    if lab.peaks.is_empty() {
        // Asked for alone: the work that fetches and reads everything.
        epochs::measure(lab)?;
    }
    let most = lab.peaks.iter().max_by_key(|peak| peak.memory.held_bytes());
    let most = most.context("no mount was watched")?;
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let files = lab.peaks.iter().map(|peak| peak.memory.file_bytes).max();
    let what = format!(
        "peak anonymous and shared memory of all processes of a mount, {} mounts",
        lab.peaks.len()
    );
    let row = Row::of(what, Unit::Mebibytes, &[mebibytes(most.memory.held_bytes())])?;
    Ok(vec![row.with_goal(Goal::AtMost(300.0)).with_note(format!(
        "{}: anonymous {:.0}, shared {:.0}, mapped files {:.0} MiB (at most {:.0})",
        most.during,
        mebibytes(most.memory.anonymous_bytes),
        mebibytes(most.memory.shared_bytes),
        mebibytes(most.memory.file_bytes),
        mebibytes(files.unwrap_or_default())
    ))])
}
