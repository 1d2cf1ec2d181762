//! `millpond stats`: sources of a mount's reads, and the content of its cache.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use millpond_cache::dataset::{CatalogStats, ReadStats, TierStats};

use super::terminal::{bytes, percent};
use crate::mount::client::{Client, block_on};
use crate::mount::control::StatsResponse;
use crate::mount::run_directory::RunDirectory;

/// Interval between two tables of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Most refused keys printed.
const SHOWN_REFUSED: usize = 5;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Mount directory, or a path below it.
    directory: PathBuf,
    /// Print again every second.
    #[arg(long)]
    watch: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (run_dir, _, _) = RunDirectory::containing(&arguments.directory)?;
    let screen = arguments.watch && !arguments.json && std::io::stdout().is_terminal();
    block_on(async {
        let mut client = Client::new(run_dir);
        loop {
            let stats = client.stats().await?;
            let text = if arguments.json {
                serde_json::to_string(&stats).context("failed to write JSON")? + "\n"
            } else {
                text(&stats)
            };
            let text = if screen { redraw(&text) } else { text };
            let mut output = std::io::stdout();
            let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
            // The reader (`| head`) closed the pipe.
            if written.is_err() || !arguments.watch {
                return Ok(ExitCode::SUCCESS);
            }
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    })
}

/// Returns the text prefixed to start at the screen's corner, each line's rest and the lines below cleared: no flicker.
fn redraw(text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
    format!("\x1b[H{lines}\x1b[J")
}

fn text(stats: &StatsResponse) -> String {
    let StatsResponse { mount, dataset } = stats;
    let mut lines = vec![
        format!("{} at {}", dataset.source, mount.directory.display()),
        format!(
            "{}, {} earlier servers, version {}, log {}",
            mount.view.label(),
            mount.predecessors,
            mount.version,
            mount
                .log
                .as_ref()
                .map_or_else(|| "on standard error".to_owned(), |log| log.display().to_string())
        ),
    ];
    if !mount.supervised {
        lines.push(
            "its supervisor was killed: a server that exits would not be restarted; unmount and mount again when the \
             readers are done"
                .to_owned(),
        );
    }
    lines.push(String::new());
    lines.push(reads(&dataset.read));
    lines.push(String::new());
    lines.push(tiers(&dataset.tiers));
    lines.push(String::new());
    if let Some(catalog) = &dataset.catalog {
        lines.extend(catalog_lines(catalog));
    }
    let store = &dataset.store;
    lines.push(format!(
        "cache     {} evicted ({}), {} spared, {} corrupt, {} verified after a crash, {} without room, {} failures",
        store.evicted_objects,
        bytes(store.evicted_bytes),
        store.spared_objects,
        store.corrupt,
        store.verified_objects,
        store.refused,
        store.failures
    ));
    let origin = &dataset.origin;
    lines.push(format!(
        "origin    {} requests, {} (prefetch and readahead included), {} retries, {} throttled, {} hedged",
        origin.requests.values().sum::<u64>(),
        bytes(origin.bytes),
        origin.retries,
        origin.throttles,
        origin.hedges
    ));
    let memory = &dataset.memory;
    lines.push(format!(
        "memory    {} of {} in buffers, {} waiting\n",
        bytes(memory.used_bytes),
        bytes(memory.capacity_bytes),
        memory.waiting
    ));
    lines.join("\n")
}

fn reads(read: &ReadStats) -> String {
    let peers = read.peer_bytes > 0 || read.peer_opens > 0;
    let row = |what: &str, local: String, peer: String, origin: String, rate| {
        let mut row = vec![what.to_owned(), local];
        // A mount on one machine has no peers.
        row.extend(peers.then_some(peer));
        row.extend([origin, percent(rate)]);
        row
    };
    let header = if peers {
        vec!["reads", "local", "peers", "origin", "hit rate"]
    } else {
        vec!["reads", "local", "origin", "hit rate"]
    };
    let mut table = table(&header);
    table.add_row(row(
        "bytes",
        bytes(read.local_bytes).to_string(),
        bytes(read.peer_bytes).to_string(),
        bytes(read.origin_bytes).to_string(),
        read.byte_hit_rate,
    ));
    table.add_row(row(
        "opens",
        read.local_opens.to_string(),
        read.peer_opens.to_string(),
        read.origin_opens.to_string(),
        read.open_hit_rate,
    ));
    table.trim_fmt()
}

fn tiers(tiers: &[TierStats]) -> String {
    let mut table = table(&["tier", "objects", "used", "capacity"]);
    for tier in tiers {
        table.add_row([
            tier.medium.clone(),
            tier.objects.to_string(),
            bytes(tier.used_bytes).to_string(),
            bytes(tier.capacity_bytes).to_string(),
        ]);
    }
    table.trim_fmt()
}

fn catalog_lines(catalog: &CatalogStats) -> Vec<String> {
    let mut lines = vec![format!(
        "catalog   generation {}, {} files, {} directories, {}",
        catalog.generation,
        catalog.files,
        catalog.directories,
        bytes(catalog.bytes)
    )];
    for (reason, count) in &catalog.refused {
        lines.push(format!("          {count} keys are not in the mount: {reason}"));
    }
    for sample in catalog.refused_samples.iter().take(SHOWN_REFUSED) {
        lines.push(format!("          {:?}: {}", sample.key, sample.reason));
    }
    if let Some(error) = &catalog.refresh_error {
        lines.push(format!("          the last refresh failed: {error}"));
    }
    lines
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().copied());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
