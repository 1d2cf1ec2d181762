//! The table of the epochs.

use harness::Traffic;
use harness::report::say;

use super::epoch::Pass;

/// One epoch, through the mount and from the local disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epoch {
    pub(crate) through: Pass,
    pub(crate) local: Pass,
    pub(crate) from_origin: Traffic,
}

/// The part of bytes that did not come from the origin, by the origin's account.
pub(crate) fn hit_rate(epochs: &[Epoch]) -> f64 {
    let from_origin: u64 = epochs.iter().map(|epoch| epoch.from_origin.bytes).sum();
    let read: u64 = epochs.iter().map(|epoch| epoch.through.bytes).sum();
    // Heads of answers are among the origin's bytes.
    (1.0 - float(from_origin) / float(read)).clamp(0.0, 1.0)
}

/// The lines above the epochs.
pub(crate) fn head() {
    say(format_args!(
        "\n  {:5}  {:>29}  {:>31}  {:>27}",
        "", "through Millpond      ", "by the S3 server's own account ", "the local disk beside it "
    ));
    line([
        "epoch", "files/s", "MB/s", "seconds", "hit rate", "bytes", "GETs", "files/s", "MB/s", "ratio",
    ]);
}

/// The line of an epoch.
pub(crate) fn row(number: usize, epoch: &Epoch) {
    let Epoch {
        through,
        local,
        from_origin,
    } = epoch;
    line([
        &number.to_string(),
        &whole(files_per_second(through)),
        &whole(megabytes_per_second(through)),
        &format!("{:.1}", through.time.as_secs_f64()),
        &format!("{:.2} %", hit_rate(std::slice::from_ref(epoch)) * 100.0),
        &bytes(from_origin.bytes),
        &from_origin.gets.to_string(),
        &whole(files_per_second(local)),
        &whole(megabytes_per_second(local)),
        &format!(
            "{:.2}",
            local.time.as_secs_f64() / through.time.as_secs_f64().max(f64::EPSILON)
        ),
    ]);
}

fn line(cells: [&str; 10]) {
    let [
        epoch,
        files,
        megabytes,
        seconds,
        rate,
        bytes,
        gets,
        local_files,
        local_megabytes,
        ratio,
    ] = cells;
    say(format_args!(
        "  {epoch:5}  {files:>9} {megabytes:>9} {seconds:>9}  {rate:>9} {bytes:>11} {gets:>9}  \
         {local_files:>9} {local_megabytes:>9} {ratio:>7}"
    ));
}

fn files_per_second(pass: &Pass) -> f64 {
    float(u64::try_from(pass.files).unwrap_or(u64::MAX)) / pass.time.as_secs_f64().max(f64::EPSILON)
}

fn megabytes_per_second(pass: &Pass) -> f64 {
    float(pass.bytes) / 1e6 / pass.time.as_secs_f64().max(f64::EPSILON)
}

/// A number of bytes for people, in the same units as the rates.
pub(crate) fn bytes(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().si().to_string()
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn float(value: u64) -> f64 {
    value as f64
}
