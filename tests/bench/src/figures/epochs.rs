//! Three epochs over all data from an empty cache, every byte checked: what was fetched from the origin.

use anyhow::Result;
use harness::View;
use millpond_measure::reading;

use crate::data::Set;
use crate::lab::Lab;
use crate::row::{Goal, Row, Unit};

const EPOCHS: u64 = 3;
const THREADS: usize = 4;

/// Reads all files of a set in an order of its own and checks them.
pub(super) fn epoch(set: &Set, root: &std::path::Path, seed: u64) -> Result<()> {
    let numbers: Vec<std::path::PathBuf> = (0..set.count()).map(|number| number.to_string().into()).collect();
    let order: Vec<usize> = reading::shuffled(&numbers, seed)
        .iter()
        .filter_map(|number| number.to_str().and_then(|number| number.parse().ok()))
        .collect();
    set.check_in_order(root, &order, THREADS)
}

#[expect(clippy::cast_precision_loss, reason = "a ratio of sizes far below 2^53")]
pub(crate) fn measure(lab: &mut Lab) -> Result<Vec<Row>> {
    let cache = lab.scratch.fresh("cold")?;
    let source = Lab::whole_source();
    let command = lab.data_command(&source, &cache, View::Kernel)?;
    lab.reset_counters()?;
    let mount = command.during("three epochs, kernel view").mount()?;
    for seed in 0..EPOCHS {
        epoch(&lab.small, &mount.path().join("small"), seed)?;
        epoch(&lab.large, &mount.path().join("large"), seed)?;
    }
    let said = mount.stats()?;
    let said = said.pointer("/origin/bytes").cloned().unwrap_or_default();
    let sent = lab.bytes_sent()?;
    lab.unmount(mount)?;
    std::fs::remove_dir_all(&cache)?;
    let size = lab.small.total_bytes() + lab.large.total_bytes();
    let what = "bytes from the origin in three epochs / size of the data";
    let row = Row::of(what, Unit::Ratio, &[sent as f64 / size as f64])?;
    Ok(vec![row.with_goal(Goal::AtMost(1.0)).with_note(format!(
        "the origin sent {sent} bytes for {size}; stats says {said}"
    ))])
}
