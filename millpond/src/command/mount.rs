//! `millpond mount`: from the command line's arguments to a usable mount, or the reason why there is none.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use millpond_cache::source::{SourceError, SourceOptions, SourceUrl};

use super::terminal::{StatusLine, bytes, print_error, print_line};
use super::value;
use crate::mount::readiness::Report;
use crate::mount::spec::{Cache, Eviction, Owner, SPEC_VERSION, Spec, ViewChoice};
use crate::mount::{path, start};

/// Smallest cache size accepted: less is a number whose unit was forgotten.
const MIN_CACHE_SIZE: u64 = 1 << 20;

/// Smallest memory budget that the read path works with.
const MIN_MEMORY_BUDGET: u64 = 64 << 20;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Source: s3://bucket/prefix, gs://, az://, http(s):// or file:///directory.
    source: String,
    /// Mount directory; it must exist.
    directory: PathBuf,

    /// Cache directory [default: /var/cache/millpond/..., or $XDG_CACHE_HOME/millpond/... without root].
    #[arg(long, value_name = "DIR", help_heading = "Cache")]
    cache_dir: Option<PathBuf>,
    /// Most bytes of the cache on disk, for example 200Gi [default: the free space].
    #[arg(long, value_name = "SIZE", value_parser = value::size, help_heading = "Cache")]
    cache_size: Option<u64>,
    /// Most bytes of the cache in memory, in front of the disk, for example 32Gi. Needs root.
    #[arg(long, value_name = "SIZE", value_parser = value::size, default_value = "0", help_heading = "Cache")]
    memory_size: u64,
    /// Eviction policy when the cache is full. With never, cached objects stay and others bypass the cache.
    #[arg(long, value_enum, default_value_t = EvictionFlag::Never, help_heading = "Cache")]
    eviction: EvictionFlag,
    /// Most bytes of all read buffers together, for example 512Mi [default: a quarter of the memory limit, at least 256Mi].
    #[arg(long, value_name = "SIZE", value_parser = value::size, help_heading = "Cache")]
    memory_budget: Option<u64>,

    /// Endpoint URL instead of the provider's own, for example http://127.0.0.1:9000.
    #[arg(long, value_name = "URL", value_parser = value::endpoint, help_heading = "Source")]
    endpoint: Option<String>,
    /// Region of the bucket.
    #[arg(long, help_heading = "Source")]
    region: Option<String>,
    /// Send requests without credentials.
    #[arg(long, help_heading = "Source")]
    anonymous: bool,
    /// An option of the source by object_store's names, for example aws_access_key_id=AKIA123. May be repeated.
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = value::option, help_heading = "Source")]
    options: Vec<(String, String)>,
    /// Interval between listings of the source, for example 10m [default: list at start and on request].
    #[arg(long, value_name = "DURATION", value_parser = value::positive_duration, help_heading = "Source")]
    refresh: Option<Duration>,
    /// List the source before the mount is usable, even if a catalog of an earlier mount exists.
    #[arg(long, help_heading = "Source")]
    fresh: bool,
    /// Longest time that a read waits for the source before it fails.
    #[arg(long, value_name = "DURATION", value_parser = value::positive_duration, default_value = "30s", help_heading = "Source")]
    deadline: Duration,
    /// Never hedge slow requests: each byte is requested once, unless the request fails.
    #[arg(long, help_heading = "Source")]
    no_hedging: bool,

    /// Kind of view. The kernel view needs root and Linux 6.7.
    #[arg(long, value_enum, default_value_t = ViewFlag::Auto, help_heading = "View")]
    view: ViewFlag,
    /// Owner of all files [default: that of the mounting user].
    #[arg(long, help_heading = "View")]
    uid: Option<u32>,
    /// Group of all files [default: that of the mounting user].
    #[arg(long, help_heading = "View")]
    gid: Option<u32>,
    /// Permission bits of files.
    #[arg(long, value_name = "OCTAL", value_parser = value::mode, default_value = "0444", help_heading = "View")]
    file_mode: u16,
    /// Permission bits of directories.
    #[arg(long, value_name = "OCTAL", value_parser = value::mode, default_value = "0555", help_heading = "View")]
    dir_mode: u16,
    /// Do not count opens that the kernel serves without FUSE.
    #[arg(long, help_heading = "View")]
    no_count_opens: bool,

    /// Address of /metrics and /healthz, for example 127.0.0.1:9400.
    #[arg(long, value_name = "ADDRESS", help_heading = "Process")]
    metrics: Option<SocketAddr>,
    /// Stay in the foreground until the mount ends.
    #[arg(long, help_heading = "Process")]
    foreground: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EvictionFlag {
    Never,
    Lru,
    Tinylfu,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ViewFlag {
    Auto,
    Kernel,
    Fuse,
}

pub(super) fn run(arguments: Arguments) -> Result<ExitCode> {
    let foreground = arguments.foreground;
    let spec = spec(arguments)?;
    if foreground {
        return Err(start::in_foreground(&spec));
    }
    let mut line = StatusLine::default();
    let report = start::detached(&spec, |report| match report {
        Report::Listing { objects, bytes: size } => {
            line.show(format_args!(
                "listing {}: {objects} objects, {}",
                spec.source.url,
                bytes(*size)
            ));
        }
        Report::Note { text } => {
            line.clear();
            print_error(format_args!("note: {text}"));
        }
        Report::Ready(_) | Report::Failed { .. } => line.clear(),
    })?;
    print_line(format_args!(
        "mounted {} at {} ({}, {} files, {})",
        spec.source.url,
        spec.directory.display(),
        report.view.label(),
        report.files,
        bytes(report.bytes)
    ));
    Ok(ExitCode::SUCCESS)
}

/// Checks everything that can be checked without a request to the source.
fn spec(arguments: Arguments) -> Result<Spec> {
    let Arguments {
        source,
        directory,
        cache_dir,
        cache_size,
        memory_size,
        eviction,
        memory_budget,
        endpoint,
        region,
        anonymous,
        options,
        refresh,
        fresh,
        deadline,
        no_hedging,
        view,
        uid,
        gid,
        file_mode,
        dir_mode,
        no_count_opens,
        metrics,
        foreground: _,
    } = arguments;
    let root = rustix::process::geteuid().is_root();
    if memory_size > 0 && !root {
        bail!("--memory-size needs root, to mount a tmpfs: run as root or leave it out");
    }
    let too_small = |size| size > 0 && size < MIN_CACHE_SIZE;
    if cache_size.is_some_and(|size| size == 0 || too_small(size)) {
        bail!("--cache-size is too small: give at least some hundred MiB, for example 10Gi");
    }
    if too_small(memory_size) {
        bail!("--memory-size is too small: give 0 or at least some hundred MiB, for example 10Gi");
    }
    SourceUrl::parse(&source).map_err(|error| match error {
        SourceError::Invalid { problem, fix, .. } => anyhow!("SOURCE {problem}; {fix}"),
        other => other.into(),
    })?;
    if let Some(budget) = memory_budget
        && budget < MIN_MEMORY_BUDGET
    {
        bail!("--memory-budget is below the minimum of the read path: give 64Mi or more");
    }
    if no_count_opens && !matches!(eviction, EvictionFlag::Never) {
        bail!(
            "--no-count-opens conflicts with an --eviction policy that counts opens: leave one of them out"
        );
    }
    let directory = path::mountpoint(&directory)?;
    let cache = match cache_dir {
        Some(cache) => std::path::absolute(&cache)
            .with_context(|| format!("--cache-dir {} cannot be made absolute", cache.display()))?,
        None => path::default_cache_directory(&source)?,
    };
    if cache.starts_with(&directory) || directory.starts_with(&cache) {
        bail!(
            "--cache-dir {} and {} contain each other: choose another cache directory",
            cache.display(),
            directory.display()
        );
    }
    Ok(Spec {
        version: SPEC_VERSION,
        source: SourceOptions {
            url: source,
            options: options.into_iter().collect::<BTreeMap<_, _>>(),
            endpoint,
            region,
            anonymous,
            ca_certificates: None,
            web_identity_token: None,
        },
        directory,
        cache: Cache {
            directory: cache,
            disk_bytes: cache_size,
            memory_bytes: memory_size,
            eviction: match eviction {
                EvictionFlag::Never => Eviction::Never,
                EvictionFlag::Lru => Eviction::Lru,
                EvictionFlag::Tinylfu => Eviction::TinyLfu,
            },
        },
        refresh,
        fresh,
        deadline,
        hedging: !no_hedging,
        view: match view {
            ViewFlag::Auto => ViewChoice::Auto,
            ViewFlag::Kernel => ViewChoice::Kernel,
            ViewFlag::Fuse => ViewChoice::Fuse,
        },
        owner: Owner {
            uid: uid.unwrap_or_else(|| rustix::process::geteuid().as_raw()),
            gid: gid.unwrap_or_else(|| rustix::process::getegid().as_raw()),
            file_mode,
            dir_mode,
        },
        metrics,
        count_opens: !no_count_opens,
        memory_budget_bytes: memory_budget,
    })
}
