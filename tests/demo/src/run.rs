//! The demonstration, step by step.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::bucket::{self, BUCKET};
use crate::dataset::{DataSet, Shape};
use crate::epoch::{READERS, Work};
use crate::interrupt::Interrupt;
use crate::metrics;
use crate::mounted::{Mount, is_mounted_below};
use crate::report::{self, Epoch, Step, bytes, say};
use crate::server::Server;

/// Passes over all files.
const EPOCHS: usize = 3;

/// The data lies in the bucket and in the cache, and both want some room besides.
const ROOM_FOR_DATA: (u64, u64) = (22, 10);

/// Shows Millpond on a real S3 server, with every byte checked.
#[derive(Debug, Parser)]
#[command(name = "millpond-demo", version)]
pub(crate) struct Arguments {
    /// Where bucket, cache and mount lie meanwhile: a local disk with room for the data twice.
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
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let interrupt = Interrupt::on_signals()?;
    millpond_process::tls::install();
    let data = DataSet::plan(
        arguments.seed,
        Shape {
            small_files: arguments.small_files,
            large_files: arguments.large_files,
            large_bytes: arguments.large_size.as_u64(),
        },
    );
    require_room(&arguments.directory, data.bytes())?;
    let scratch = tempfile::Builder::new()
        .prefix("millpond-demo-")
        .tempdir_in(&arguments.directory)
        .with_context(|| format!("failed to make a directory in {}", arguments.directory.display()))?;
    let root = scratch.path().canonicalize()?;
    say("\nMillpond: a bucket becomes a local directory, at the speed of the disk\n");
    let result = show(&root, &data, arguments.seed, &interrupt);
    let step = Step::begin("taking everything away");
    // The servers and the mount are gone by now; a mount that is not would be emptied here.
    if is_mounted_below(&root)? {
        let kept = scratch.keep();
        let left = format!(
            "something is still mounted below {}: it is left as it is",
            kept.display()
        );
        return result.and_then(|()| bail!("{left}")).context(left.clone());
    }
    scratch
        .close()
        .context("failed to remove what the demonstration made")?;
    result?;
    step.done("nothing is left: no mount, no process, no file");
    say("");
    Ok(())
}

fn show(root: &Path, data: &DataSet, seed: u64, interrupt: &Interrupt) -> Result<()> {
    let (buckets, cache, directory) = (root.join("s3"), root.join("cache"), root.join("data"));
    for made in [&buckets.join(BUCKET), &cache, &directory] {
        std::fs::create_dir_all(made).with_context(|| format!("failed to make {}", made.display()))?;
    }
    let runtime = tokio::runtime::Runtime::new().context("failed to start")?;

    let step = Step::begin("starting an S3 server");
    let server = Server::start(&buckets, root.join("access.log"))?;
    runtime.block_on(bucket::refuses_strangers(&server))?;
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
    let mount = Mount::new(&server, &directory, &cache, &address)?;
    step.done(format_args!("millpond mount: {}", without(&mount.said, root)));
    let work = Work {
        data,
        checksums: &checksums,
        interrupt,
    };
    epochs(
        &work,
        &server,
        &mount,
        &directory,
        &buckets.join(BUCKET),
        &address,
    )?;

    let step = Step::begin("millpond unmount");
    mount.unmount()?;
    if is_mounted_below(&directory)? {
        bail!("{} is still mounted", directory.display());
    }
    step.done("millpond unmount");
    Ok(())
}

fn epochs(
    work: &Work<'_>,
    server: &Server,
    mount: &Mount,
    directory: &Path,
    local: &Path,
    metrics_address: &str,
) -> Result<()> {
    let killed = OnceLock::new();
    let kill = || -> Result<()> {
        let pid = mount.kill_server()?;
        // It is called once.
        let _set = killed.set(pid);
        Ok(())
    };
    let nothing = || Ok(());
    report::table_head();
    let mut shown = Vec::new();
    let mut reads = Vec::new();
    for number in 1..=EPOCHS {
        if number == EPOCHS {
            // The server that is killed takes its counters with it.
            reads = metrics::reads(metrics_address)?;
        }
        let order = u64::try_from(number)?;
        let halfway: &(dyn Fn() -> Result<()> + Sync) = if number == EPOCHS { &kill } else { &nothing };
        let step = Step::begin(format_args!("epoch {number}"));
        let before = server.handed_out()?;
        let through = work.read(directory, order, halfway)?;
        let from_origin = server.handed_out()?.since(before);
        let epoch = Epoch {
            through,
            from_origin,
            local: work.read(local, order, &nothing)?,
        };
        drop(step);
        report::table_row(number, &epoch);
        shown.push(epoch);
    }
    say(format_args!(
        "\n  Each epoch reads all files in another random order with {READERS} threads and checks every byte. Local disk: the\n  \
         same reads, right after, of the same files on the same disk.\n"
    ));
    let pid = *killed.get().context("the server was not killed")?;
    let successor = mount.successor(pid)?;
    say(format_args!(
        "  In the middle of epoch {EPOCHS} the mount's server {pid} was killed (kill -9): no error, no wrong byte; {successor} took over."
    ));
    shown.pop();
    hit_rates(&shown, &reads, metrics_address)
}

/// What the mount itself said before its server was killed, beside what the origin said of the same epochs.
fn hit_rates(epochs: &[Epoch], reads: &[String], metrics_address: &str) -> Result<()> {
    let rate = metrics::hit_rate(reads).context("/metrics counts no reads")?;
    say(format_args!(
        "\n  http://{metrics_address}/metrics before that, after {} epochs:",
        epochs.len()
    ));
    for line in reads {
        say(format_args!("    {line}"));
    }
    say(format_args!(
        "  hit rate by these {:.2} %, by the S3 server's account {:.2} %\n",
        rate * 100.0,
        report::hit_rate(epochs) * 100.0
    ));
    Ok(())
}

fn require_room(directory: &Path, data_bytes: u64) -> Result<()> {
    let found = rustix::fs::statvfs(directory)
        .with_context(|| format!("--directory {}: failed to look at it", directory.display()))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let (parts, of) = ROOM_FOR_DATA;
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

/// The words without the long path that all of them have in common.
fn without(said: &str, root: &Path) -> String {
    said.replace(&format!("{}/", root.display()), "")
}
