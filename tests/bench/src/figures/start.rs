//! `millpond mount` of a source that is catalogued and cached: from the start of the command to the first byte.

use std::fs::File;
use std::io::Read;
use std::time::Instant;

use anyhow::Result;
use harness::View;

use crate::lab::Lab;
use crate::mount::unmount;
use crate::row::{Goal, Row, Unit};

const ROUNDS: usize = 15;

pub(crate) fn measure(lab: &mut Lab) -> Result<Vec<Row>> {
    let command = lab.kept_command(View::Kernel)?;
    let file = command.directory().join("small").join(lab.small.first());
    let (mut first_byte, mut usable) = (Vec::new(), Vec::new());
    for _ in 0..lab.rounds(ROUNDS) {
        let begun = Instant::now();
        let mount = command.run()?;
        usable.push(begun.elapsed().as_secs_f64() * 1e3);
        File::open(&file)?.read_exact(&mut [0])?;
        first_byte.push(begun.elapsed().as_secs_f64() * 1e3);
        unmount(mount)?;
    }
    let what = "mount of a catalogued source, command to first byte";
    let usable = Row::of("", Unit::Milliseconds, &usable)?;
    Ok(vec![
        Row::of(what, Unit::Milliseconds, &first_byte)?
            .with_goal(Goal::AtMost(100.0))
            .with_note(format!("the command itself {}", usable.unit.show(usable.median))),
    ])
}
