//! The small files, cold, beside a plain program that fetches each into a file of its own; and the second pass in the
//! same mount, right after, beside the native copies.
//!
//! What a round wrote stays until the end of the run: for a minute and longer ext4 passes over inodes that were just
//! deleted, one by one, when it looks for a free one, and that would be a third of what is measured.

use std::time::{Duration, Instant};

use anyhow::Result;
use harness::View;
use millpond_measure::statistics::median;
use millpond_measure::{Caches, Usage, drop_caches, reading};

use crate::data::expect_bytes;
use crate::lab::{Lab, Native};
use crate::plain;
use crate::row::{Goal, Rate, Row};

const ROUNDS: usize = 5;
const CONNECTIONS: usize = 64;
const COLD_THREADS: usize = 16;
const HOT_THREADS: usize = 4;

#[derive(Debug, Default)]
struct Times {
    plain: Vec<Duration>,
    cold: Vec<Duration>,
    native: Vec<Duration>,
    second: Vec<Duration>,
    /// Bytes that the server sent in both passes.
    bytes_fetched: Vec<u64>,
    /// CPU time of the plain program, and in the cold pass of the reader and of Millpond.
    plain_cpu: Vec<f64>,
    reader_cpu: Vec<f64>,
    millpond_cpu: Vec<f64>,
}

pub(crate) fn measure(lab: &mut Lab) -> Result<Vec<Row>> {
    let native = lab.native()?;
    let mut times = Times::default();
    for round in 0..lab.rounds(ROUNDS) {
        if round.is_multiple_of(2) {
            plainly(lab, round, &mut times)?;
        }
        through_millpond(lab, &native, round, &mut times)?;
        if !round.is_multiple_of(2) {
            plainly(lab, round, &mut times)?;
        }
    }
    let Times {
        plain,
        cold,
        native,
        second,
        bytes_fetched,
        plain_cpu,
        reader_cpu,
        millpond_cpu,
    } = times;
    let rate = Rate::Files(lab.small.count());
    let size = lab.small.total_bytes();
    let first = millpond_measure::evaluate(vec![
        (format!("the plain program ({CONNECTIONS} connections)"), plain),
        ("Millpond".to_owned(), cold),
    ]);
    let again = millpond_measure::evaluate(vec![
        ("native".to_owned(), native),
        ("Millpond".to_owned(), second),
    ]);
    let more = bytes_fetched
        .iter()
        .max()
        .copied()
        .unwrap_or_default()
        .saturating_sub(size);
    let mut first = Row::ratio(
        "kernel view, small files cold, 16 threads / plain GETs",
        &first,
        rate,
    )?;
    let files = f64::from(u32::try_from(lab.small.count())?);
    let each = |seconds: &[f64]| median(seconds).unwrap_or(f64::NAN) * 1e6 / files;
    first.note.push_str(&format!(
        "; CPU us a file: reader {:.0} + Millpond {:.0}, plain {:.0}; at most {more} bytes fetched twice",
        each(&reader_cpu),
        each(&millpond_cpu),
        each(&plain_cpu)
    ));
    Ok(vec![
        first.with_goal(Goal::AtLeast(0.80)),
        Row::ratio(
            "kernel view, second pass right after a cold first one, 4 threads / native hot",
            &again,
            rate,
        )?
        .with_goal(Goal::AtLeast(0.80)),
    ])
}

fn plainly(lab: &mut Lab, round: usize, times: &mut Times) -> Result<()> {
    let address = lab.server()?.address().to_owned();
    let target = lab.scratch.fresh(&format!("plain-{round}"))?;
    let order = reading::shuffled(lab.small.files(), u64::try_from(round)?);
    drop_caches(Caches::All)?;
    let before = Usage::own()?;
    let begun = Instant::now();
    plain::fetch_files(&lab.runtime, &address, (&lab.small, &order), &target, CONNECTIONS)?;
    times.plain.push(begun.elapsed());
    times
        .plain_cpu
        .push((Usage::own()? - before).total().as_secs_f64());
    lab.small.check(&target)
}

fn through_millpond(lab: &mut Lab, native: &Native, round: usize, times: &mut Times) -> Result<()> {
    let cache = lab.scratch.fresh(&format!("cold-{round}"))?;
    let source = lab.small.source();
    let command = lab.data_command(&source, &cache, View::Kernel)?;
    let mount = command
        .during("reading the small files cold, kernel view")
        .mount()?;
    let order = reading::shuffled(lab.small.files(), u64::try_from(round)?);
    let bytes = lab.small.total_bytes();
    let pass = |root, threads| -> Result<Duration> {
        let begun = Instant::now();
        expect_bytes(reading::read_files(root, &order, threads)?, bytes)?;
        Ok(begun.elapsed())
    };
    drop_caches(Caches::All)?;
    // Hot for the second pass; the mount has none of it yet.
    pass(&native.small, HOT_THREADS)?;
    lab.reset_counters()?;
    let before = (Usage::own()?, Usage::of_all(mount.pids())?);
    times.cold.push(pass(mount.path(), COLD_THREADS)?);
    let after = (Usage::own()?, Usage::of_all(mount.pids())?);
    times.reader_cpu.push((after.0 - before.0).total().as_secs_f64());
    times
        .millpond_cpu
        .push((after.1 - before.1).total().as_secs_f64());
    if round.is_multiple_of(2) {
        times.native.push(pass(&native.small, HOT_THREADS)?);
    }
    times.second.push(pass(mount.path(), HOT_THREADS)?);
    if !round.is_multiple_of(2) {
        times.native.push(pass(&native.small, HOT_THREADS)?);
    }
    lab.small.check(mount.path())?;
    times.bytes_fetched.push(lab.bytes_sent()?);
    lab.unmount(mount)
}
