//! `millpond stats`: where a mount's reads were answered, and what it holds.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use super::terminal::{bytes, percent, say};
use crate::mount::client::{Client, block_on};
use crate::mount::control::StatsAnswer;
use crate::mount::place::Place;

/// Between two tables of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Refused keys shown.
const SHOWN_REFUSED: usize = 5;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where the source is mounted.
    directory: PathBuf,
    /// Again every second.
    #[arg(long)]
    watch: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (place, _, _) = Place::containing(&arguments.directory)?;
    block_on(async {
        let mut client = Client::new(place);
        loop {
            let stats = client.stats().await?;
            if arguments.json {
                say(serde_json::to_string(&stats).context("failed to write JSON")?);
            } else {
                if arguments.watch {
                    // Home, and clear what is below.
                    say("\x1b[H\x1b[2J");
                }
                show(&stats);
            }
            if !arguments.watch {
                return Ok(ExitCode::SUCCESS);
            }
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    })
}

fn show(stats: &StatsAnswer) {
    let StatsAnswer { mount, dataset } = stats;
    say(format_args!(
        "{} at {} ({}, {} earlier servers, version {})",
        dataset.source,
        mount.directory.display(),
        mount.view.words(),
        mount.predecessors,
        mount.version
    ));
    if !mount.supervised {
        say(
            "its supervisor was killed: nothing would start another server; unmount it, and mount it again when \
             its readers are done",
        );
    }
    say(format_args!("log {}\n", mount.log.display()));
    let read = &dataset.read;
    let mut reads = table(&["reads", "local", "peers", "origin", "hit rate"]);
    reads.add_row([
        "bytes".to_owned(),
        bytes(read.local_bytes).to_string(),
        bytes(read.peer_bytes).to_string(),
        bytes(read.origin_bytes).to_string(),
        percent(read.byte_hit_rate),
    ]);
    reads.add_row([
        "opens".to_owned(),
        read.local_opens.to_string(),
        read.peer_opens.to_string(),
        read.origin_opens.to_string(),
        percent(read.open_hit_rate),
    ]);
    say(format_args!("{reads}\n"));
    let mut tiers = table(&["tier", "objects", "used", "capacity"]);
    for tier in &dataset.tiers {
        tiers.add_row([
            tier.medium.clone(),
            tier.objects.to_string(),
            bytes(tier.used_bytes).to_string(),
            bytes(tier.capacity_bytes).to_string(),
        ]);
    }
    say(format_args!("{tiers}\n"));
    if let Some(catalog) = &dataset.catalog {
        say(format_args!(
            "catalog   generation {}, {} files, {} directories, {}",
            catalog.generation,
            catalog.files,
            catalog.directories,
            bytes(catalog.bytes)
        ));
        for (reason, count) in &catalog.refused {
            say(format_args!("          {count} keys are not shown: {reason}"));
        }
        for sample in catalog.refused_samples.iter().take(SHOWN_REFUSED) {
            say(format_args!("          {:?}: {}", sample.key, sample.reason));
        }
        if let Some(error) = &catalog.refresh_error {
            say(format_args!("          the last refresh failed: {error}"));
        }
    }
    let store = &dataset.store;
    say(format_args!(
        "cache     {} evicted ({}), {} spared, {} damaged, {} refused, {} failures",
        store.evicted_objects,
        bytes(store.evicted_bytes),
        store.spared_objects,
        store.corrupt,
        store.refused,
        store.failures
    ));
    let origin = &dataset.origin;
    say(format_args!(
        "origin    {} requests, {}, {} retries, {} throttled, {} hedged",
        origin.requests.values().sum::<u64>(),
        bytes(origin.bytes),
        origin.retries,
        origin.throttles,
        origin.hedges
    ));
    let memory = &dataset.memory;
    say(format_args!(
        "memory    {} of {} in buffers, {} waiting",
        bytes(memory.used_bytes),
        bytes(memory.capacity_bytes),
        memory.waiting
    ));
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().copied());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
