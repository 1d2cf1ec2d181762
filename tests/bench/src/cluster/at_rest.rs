//! What the API server is asked while nothing happens.

use std::time::Duration;

use anyhow::Result;
use kubernetes_tests::{Requests, World, settle};

use super::Sizes;
use crate::row::{Goal, Row, Unit};

/// Until what was done before has come to rest.
const CALM: Duration = Duration::from_secs(45);

pub(super) fn measure(world: &World, sizes: Sizes) -> Result<Vec<Row>> {
    settle(CALM);
    let before = Requests::so_far(world)?;
    settle(Duration::from_secs(sizes.rest_seconds));
    let asked = Requests::so_far(world)?.since(&before);
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let seconds = sizes.rest_seconds as f64;
    let what = format!("{} idle Datasets: the API server's", sizes.datasets);
    Ok(vec![
        Row::of(
            format!("{what} writes a minute, Leases apart"),
            Unit::Count,
            &[asked.writes * 60.0 / seconds],
        )?
        .with_goal(Goal::AtMost(0.0))
        .with_note(asked.kinds.join(", ")),
        Row::of(
            format!("{what} requests a second"),
            Unit::Count,
            &[asked.all / seconds],
        )?
        .with_note("of the whole cluster"),
    ])
}
