//! `kubectl millpond warmup`: creates a DataLoad and shows its progress.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use futures::{StreamExt, pin_mut};
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::watcher::{self, watch_object};
use kube::{Api, ResourceExt};
use millpond_api::{ByteQuantity, DataLoad, DataLoadSpec, DataLoadStatus, Dataset, LoadPhase, LoadPolicy};

use super::super::progress::{Display, Progress};
use super::super::terminal::{bytes, print_error, print_line};
use super::super::value;
use super::connection::{Cluster, explain};

/// `ttlSecondsAfterFinished` of the created DataLoad.
const TTL: Duration = Duration::from_secs(3_600);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the Dataset.
    dataset: String,
    /// Paths in the mount, or globs, for example 'train/**' [default: everything].
    paths: Vec<String>,
    /// Wait until the load ends, with a progress bar; fails if a file could not be fetched.
    #[arg(short, long)]
    watch: bool,
    /// Most bytes per second, all workers together, for example 1Gi [default: unlimited].
    #[arg(long, value_name = "SIZE", value_parser = value::size)]
    bandwidth: Option<u64>,
}

pub(super) async fn run(cluster: &Cluster, arguments: Arguments) -> Result<ExitCode> {
    if arguments.bandwidth == Some(0) {
        bail!("--bandwidth 0 would never finish: leave it out for no limit");
    }
    let datasets = cluster.api::<Dataset>(false);
    let dataset = datasets.get_opt(&arguments.dataset).await;
    if dataset.map_err(|error| explain(error, "datasets"))?.is_none() {
        bail!(
            "there is no Dataset {} in the namespace {}",
            arguments.dataset,
            cluster.namespace
        );
    }
    let loads = cluster.api::<DataLoad>(false);
    let load = DataLoad {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", arguments.dataset)),
            ..ObjectMeta::default()
        },
        spec: DataLoadSpec {
            dataset: arguments.dataset,
            paths: arguments.paths.iter().map(|path| rooted(path)).collect(),
            policy: LoadPolicy::Once,
            schedule: None,
            bandwidth_limit: arguments.bandwidth.map(ByteQuantity),
            ttl_seconds_after_finished: i64::try_from(TTL.as_secs()).ok(),
        },
        status: None,
    };
    let made = loads.create(&PostParams::default(), &load).await;
    let name = made.context("failed to create a DataLoad")?.name_any();
    print_line(format_args!("dataload/{name} is made"));
    if !arguments.watch {
        print_line(format_args!(
            "watch its progress with: kubectl get dataload {name} -n {} --watch",
            cluster.namespace
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let end = watch(&loads, &name).await?;
    conclude(&end)
}

/// Returns the path as DataLoads write it: from the root of the mount.
fn rooted(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/'))
}

/// Shows the load until it ends. An interrupt ends only the watch: the workers continue the load.
async fn watch(loads: &Api<DataLoad>, name: &str) -> Result<DataLoadStatus> {
    let mut display = Display::new();
    let states = watch_object(loads.clone(), name);
    pin_mut!(states);
    let mut fetched_before = None;
    let end = loop {
        match states.next().await {
            Some(Ok(Some(load))) => {
                let status = load.status.unwrap_or_default();
                if matches!(status.phase, Some(LoadPhase::Complete | LoadPhase::Failed)) {
                    break Ok(status);
                }
                if status.bytes_total.is_some() {
                    let done = number(status.bytes_done);
                    let before = *fetched_before.get_or_insert(done);
                    display.show(&Progress {
                        counted: true,
                        files_total: number(status.files_total),
                        files_done: number(status.files_done),
                        failed: number(status.files_failed),
                        bytes_total: number(status.bytes_total),
                        bytes_done: done,
                        bytes_fetched: done.saturating_sub(before),
                    });
                }
            }
            Some(Ok(None)) => break Err(anyhow::anyhow!("dataload/{name} was deleted")),
            // The watcher retries by itself.
            Some(Err(watcher::Error::WatchFailed(_) | watcher::Error::WatchStartFailed(_))) => {}
            Some(Err(error)) => break Err(error).context("failed to watch the DataLoad"),
            None => {
                break Err(anyhow::anyhow!(
                    "the API server ended the watch of dataload/{name}"
                ));
            }
        }
    };
    display.finish();
    end
}

fn conclude(end: &DataLoadStatus) -> Result<ExitCode> {
    for failed in &end.failed_paths {
        print_error(format_args!("failed: {}: {}", failed.path, failed.reason));
    }
    print_line(format_args!(
        "{} of {} files are here, {}",
        number(end.files_done),
        number(end.files_total),
        bytes(number(end.bytes_done))
    ));
    if end.phase == Some(LoadPhase::Complete) {
        return Ok(ExitCode::SUCCESS);
    }
    let why = end
        .conditions
        .iter()
        .find(|condition| condition.status == "False");
    match why {
        Some(why) => print_error(format_args!("error: {}: {}", why.reason, why.message)),
        None => print_error(format_args!(
            "error: {} files could not be fetched",
            number(end.files_failed)
        )),
    }
    Ok(ExitCode::FAILURE)
}

fn number(number: Option<i64>) -> u64 {
    number
        .and_then(|number| u64::try_from(number).ok())
        .unwrap_or_default()
}
