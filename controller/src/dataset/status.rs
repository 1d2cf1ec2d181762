//! Computes and writes the status of a Dataset: from what validation found, what was applied and what the nodes report.
//!
//! A status is written only when it differs. Two limits protect the API server. Where only numbers differ, a Dataset is
//! written at most every [`NUMBERS_WRITE_INTERVAL`]. Where the status reports no more than progress, it
//! is written not within [`FIRST_PROGRESS_DELAY`] of its creation, since most Datasets are Bound by then, afterwards at most
//! every [`PROGRESS_WRITE_INTERVAL`], and for all Datasets together at most [`PROGRESS_WRITES_PER_SECOND`] times a second.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::DefaultClock;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use millpond_api::condition::{ConditionUpdate, Status, kind, reason, update};
use millpond_api::{ByteQuantity, Dataset, DatasetPhase, DatasetStatus};
use millpond_wire::plan;
use tokio::time::Instant;

use super::apply::{Applied, datasets};
use super::dereference::ResolvedRefs;
use super::validate::Validated;
use super::{Context, Error};
use crate::events;
use crate::status::percentage;

/// Time for every node process to connect; before its end missing reports mean nothing.
pub(crate) const STARTUP_GRACE: Duration = Duration::from_secs(20);

const NUMBERS_WRITE_INTERVAL: Duration = Duration::from_secs(5);

const FIRST_PROGRESS_DELAY: Duration = Duration::from_secs(2);

const PROGRESS_WRITE_INTERVAL: Duration = Duration::from_secs(10);

const PROGRESS_WRITES_PER_SECOND: u32 = 5;

/// When a write is tried again that [`PROGRESS_WRITES_PER_SECOND`] did not allow.
const PROGRESS_RETRY_DELAY: Duration = Duration::from_secs(5);

/// The limit on statuses that report no more than progress.
pub(crate) struct ProgressLimiter(RateLimiter<NotKeyed, InMemoryState, DefaultClock>);

impl ProgressLimiter {
    pub(crate) fn new() -> Self {
        let writes = NonZeroU32::new(PROGRESS_WRITES_PER_SECOND).unwrap_or(NonZeroU32::MIN);
        Self(RateLimiter::direct(Quota::per_second(writes)))
    }

    fn may_write(&self) -> bool {
        self.0.check().is_ok()
    }
}

/// The last status that was written.
#[derive(Clone, Debug)]
pub(crate) struct LastWrittenStatus {
    at: Instant,
    /// The Dataset's version after the write; the watch may show an older one. 0: nothing was written yet.
    version: u64,
    status: DatasetStatus,
}

/// What has come of a status.
pub(super) enum Outcome {
    /// Nothing is missing or wrong.
    NoProblem,
    /// Something is missing or wrong.
    Problem,
    /// It was not written: it is computed again after this time, and written then.
    Postponed(Duration),
}

/// Everything that a status follows from.
pub(super) struct StatusInputs<'a> {
    validated: &'a Validated,
    applied: Applied,
    reports: &'a [(String, plan::DatasetState)],
    /// Whether missing reports mean something.
    startup_grace_over: bool,
    /// The state of the Dataset's own load on each worker; `None`: that worker has not reported it.
    load: Vec<Option<plan::LoadState>>,
    /// Workers that the pool has, connected or not.
    workers: usize,
}

impl<'a> StatusInputs<'a> {
    /// Collects the inputs; those that change while objects are applied are read from memory now.
    pub(super) fn new(
        uid: &str,
        validated: &'a Validated,
        refs: &'a ResolvedRefs,
        applied: Applied,
        context: &Context,
    ) -> Self {
        let pool = validated.pool.as_deref();
        let (cluster, node_reports) = (&context.cluster, &context.node_reports);
        Self {
            validated,
            applied,
            reports: &refs.reports,
            startup_grace_over: node_reports.startup_grace_over(STARTUP_GRACE),
            load: node_reports.load(uid, pool.unwrap_or_default()),
            workers: pool.map_or(0, |pool| cluster.workers(pool).len()),
        }
    }
}

/// Writes the status, if it differs and the limits of the module's documentation allow it now.
pub(super) async fn write(
    dataset: &Dataset,
    uid: &str,
    inputs: &StatusInputs<'_>,
    context: &Context,
) -> Result<Outcome, Error> {
    let last = context.last_statuses.lock().get(uid).cloned();
    let last = last.unwrap_or_else(|| LastWrittenStatus {
        at: Instant::now(),
        version: 0,
        status: DatasetStatus::default(),
    });
    let before = if version(dataset) < last.version {
        last.status.clone()
    } else {
        dataset.status.clone().unwrap_or_default()
    };
    let now = Time(k8s_openapi::jiff::Timestamp::now());
    let (after, updates) = status(dataset, &before, inputs, &now);
    let decision = decide(
        &before,
        &after,
        &updates,
        last.version > 0,
        last.at.elapsed(),
        || context.progress.may_write(),
    );
    match decision {
        Decision::Unchanged => return Ok(outcome(&updates)),
        Decision::Postpone(delay) => {
            // The delay of the first status counts from its first computation.
            context.last_statuses.lock().entry(uid.to_owned()).or_insert(last);
            return Ok(Outcome::Postponed(delay));
        }
        Decision::Write => {}
    }
    let written = crate::status::write(&datasets(dataset, context)?, dataset, &after).await?;
    let last = LastWrittenStatus {
        at: Instant::now(),
        version: version(&written),
        status: after,
    };
    context.last_statuses.lock().insert(uid.to_owned(), last);
    events::publish_condition_events(&context.recorder, dataset, &before.conditions, &updates).await;
    Ok(outcome(&updates))
}

/// Returns an object's version. Versions of one object grow.
fn version(dataset: &Dataset) -> u64 {
    let version = dataset.metadata.resource_version.as_deref();
    version.and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn outcome(updates: &[ConditionUpdate]) -> Outcome {
    let is_problem = |update: &ConditionUpdate| match update.kind {
        kind::WARM => false,
        // Also of a Dataset that pods can use.
        kind::READY => update.status == Status::False || update.reason != reason::AS_EXPECTED,
        _ => update.status == Status::False,
    };
    if updates.iter().any(is_problem) {
        Outcome::Problem
    } else {
        Outcome::NoProblem
    }
}

/// Whether a status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// It is as before.
    Unchanged,
    Write,
    /// It is computed again after this time.
    Postpone(Duration),
}

/// Applies the limits of the module's documentation. `since` is the time since the last write, or since the first
/// computation while `was_written` is false; `may_write_progress` takes one write of the limit for all Datasets.
fn decide(
    before: &DatasetStatus,
    after: &DatasetStatus,
    updates: &[ConditionUpdate],
    was_written: bool,
    since: Duration,
    may_write_progress: impl FnOnce() -> bool,
) -> Decision {
    if after == before {
        return Decision::Unchanged;
    }
    let interval = if was_written {
        PROGRESS_WRITE_INTERVAL
    } else {
        FIRST_PROGRESS_DELAY
    };
    if is_in_progress(after, updates) && (since < interval || !may_write_progress()) {
        let left = interval.saturating_sub(since);
        return Decision::Postpone(if left.is_zero() {
            PROGRESS_RETRY_DELAY
        } else {
            left
        });
    }
    let only_numbers = after.conditions == before.conditions
        && after.phase == before.phase
        && after.observed_generation == before.observed_generation
        && after.catalog_generation == before.catalog_generation;
    if only_numbers && was_written && since < NUMBERS_WRITE_INTERVAL {
        return Decision::Postpone(NUMBERS_WRITE_INTERVAL.saturating_sub(since));
    }
    Decision::Write
}

/// Returns whether a Dataset is not usable yet, with nothing wrong.
fn is_in_progress(after: &DatasetStatus, updates: &[ConditionUpdate]) -> bool {
    let mut missing = updates.iter().filter(|update| update.status == Status::False);
    after.phase == Some(DatasetPhase::Pending) && missing.all(|update| events::is_in_progress(update.reason))
}

fn status(
    dataset: &Dataset,
    before: &DatasetStatus,
    inputs: &StatusInputs<'_>,
    now: &Time,
) -> (DatasetStatus, Vec<ConditionUpdate>) {
    let newest = inputs
        .reports
        .iter()
        .map(|(_, report)| report)
        .max_by_key(|report| report.catalog_generation);
    let newest = newest.filter(|report| report.catalog_generation > 0);
    let mut after = DatasetStatus {
        observed_generation: dataset.metadata.generation,
        pool: inputs.validated.pool.clone(),
        conditions: Vec::new(),
        phase: None,
        // Numbers stay as they were while no worker is connected.
        ..before.clone()
    };
    if let Some(newest) = newest {
        set_numbers(&mut after, newest, inputs.reports);
    }
    after.workers = Some(i32::try_from(inputs.reports.len()).unwrap_or(i32::MAX));
    let has_catalog = after.catalog_generation.is_some();
    let updates = conditions(inputs, newest, has_catalog);
    after.phase = Some(phase(inputs, has_catalog));
    after.conditions = update(&before.conditions, &updates, dataset.metadata.generation, now);
    (after, updates)
}

fn set_numbers(
    status: &mut DatasetStatus,
    newest: &plan::DatasetState,
    reports: &[(String, plan::DatasetState)],
) {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let max = |of: fn(&plan::DatasetState) -> u64| reports.iter().map(|(_, report)| of(report)).max();
    let sum = |of: fn(&plan::DatasetState) -> u64| reports.iter().map(|(_, report)| of(report)).sum::<u64>();
    status.catalog_generation = Some(number(newest.catalog_generation));
    status.files = Some(number(newest.files));
    status.total_size = Some(ByteQuantity(newest.size_bytes));
    let cached = max(|report| report.cached_bytes).unwrap_or(0);
    let cached = cached.min(newest.size_bytes);
    status.cached = Some(ByteQuantity(cached));
    status.cache_capacity = max(|report| report.capacity_bytes).map(ByteQuantity);
    status.cached_percentage = Some(percentage(cached, newest.size_bytes));
    let hits = sum(|report| report.read_local_bytes) + sum(|report| report.read_peer_bytes);
    let all = hits + sum(|report| report.read_origin_bytes);
    if all > 0 {
        status.hit_ratio = Some(percentage(hits, all));
    }
}

fn phase(inputs: &StatusInputs<'_>, has_catalog: bool) -> DatasetPhase {
    let has_problem = !inputs.validated.problems.is_empty()
        || inputs.applied.name_conflict.is_some()
        || source_problem(inputs).is_some()
        || tier_problem(inputs).is_some();
    match (has_catalog, has_problem) {
        (true, false) if !inputs.applied.is_bound => DatasetPhase::Pending,
        (true, false) => DatasetPhase::Bound,
        (true, true) => DatasetPhase::Degraded,
        (false, true) => DatasetPhase::Failed,
        (false, false) => DatasetPhase::Pending,
    }
}

fn conditions(
    inputs: &StatusInputs<'_>,
    newest: Option<&plan::DatasetState>,
    has_catalog: bool,
) -> Vec<ConditionUpdate> {
    let condition = |kind, status, reason, message: &str| ConditionUpdate {
        kind,
        status,
        reason,
        message: message.to_owned(),
    };
    let source = source(inputs, has_catalog);
    let ready = ready(inputs, has_catalog, &source);
    let (status, reason, message) = match has_catalog {
        true => (Status::True, reason::AS_EXPECTED, "the sources were listed"),
        false => (
            Status::False,
            reason::LISTING,
            "the sources have not been listed yet",
        ),
    };
    let catalog = condition(kind::CATALOG_READY, status, reason, message);
    let is_warm = newest.is_some_and(|newest| is_warm(inputs, newest));
    let (status, reason, message) = match is_warm {
        true => (
            Status::True,
            reason::AS_EXPECTED,
            "all files are cached on every worker",
        ),
        false => (Status::False, reason::LOADING, "not all files are cached"),
    };
    let warm = condition(kind::WARM, status, reason, message);
    vec![ready, source, catalog, warm]
}

fn is_warm(inputs: &StatusInputs<'_>, newest: &plan::DatasetState) -> bool {
    let is_complete = |report: &plan::DatasetState| {
        report.catalog_generation >= newest.catalog_generation && report.cached_bytes >= newest.size_bytes
    };
    // Two files may be one object, so that the cached bytes are fewer than those of the files.
    let is_loaded = |load: &Option<plan::LoadState>| {
        load.as_ref()
            .is_some_and(|load| load.finished && load.files_failed == 0 && load.error.is_empty())
    };
    let reports = inputs.reports;
    (!reports.is_empty() && reports.iter().all(|(_, report)| is_complete(report)))
        || (!inputs.load.is_empty() && inputs.load.iter().all(is_loaded))
}

/// Returns the first problem with a source that a worker reports.
fn source_problem<'a>(inputs: &StatusInputs<'a>) -> Option<&'a plan::Problem> {
    let mut problems = inputs.reports.iter().flat_map(|(_, report)| &report.problems);
    problems.find(|problem| problem.kind() != plan::ProblemKind::ProblemTier)
}

/// Returns the first problem with a cache tier that a worker reports, with the name of its node.
fn tier_problem<'a>(inputs: &StatusInputs<'a>) -> Option<(&'a str, &'a plan::Problem)> {
    inputs.reports.iter().find_map(|(node, report)| {
        let mut problems = report.problems.iter();
        let problem = problems.find(|problem| problem.kind() == plan::ProblemKind::ProblemTier)?;
        Some((node.as_str(), problem))
    })
}

fn source(inputs: &StatusInputs<'_>, has_catalog: bool) -> ConditionUpdate {
    let (status, reason, message) = match source_problem(inputs) {
        Some(problem) => {
            let mount = problem.mount.map(|mount| format!("spec.mounts[{mount}]: "));
            (
                Status::False,
                reason_of(problem.kind()),
                format!("{}{}", mount.unwrap_or_default(), problem.message),
            )
        }
        None if has_catalog => (
            Status::True,
            reason::AS_EXPECTED,
            "the sources were listed".to_owned(),
        ),
        None => (
            Status::Unknown,
            reason::LISTING,
            "the sources have not been listed yet".to_owned(),
        ),
    };
    ConditionUpdate {
        kind: kind::SOURCE_REACHABLE,
        status,
        reason,
        message,
    }
}

fn ready(inputs: &StatusInputs<'_>, has_catalog: bool, source: &ConditionUpdate) -> ConditionUpdate {
    let (status, reason, message) = match not_ready(inputs, has_catalog, source) {
        Some((reason, message)) => (Status::False, reason, message),
        None => {
            let (reason, message) = ready_with(inputs);
            (Status::True, reason, message)
        }
    };
    ConditionUpdate {
        kind: kind::READY,
        status,
        reason,
        message,
    }
}

/// Returns why pods cannot use a Dataset, if they cannot.
fn not_ready(
    inputs: &StatusInputs<'_>,
    has_catalog: bool,
    source: &ConditionUpdate,
) -> Option<(&'static str, String)> {
    if let Some(object) = &inputs.applied.name_conflict {
        let message =
            format!("{object} exists and is not managed by Millpond: delete it or rename the Dataset");
        return Some((reason::NAME_TAKEN, message));
    }
    if has_catalog {
        let message = "the volume is being bound to its claim".to_owned();
        return (!inputs.applied.is_bound).then_some((reason::BINDING, message));
    }
    if let Some(problem) = inputs.validated.problems.first() {
        return Some((problem.reason, problem.message.clone()));
    }
    if source.status == Status::False {
        return Some((source.reason, source.message.clone()));
    }
    if let Some((node, problem)) = tier_problem(inputs) {
        return Some((reason_of(problem.kind()), tier_message(node, problem)));
    }
    if inputs.workers == 0 && inputs.startup_grace_over {
        let pool = inputs.validated.pool.as_deref().unwrap_or_default();
        let message = format!("CachePool {pool} has no worker: does its nodeSelector match a node?");
        return Some((reason::NO_WORKERS, message));
    }
    let message = "the sources are being listed for the first time".to_owned();
    Some((reason::LISTING, message))
}

/// Returns reason and message of a Dataset that pods can use. Whatever is wrong besides is in these and in the phase.
fn ready_with(inputs: &StatusInputs<'_>) -> (&'static str, String) {
    if let Some(problem) = inputs.validated.problems.first() {
        let message = format!("ready with the last valid spec: {}", problem.message);
        return (problem.reason, message);
    }
    match tier_problem(inputs) {
        Some((node, problem)) => {
            let message = format!("ready, but {}", tier_message(node, problem));
            (reason_of(problem.kind()), message)
        }
        None => (reason::AS_EXPECTED, "pods can use the Dataset".to_owned()),
    }
}

fn tier_message(node: &str, problem: &plan::Problem) -> String {
    format!(
        "the worker of node {node} cannot use its cache: {}",
        problem.message
    )
}

fn reason_of(kind: plan::ProblemKind) -> &'static str {
    match kind {
        plan::ProblemKind::ProblemOther | plan::ProblemKind::ProblemUnreachable => reason::SOURCE_UNREACHABLE,
        plan::ProblemKind::ProblemAccessDenied => reason::ACCESS_DENIED,
        plan::ProblemKind::ProblemSourceNotFound => reason::SOURCE_NOT_FOUND,
        plan::ProblemKind::ProblemInvalidSource => reason::INVALID_SOURCE,
        plan::ProblemKind::ProblemInvalidGlob => reason::INVALID_GLOB,
        plan::ProblemKind::ProblemTier => reason::TIER_REFUSED,
    }
}

#[cfg(test)]
mod tests;
