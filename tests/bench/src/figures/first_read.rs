//! The large file, cold, beside the best that a plain program gets from the same server.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use harness::View;
use millpond_measure::{Caches, drop_caches, reading};

use crate::data::expect_bytes;
use crate::lab::Lab;
use crate::plain;
use crate::row::{Goal, Rate, Row};

const ROUNDS: usize = 5;
const BUFFER_BYTES: usize = 1 << 20;
/// Connections of the plain program; the best is taken.
const CONNECTIONS: [usize; 4] = [2, 4, 8, 16];
/// Tries of each number of connections.
const TRIES: usize = 2;

pub(crate) fn measure(lab: &mut Lab) -> Result<Vec<Row>> {
    let connections = best(lab)?;
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for round in 0..lab.rounds(ROUNDS) {
        if round % 2 == 0 {
            theirs.push(plainly(lab, connections)?);
        }
        ours.push(through_millpond(lab)?);
        if round % 2 == 1 {
            theirs.push(plainly(lab, connections)?);
        }
    }
    let measured = millpond_measure::evaluate(vec![
        (format!("the plain program ({connections} connections)"), theirs),
        ("Millpond".to_owned(), ours),
    ]);
    let what = "kernel view, large file cold, sequential / plain ranged GETs";
    let row = Row::ratio(what, &measured, Rate::Bytes(lab.large.file_bytes()))?;
    Ok(vec![row.with_goal(Goal::AtLeast(0.85))])
}

fn best(lab: &mut Lab) -> Result<usize> {
    let mut best: Option<(Duration, usize)> = None;
    for _ in 0..lab.rounds(TRIES) {
        for connections in CONNECTIONS {
            let took = plainly(lab, connections)?;
            if best.is_none_or(|(least, _)| took < least) {
                best = Some((took, connections));
            }
        }
    }
    let (_, connections) = best.context("nothing was tried")?;
    Ok(connections)
}

/// Checked each time: the program must not be fast by being wrong.
fn plainly(lab: &mut Lab, connections: usize) -> Result<Duration> {
    let address = lab.server()?.address().to_owned();
    let target = lab.scratch.fresh("plain")?;
    lab.large.make_directories(&target)?;
    let file = target.join(lab.large.first());
    drop_caches(Caches::All)?;
    let begun = Instant::now();
    let what = (&lab.large, lab.large.first());
    plain::fetch_ranges(&lab.runtime, &address, what, &file, connections)?;
    let took = begun.elapsed();
    lab.large.check(&target)?;
    std::fs::remove_dir_all(&target)?;
    Ok(took)
}

fn through_millpond(lab: &mut Lab) -> Result<Duration> {
    let cache = lab.scratch.fresh("cold")?;
    let source = lab.large.source();
    let command = lab.data_command(&source, &cache, View::Kernel)?;
    let mount = command
        .during("reading the large file cold, kernel view")
        .mount()?;
    let file = mount.path().join(lab.large.first());
    drop_caches(Caches::All)?;
    let begun = Instant::now();
    let read = reading::read_sequentially(&file, u64::MAX, BUFFER_BYTES)?;
    let took = begun.elapsed();
    expect_bytes(read, lab.large.file_bytes())?;
    lab.large.check(mount.path())?;
    lab.unmount(mount)?;
    std::fs::remove_dir_all(&cache)?;
    Ok(took)
}
