//! A million files: listing them, the image, mounting it, and finding one's way in it from cold caches.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use harness::View;
use millpond_measure::statistics::median;
use millpond_measure::{Caches, drop_caches, reading};

use super::walk;
use crate::lab::Lab;
use crate::mount::{MeasuredCommand, unmount};
use crate::plain;
use crate::row::{Goal, Row, Unit};

const ROUNDS: usize = 5;
/// Files looked at in a round.
const STATS: usize = 2_000;

/// How long stats of random files take, and what the disk was read for.
#[derive(Debug, Default)]
struct Looks {
    microseconds: Vec<f64>,
    disk_reads: Vec<f64>,
}

impl Looks {
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    fn look(&mut self, root: &Path, order: &[PathBuf]) -> Result<()> {
        let count = order.len() as f64;
        let reads = disk_reads()?;
        let begun = Instant::now();
        reading::stat_files(root, order)?;
        self.microseconds
            .push(begun.elapsed().as_secs_f64() * 1e6 / count);
        self.disk_reads
            .push(disk_reads()?.saturating_sub(reads) as f64 / count);
        Ok(())
    }

    fn row(&self, what: &str) -> Result<Row> {
        let reads = median(&self.disk_reads).unwrap_or(f64::NAN);
        let row = Row::of(what, Unit::Microseconds, &self.microseconds)?;
        Ok(row
            .with_goal(Goal::AtMost(30.0))
            .with_note(format!("mean of {STATS}; {reads:.2} reads from the disk each")))
    }
}

/// Reads all files below a directory: the image, whose page cache is the mounted catalog's.
fn read_below(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("failed to list {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            read_below(&path)?;
        } else {
            reading::read_sequentially(&path, u64::MAX, 1 << 20)?;
        }
    }
    Ok(())
}

/// Requests to read that the machine's disks have served.
fn disk_reads() -> Result<u64> {
    let disks = procfs::diskstats().context("failed to read what the disks did")?;
    Ok(disks.iter().map(|disk| disk.reads).sum())
}

#[expect(clippy::cast_precision_loss, reason = "counts and sizes far below 2^53")]
pub(crate) fn measure(lab: &mut Lab) -> Result<Vec<Row>> {
    let files = lab.listed.count();
    let server = lab.server_of(&lab.listed)?;
    let begun = Instant::now();
    let listed = plain::list(&lab.runtime, server.endpoint(), &lab.listed)?;
    let plainly = begun.elapsed().as_secs_f64();
    ensure!(
        u64::try_from(listed)? == files,
        "the server lists {listed} files, not {files}"
    );
    let cache = lab.scratch.fresh("listed")?;
    let command = lab.command(&lab.listed.source(), &server, &cache, View::Kernel)?;
    let mount = command.clone().during("listing a million files").mount()?;
    let listing = mount.took().as_secs_f64();
    let stats = mount.stats()?;
    let disk = stats
        .pointer("/catalog/disk_bytes")
        .and_then(serde_json::Value::as_u64);
    let disk = disk.context("stats does not say what the catalog takes")?;
    let peak = mount.unmount()?;
    let mut rows = vec![
        Row::of(
            "listing a million files: mount of a new source, until usable",
            Unit::Seconds,
            &[listing],
        )?
        .with_note(format!(
            "{:.0} files/s; a plain client that lists page after page needs {plainly:.2} s",
            files as f64 / listing
        )),
        Row::of(
            "its peak anonymous and shared memory",
            Unit::Mebibytes,
            &[mebibytes(peak.memory.held_bytes())],
        )?
        .with_goal(Goal::AtMost(200.0))
        .with_note(format!(
            "mapped files beside it: {:.0} MiB",
            mebibytes(peak.memory.file_bytes)
        )),
        Row::of("its image and index on disk", Unit::Mebibytes, &[mebibytes(disk)])?,
        Row::of(
            "the same, a file, beyond its name",
            Unit::Bytes,
            &[disk as f64 / files as f64 - name_bytes(lab)],
        )?
        .with_goal(Goal::AtMost(240.0)),
    ];
    lab.peaks.push(peak);
    rows.extend(again(lab, &command)?);
    fs::remove_dir_all(&cache)?;
    Ok(rows)
}

/// Mounts that know the catalog.
fn again(lab: &mut Lab, command: &MeasuredCommand) -> Result<Vec<Row>> {
    let rounds = lab.rounds(ROUNDS);
    let mut starts = Vec::new();
    for _ in 0..rounds {
        let begun = Instant::now();
        let mount = command.run()?;
        fs::symlink_metadata(command.directory().join(lab.listed.first()))?;
        starts.push(begun.elapsed().as_secs_f64() * 1e3);
        unmount(mount)?;
    }
    let mount = command
        .clone()
        .during("finding and looking at a million files")
        .mount()?;
    mount.wait_for_refresh()?;
    let found = walk::count(mount.path())?;
    ensure!(
        u64::try_from(found)? == lab.listed.count(),
        "find finds {found} files"
    );
    let (mut finds, mut from_disk, mut from_memory) = (Vec::new(), Looks::default(), Looks::default());
    for round in 0..rounds {
        let order = reading::shuffled(lab.listed.files(), u64::try_from(round)?);
        let (first, second) = order.split_at(STATS.min(order.len() / 2));
        let second = second.get(..STATS.min(second.len())).unwrap_or_default();
        drop_caches(Caches::All)?;
        from_disk.look(mount.path(), first)?;
        drop_caches(Caches::All)?;
        let begun = Instant::now();
        walk::run(&["find"], mount.path())?;
        finds.push(begun.elapsed().as_secs_f64());
        read_below(&lab.scratch.join("listed").join("catalog"))?;
        drop_caches(Caches::Names)?;
        from_memory.look(mount.path(), second)?;
    }
    lab.unmount(mount)?;
    Ok(vec![
        Row::of(
            "mount of a million files that are catalogued, command to first stat",
            Unit::Milliseconds,
            &starts,
        )?,
        Row::of(
            "find over a million files through the view, cold caches",
            Unit::Seconds,
            &finds,
        )?
        .with_goal(Goal::AtMost(1.0)),
        from_disk.row("a random stat among them, all caches dropped")?,
        from_memory.row("a random stat among them, names and inodes dropped, the image in the page cache")?,
    ])
}

#[expect(clippy::cast_precision_loss, reason = "the length of a name")]
fn name_bytes(lab: &Lab) -> f64 {
    lab.listed
        .first()
        .file_name()
        .map_or(0.0, |name| name.len() as f64)
}

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^53")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
