//! `kubectl millpond status`: Datasets, their cached bytes on each node, and loads.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use kube::ResourceExt;
use kube::api::ListParams;
use millpond_api::{DataLoad, Dataset};
use serde::Serialize;

use super::super::terminal::{bytes, percent, print_error, print_line};
use super::check_result::first_fault;
use super::connection::{Cluster, list};
use super::scrape::{NodeDataset, Nodes, workers};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Names of Datasets [default: all of the namespace].
    names: Vec<String>,
    /// Show Datasets of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "names")]
    all_namespaces: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Everything that the command prints.
#[derive(Serialize)]
struct Report {
    datasets: Vec<Dataset>,
    nodes: Vec<NodeDataset>,
    loads: Vec<DataLoad>,
}

pub(super) async fn run(cluster: &Cluster, arguments: &Arguments) -> Result<ExitCode> {
    let everything = ListParams::default();
    let datasets = cluster.api::<Dataset>(arguments.all_namespaces);
    let loads = cluster.api::<DataLoad>(arguments.all_namespaces);
    let (mut datasets, mut loads) =
        tokio::try_join!(list(&datasets, &everything), list(&loads, &everything))?;
    if let Some(missing) = arguments
        .names
        .iter()
        .find(|name| !datasets.iter().any(|dataset| dataset.name_any() == **name))
    {
        anyhow::bail!(
            "there is no Dataset {missing} in the namespace {}",
            cluster.namespace
        );
    }
    if !arguments.names.is_empty() {
        datasets.retain(|dataset| arguments.names.contains(&dataset.name_any()));
        loads.retain(|load| arguments.names.contains(&load.spec.dataset));
    }
    // A user may lack permission to read workers; the rest is printed without them.
    let Nodes {
        datasets: mut nodes,
        unread,
    } = workers(cluster).await.unwrap_or_else(|error| Nodes {
        datasets: Vec::new(),
        unread: vec![format!("{error:#}")],
    });
    nodes.retain(|node| {
        datasets.iter().any(|dataset| {
            dataset.namespace().as_deref() == Some(node.namespace.as_str())
                && dataset.name_any() == node.dataset
        })
    });
    let report = Report {
        datasets,
        nodes,
        loads,
    };
    if arguments.json {
        print_line(serde_json::to_string_pretty(&report).context("failed to write JSON")?);
    } else {
        print(&report, cluster, arguments);
    }
    for reason in unread {
        print_error(format_args!("metrics not read: {reason}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn print(report: &Report, cluster: &Cluster, arguments: &Arguments) {
    if report.datasets.is_empty() {
        return print_line(if arguments.all_namespaces {
            "There are no Datasets.".to_owned()
        } else {
            format!(
                "There are no Datasets in the namespace {}; -A prints those of all.",
                cluster.namespace
            )
        });
    }
    print_line(datasets(&report.datasets));
    if !report.nodes.is_empty() {
        print_line(format_args!("\n{}", nodes(&report.nodes)));
    }
    if !report.loads.is_empty() {
        print_line(format_args!("\n{}", loads(&report.loads)));
    }
}

fn datasets(datasets: &[Dataset]) -> Table {
    let mut table = table(&[
        "DATASET",
        "PHASE",
        "POOL",
        "FILES",
        "SIZE",
        "CACHED",
        "HIT RATIO",
        "WORKERS",
        "PROBLEM",
    ]);
    for dataset in datasets {
        let status = dataset.status.clone().unwrap_or_default();
        table.add_row([
            format!(
                "{}/{}",
                dataset.namespace().unwrap_or_default(),
                dataset.name_any()
            ),
            status
                .phase
                .map_or_else(|| "Pending".to_owned(), |phase| format!("{phase:?}")),
            text(status.pool),
            text(status.files),
            text(status.total_size.map(|size| bytes(size.0).to_string())),
            text(status.cached_percentage),
            text(status.hit_ratio),
            text(status.workers),
            first_fault(&status.conditions).unwrap_or_default(),
        ]);
    }
    table
}

fn nodes(nodes: &[NodeDataset]) -> Table {
    let mut table = table(&[
        "NODE",
        "DATASET",
        "SPACE",
        "CACHED",
        "READ HERE",
        "PEERS",
        "SOURCE",
        "HIT RATIO",
    ]);
    for node in nodes {
        table.add_row([
            node.node.clone(),
            format!("{}/{}", node.namespace, node.dataset),
            bytes(node.used_bytes).to_string(),
            percent(node.cached()),
            bytes(node.read_local_bytes).to_string(),
            bytes(node.read_peer_bytes).to_string(),
            bytes(node.read_origin_bytes).to_string(),
            percent(node.hit_ratio()),
        ]);
    }
    table
}

fn loads(loads: &[DataLoad]) -> Table {
    let mut table = table(&[
        "LOAD",
        "DATASET",
        "PHASE",
        "PROGRESS",
        "RATE",
        "ETA",
        "FAILED FILES",
    ]);
    for load in loads {
        let status = load.status.clone().unwrap_or_default();
        table.add_row([
            format!("{}/{}", load.namespace().unwrap_or_default(), load.name_any()),
            load.spec.dataset.clone(),
            status
                .phase
                .map_or_else(|| "Pending".to_owned(), |phase| format!("{phase:?}")),
            text(status.progress),
            text(status.rate),
            text(status.eta),
            text(status.files_failed),
        ]);
    }
    table
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().copied());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
