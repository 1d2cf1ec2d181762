//! What a hot pass over small files costs beyond native: the reader's CPU time and Millpond's, with opens counted.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use harness::{View, poll};
use millpond_measure::statistics::median;
use millpond_measure::{Usage, reading};

use crate::data::expect_bytes;
use crate::lab::{Lab, Which};
use crate::row::{Goal, Row, Unit};

const ROUNDS: usize = 5;
const THREADS: usize = 4;
/// Passes of one round: the kernel tells CPU time in steps of 10 ms.
const PASSES: u32 = 3;
/// Opens are counted behind the reader; so long after a pass all of them are.
const COUNTING: Duration = Duration::from_millis(300);

/// CPU microseconds a file.
#[derive(Debug, Default)]
struct Cost {
    native: Vec<f64>,
    reader: Vec<f64>,
    millpond: Vec<f64>,
}

pub(crate) fn measure(lab: &mut Lab) -> Result<Vec<Row>> {
    let kept = lab.kept(
        View::Kernel,
        Which::Small,
        "counting CPU time of small files, kernel view",
    )?;
    let pids = kept.mount.pids().to_vec();
    let order = reading::shuffled(lab.small.files(), 1);
    let bytes = lab.small.total_bytes();
    let files = f64::from(u32::try_from(order.len())?) * f64::from(PASSES);
    let passes = |root: &Path| -> Result<(f64, f64)> {
        let before = (Usage::own()?, Usage::of_all(&pids)?);
        for _ in 0..PASSES {
            expect_bytes(reading::read_files(root, &order, THREADS)?, bytes)?;
        }
        let reader = Usage::own()? - before.0;
        poll(COUNTING);
        let millpond = Usage::of_all(&pids)? - before.1;
        let each = |usage: Usage| usage.total().as_secs_f64() * 1e6 / files;
        Ok((each(reader), each(millpond)))
    };
    for root in [&kept.native, &kept.ours] {
        passes(root)?;
    }
    let mut cost = Cost::default();
    for round in 0..lab.rounds(ROUNDS) {
        let mut native = || -> Result<()> {
            cost.native.push(passes(&kept.native)?.0);
            Ok(())
        };
        if round % 2 == 0 {
            native()?;
        }
        let (reader, millpond) = passes(&kept.ours)?;
        if round % 2 == 1 {
            native()?;
        }
        cost.reader.push(reader);
        cost.millpond.push(millpond);
    }
    let opens = kept.mount.stats()?;
    lab.unmount(kept.mount)?;
    let beyond: Vec<f64> = cost
        .reader
        .iter()
        .zip(&cost.millpond)
        .zip(&cost.native)
        .map(|((reader, millpond), native)| reader + millpond - native)
        .collect();
    let middle = |values: &[f64]| median(values).unwrap_or(f64::NAN);
    let counted = opens.pointer("/read/local_opens").cloned().unwrap_or_default();
    let row = Row::of(
        "kernel view, small files hot, CPU a file of reader and Millpond less native",
        Unit::Microseconds,
        &beyond,
    )?;
    Ok(vec![row.with_goal(Goal::AtMost(20.0)).with_note(format!(
        "reader {:.1} + Millpond {:.1} - native {:.1} us; {counted} opens counted",
        middle(&cost.reader),
        middle(&cost.millpond),
        middle(&cost.native)
    ))])
}
