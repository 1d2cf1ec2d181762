//! A cache of half the data that never evicts: what later epochs still fetch.

use anyhow::Result;
use harness::View;

use super::epochs::epoch;
use crate::lab::Lab;
use crate::row::{Goal, Row, Unit};

const EPOCHS: u64 = 3;

#[expect(clippy::cast_precision_loss, reason = "rates of sizes far below 2^53")]
pub(crate) fn measure(lab: &mut Lab) -> Result<Vec<Row>> {
    let cache = lab.scratch.fresh("half")?;
    let source = lab.small.source();
    let size = lab.small.total_bytes();
    let command = lab
        .data_command(&source, &cache, View::Kernel)?
        .with("--eviction", "never")
        .with("--cache-size", &(size / 2).to_string());
    let mount = command.during("a cache of half the data, kernel view").mount()?;
    let mut rows = Vec::new();
    let mut before = (0, 0);
    for number in 1..=EPOCHS {
        lab.reset_counters()?;
        epoch(&lab.small, mount.path(), number)?;
        let sent = lab.bytes_sent()?;
        let stats = mount.stats()?;
        let count = |name: &str| {
            let value = stats.pointer(&format!("/read/{name}"));
            value.and_then(serde_json::Value::as_u64).unwrap_or_default()
        };
        let now = (count("local_bytes"), count("origin_bytes"));
        let (local, origin) = (now.0 - before.0, now.1 - before.1);
        before = now;
        if number == 1 {
            continue;
        }
        let what = format!("a cache of half the data, never: hit rate in epoch {number}");
        let rate = 1.0 - sent as f64 / size as f64;
        let said = local as f64 / (local + origin).max(1) as f64;
        rows.push(
            Row::of(what, Unit::Ratio, &[rate])?
                .with_goal(Goal::Between(0.49, 0.51))
                .with_note(format!(
                    "the origin sent {sent} bytes of {size}; by stats {said:.3}"
                )),
        );
    }
    lab.unmount(mount)?;
    std::fs::remove_dir_all(&cache)?;
    Ok(rows)
}
