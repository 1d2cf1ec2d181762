//! On one machine: a bucket becomes a local directory, shown on a real S3 server, with every byte checked.
//!
//! It starts versitygw with credentials of its own, uploads a data set that follows from a seed, mounts it with the
//! real `millpond mount`, reads all of it three times in random order beside the same reads from the local disk, kills
//! the mount's server halfway through the last pass, and removes everything again: also where it fails, and on Ctrl-C.

mod bucket;
mod dataset;
mod epoch;
mod table;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use harness::metrics::{self, Metrics};
use harness::report::{Step, say};
use harness::{Millpond, Mount, MountCommand, S3Server, Scratch};

use self::bucket::BUCKET;
use self::dataset::{DataSet, Shape};
use self::epoch::{READERS, Work};
use self::table::{Epoch, bytes};
use crate::interrupt::Interrupt;

/// Passes over all files.
const EPOCHS: usize = 3;

/// The data lies in the bucket and in the cache, and both need some space besides.
const SPACE_FOR_DATA: (u64, u64) = (22, 10);

/// The words of the command line.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where bucket, cache and mount lie meanwhile: a local disk with space for the data twice.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    directory: PathBuf,
    /// What the data follows from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Files of 20 to 200 KB.
    #[arg(long, default_value_t = 10_000)]
    small_files: u64,
    /// Large files.
    #[arg(long, default_value_t = 2)]
    large_files: u64,
    /// The size of each large one.
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    large_size: bytesize::ByteSize,
}

/// Runs all of it. Whatever happens, nothing is left behind.
pub(crate) fn run(arguments: &Arguments, interrupt: &Interrupt) -> Result<()> {
    millpond_process::tls::install();
    let data = DataSet::plan(
        arguments.seed,
        Shape {
            small_files: arguments.small_files,
            large_files: arguments.large_files,
            large_bytes: arguments.large_size.as_u64(),
        },
    );
    require_space(&arguments.directory, data.bytes())?;
    let scratch = Scratch::below(&arguments.directory, "millpond-demo-")?;
    say("\nMillpond: a bucket becomes a local directory, at the speed of the disk\n");
    let result = show(&scratch, &data, arguments.seed, interrupt);
    let step = Step::begin("removing everything");
    let removed = scratch
        .close()
        .context("failed to remove what the demonstration made");
    result.and(removed)?;
    step.done("nothing is left: no mount, no process, no file");
    say("");
    Ok(())
}

fn show(scratch: &Scratch, data: &DataSet, seed: u64, interrupt: &Interrupt) -> Result<()> {
    let local = scratch.try_directory(&format!("s3/{BUCKET}"))?;
    let directory = scratch.try_directory("data")?;
    let millpond = Millpond::built(scratch)?;
    let runtime = tokio::runtime::Runtime::new().context("failed to start")?;

    let step = Step::begin("starting an S3 server");
    let server = S3Server::start(&scratch.join("s3"), scratch.join("access.log"))?;
    runtime.block_on(bucket::require_authentication(&server))?;
    step.done(format_args!(
        "versitygw at {}, which refuses a wrong secret",
        server.url()
    ));

    let step = Step::begin(format_args!("uploading {}", bytes(data.bytes())));
    let checksums = runtime.block_on(bucket::fill(&server, data, interrupt))?;
    step.done(format_args!(
        "uploaded {} files, {}, that follow from seed {seed}, through the S3 API",
        data.files.len(),
        bytes(data.bytes()),
    ));

    let address = metrics::free_address()?;
    let step = Step::begin("millpond mount");
    let mount = MountCommand::by(millpond, &format!("s3://{BUCKET}"), &directory)
        .with("--endpoint", server.url())
        .with("--metrics", &address)
        .with("--cache-dir", scratch.try_directory("cache")?)
        .credentials(server.credentials())
        .try_mount()?;
    // Without the long path that all directories have in common.
    let printed = mount
        .printed()
        .replace(&format!("{}/", scratch.path().display()), "");
    step.done(format_args!("millpond mount: {printed}"));
    let work = Work {
        data,
        checksums: &checksums,
        interrupt,
    };
    epochs(&work, &server, &mount, &local, &address)?;

    let step = Step::begin("millpond unmount");
    mount.try_unmount()?;
    let left = scratch.try_mounts()?;
    ensure!(left.is_empty(), "still mounted: {left:?}");
    step.done("millpond unmount");
    Ok(())
}

fn epochs(
    work: &Work<'_>,
    server: &S3Server,
    mount: &Mount,
    local: &Path,
    metrics_address: &str,
) -> Result<()> {
    let killed = OnceLock::new();
    let kill = || -> Result<()> {
        let pid = mount.kill_server().context("the mount has no server")?;
        // It is called once.
        let _set = killed.set(pid);
        Ok(())
    };
    let nothing = || Ok(());
    table::head();
    let mut shown = Vec::new();
    let mut counters = None;
    for number in 1..=EPOCHS {
        if number == EPOCHS {
            // The server that is killed takes its counters with it.
            counters = Some(Metrics::read(metrics_address)?);
        }
        let order = u64::try_from(number)?;
        let halfway: &(dyn Fn() -> Result<()> + Sync) = if number == EPOCHS { &kill } else { &nothing };
        let step = Step::begin(format_args!("epoch {number}"));
        let before = server.traffic()?;
        let through = work.read(mount.path(), order, halfway)?;
        let from_origin = server.traffic()?.since(before);
        let epoch = Epoch {
            through,
            from_origin,
            local: work.read(local, order, &nothing)?,
        };
        drop(step);
        table::row(number, &epoch);
        shown.push(epoch);
    }
    say(format_args!(
        "\n  Each epoch reads all files in another random order with {READERS} threads and checks every byte. Local disk: the\n  \
         same reads, right after, of the same files on the same disk.\n"
    ));
    let pid = *killed.get().context("the server was not killed")?;
    let successor = mount.try_wait_for_successor(pid)?;
    say(format_args!(
        "  Halfway through epoch {EPOCHS} the mount's server {pid} was killed (kill -9): no error, no wrong byte; {successor} took over."
    ));
    shown.pop();
    let counters = counters.context("the metrics were not read")?;
    hit_rates(&shown, &counters, metrics_address)
}

/// What the mount itself counted before its server was killed, beside what the S3 server counted in the same epochs.
fn hit_rates(epochs: &[Epoch], counters: &Metrics, metrics_address: &str) -> Result<()> {
    let rate = counters.hit_rate().context("/metrics counts no reads")?;
    say(format_args!(
        "\n  http://{metrics_address}/metrics before that, after {} epochs:",
        epochs.len()
    ));
    for line in counters.read_bytes() {
        say(format_args!("    {line}"));
    }
    say(format_args!(
        "  hit rate by these {:.2} %, by the S3 server's account {:.2} %\n",
        rate * 100.0,
        table::hit_rate(epochs) * 100.0
    ));
    Ok(())
}

fn require_space(directory: &Path, data_bytes: u64) -> Result<()> {
    let found = rustix::fs::statvfs(directory)
        .with_context(|| format!("--directory {}: failed to look at it", directory.display()))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let (parts, of) = SPACE_FOR_DATA;
    let needed = data_bytes.saturating_mul(parts) / of;
    if free < needed {
        bail!(
            "--directory {} has {} free, and {} are needed: name another one (make demo-local DEMO='--directory DIR')",
            directory.display(),
            bytes(free),
            bytes(needed)
        );
    }
    Ok(())
}
