//! Passes over cached files beside the same files on the disk.

use anyhow::Result;
use harness::View;
use millpond_measure::{Caches, Comparison, drop_caches, reading};

use crate::data::expect_bytes;
use crate::lab::{Kept, Lab, Which};
use crate::row::{Goal, Rate, Row};

/// Of passes that take a fraction of a second.
const HOT_ROUNDS: usize = 9;
/// Of passes from the disk.
const DROPPED_ROUNDS: usize = 7;
const THREADS: usize = 4;
const SEQUENTIAL_BUFFER_BYTES: usize = 1 << 20;

/// The large file after the caches were dropped.
pub(crate) fn large_dropped(lab: &mut Lab) -> Result<Vec<Row>> {
    let kept = lab.kept(
        View::Kernel,
        Which::Large,
        "reading the large file from the disk, kernel view",
    )?;
    let bytes = lab.large.file_bytes();
    let (native, ours) = (
        kept.native.join(lab.large.first()),
        kept.ours.join(lab.large.first()),
    );
    let prepare = || Ok(drop_caches(Caches::All)?);
    let read = |file| {
        expect_bytes(
            reading::read_sequentially(file, u64::MAX, SEQUENTIAL_BUFFER_BYTES)?,
            bytes,
        )
    };
    let measured = Comparison::default()
        .with_prepared("native", prepare, || read(&native))
        .with_prepared("Millpond", prepare, || read(&ours))
        .run(lab.rounds(DROPPED_ROUNDS))?;
    lab.unmount(kept.mount)?;
    let what = "kernel view, large file, page cache dropped, sequential / native";
    let row = Row::ratio(what, &measured, Rate::Bytes(bytes))?;
    Ok(vec![row.with_goal(Goal::AtLeast(0.95))])
}

/// The small files, page cache hot.
pub(crate) fn small(lab: &mut Lab) -> Result<Vec<Row>> {
    small_in_view(lab, View::Kernel)
}

/// The same in either view, with its goal.
pub(crate) fn small_in_view(lab: &mut Lab, view: View) -> Result<Vec<Row>> {
    let during = format!("reading the small files, {}", view.label());
    let kept = lab.kept(view, Which::Small, &during)?;
    let row = compare(lab, &kept, HOT_ROUNDS, || Ok(()))?;
    lab.unmount(kept.mount)?;
    let goal = match view {
        View::Kernel => 0.80,
        View::Fuse => 0.40,
    };
    Ok(vec![
        Row {
            what: format!("{}, small files hot, random pass / native", view.label()),
            ..row
        }
        .with_goal(Goal::AtLeast(goal)),
    ])
}

/// The small files after all caches were dropped.
pub(crate) fn small_dropped(lab: &mut Lab) -> Result<Vec<Row>> {
    let kept = lab.kept(
        View::Kernel,
        Which::Small,
        "reading the small files from the disk, kernel view",
    )?;
    let row = compare(lab, &kept, DROPPED_ROUNDS, || Ok(drop_caches(Caches::All)?))?;
    lab.unmount(kept.mount)?;
    Ok(vec![
        Row {
            what: "kernel view, small files, all caches dropped, random pass / native".to_owned(),
            ..row
        }
        .with_goal(Goal::AtLeast(0.95)),
    ])
}

/// One order for both sides; another after each pass would compare different work.
fn compare(lab: &Lab, kept: &Kept, rounds: usize, prepare: impl Fn() -> Result<()>) -> Result<Row> {
    let order = reading::shuffled(lab.small.files(), 1);
    let bytes = lab.small.total_bytes();
    let pass = |root| expect_bytes(reading::read_files(root, &order, THREADS)?, bytes);
    for root in [&kept.native, &kept.ours] {
        pass(root)?;
    }
    let measured = Comparison::default()
        .with_prepared("native", &prepare, || pass(&kept.native))
        .with_prepared("Millpond", &prepare, || pass(&kept.ours))
        .run(lab.rounds(rounds))?;
    Row::ratio("", &measured, Rate::Files(lab.small.count()))
}
