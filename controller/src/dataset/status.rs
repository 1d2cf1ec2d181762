//! How a Dataset is: from what was found wrong, what was applied and what the nodes report.
//!
//! Written only when it differs; where only numbers differ, not more often than every [`NUMBERS_WRITE_INTERVAL`]; and where all is on its way,
//! not before [`FIRST_PROGRESS_DELAY`], since many Datasets are Bound before then, and from then on every [`PROGRESS_WRITE_INTERVAL`], as long as there are
//! not too many of them: what holds the API server up is then not said of each.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::DefaultClock;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use millpond_api::condition::{ConditionUpdate, Status, kind, reason, update};
use millpond_api::{ByteQuantity, Dataset, DatasetPhase, DatasetStatus};
use millpond_wire::plan;
use tokio::time::Instant;

use super::validate::Validated;
use super::{Context, Error};
use crate::events;

/// Time for every node to connect, before what is missing means anything.
pub(crate) const STARTUP_GRACE: Duration = Duration::from_secs(20);

const NUMBERS_WRITE_INTERVAL: Duration = Duration::from_secs(5);

const FIRST_PROGRESS_DELAY: Duration = Duration::from_secs(2);

const PROGRESS_WRITE_INTERVAL: Duration = Duration::from_secs(10);

/// How many that are on their way may be told of in a second, all Datasets together.
const PROGRESS_WRITES_PER_SECOND: u32 = 5;

/// Another try to tell of one that could not be told of.
const PROGRESS_RETRY_DELAY: Duration = Duration::from_secs(5);

/// The limit on statuses that say no more than that all is on its way.
pub(crate) struct ProgressLimiter(RateLimiter<NotKeyed, InMemoryState, DefaultClock>);

impl ProgressLimiter {
    pub(crate) fn new() -> Self {
        let told = NonZeroU32::new(PROGRESS_WRITES_PER_SECOND).unwrap_or(NonZeroU32::MIN);
        Self(RateLimiter::direct(Quota::per_second(told)))
    }

    fn may_be_told(&self) -> bool {
        self.0.check().is_ok()
    }
}

/// The last status that was written.
#[derive(Clone, Debug)]
pub(crate) struct LastWrittenStatus {
    at: Instant,
    /// The Dataset's version by it. What the watch has shown may be an older one.
    version: u64,
    status: DatasetStatus,
}

/// What has come of a status.
pub(super) enum Outcome {
    /// All is well.
    Well,
    /// Something is missing or wrong.
    Unwell,
    /// It is to be looked at again so soon: what it is then is written.
    Awaited(Duration),
}

/// Everything that a status follows from.
pub(super) struct StatusInputs<'a> {
    pub(super) validated: &'a Validated,
    /// Names that are somebody else's.
    pub(super) taken: Vec<String>,
    pub(super) reports: &'a [(String, plan::DatasetState)],
    /// Whether missing reports mean something.
    pub(super) is_settled: bool,
    /// What workers say of the Dataset's own load.
    pub(super) load: Vec<Option<plan::LoadState>>,
    /// Whether the claim is bound.
    pub(super) is_bound: bool,
    /// Workers that the pool is to have.
    pub(super) workers: usize,
}

/// Writes the status, where there is news.
pub(super) async fn write(
    dataset: &Dataset,
    uid: &str,
    findings: &StatusInputs<'_>,
    context: &Context,
) -> Result<Outcome, Error> {
    let known = context.written.lock().get(uid).cloned();
    let known = known.unwrap_or_else(|| LastWrittenStatus {
        at: Instant::now(),
        version: 0,
        status: DatasetStatus::default(),
    });
    let before = if version(dataset) < known.version {
        known.status.clone()
    } else {
        dataset.status.clone().unwrap_or_default()
    };
    let now = Time(k8s_openapi::jiff::Timestamp::now());
    let (after, found) = status(dataset, &before, findings, &now);
    let is_well = found
        .iter()
        .all(|finding| finding.status != Status::False || finding.kind == kind::WARM);
    let outcome = if is_well { Outcome::Well } else { Outcome::Unwell };
    if after == before {
        return Ok(outcome);
    }
    let since = known.at.elapsed();
    let pause = if known.version > 0 {
        PROGRESS_WRITE_INTERVAL
    } else {
        FIRST_PROGRESS_DELAY
    };
    if is_on_its_way(&after, &found) && (since < pause || !context.progress.may_be_told()) {
        context.written.lock().entry(uid.to_owned()).or_insert(known);
        let left = pause.saturating_sub(since);
        return Ok(Outcome::Awaited(if left.is_zero() {
            PROGRESS_RETRY_DELAY
        } else {
            left
        }));
    }
    let only_numbers = after.conditions == before.conditions
        && after.phase == before.phase
        && after.observed_generation == before.observed_generation
        && after.catalog_generation == before.catalog_generation;
    if only_numbers && known.version > 0 && since < NUMBERS_WRITE_INTERVAL {
        return Ok(Outcome::Awaited(NUMBERS_WRITE_INTERVAL.saturating_sub(since)));
    }
    let namespace = dataset.namespace().ok_or(Error::Incomplete("namespace"))?;
    let api: Api<Dataset> = Api::namespaced(context.cluster.client.clone(), &namespace);
    let patch = serde_json::json!({
        "apiVersion": "millpond.io/v1alpha1", "kind": "Dataset", "metadata": {"name": dataset.name_any()}, "status": after
    });
    let params = PatchParams::apply(millpond_api::names::MANAGER).force();
    let written = api
        .patch_status(&dataset.name_any(), &params, &Patch::Apply(patch))
        .await
        .map_err(Error::api("write the status"))?;
    let written = LastWrittenStatus {
        at: Instant::now(),
        version: version(&written),
        status: after,
    };
    context.written.lock().insert(uid.to_owned(), written);
    events::publish_condition_events(&context.recorder, dataset, &before.conditions, &found).await;
    Ok(outcome)
}

/// Versions of one object grow.
fn version(dataset: &Dataset) -> u64 {
    let version = dataset.metadata.resource_version.as_deref();
    version.and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// Whether it is not usable yet, with nothing wrong.
fn is_on_its_way(after: &DatasetStatus, found: &[ConditionUpdate]) -> bool {
    let mut missing = found.iter().filter(|finding| finding.status == Status::False);
    after.phase == Some(DatasetPhase::Pending)
        && missing.all(|finding| events::is_in_progress(finding.reason))
}

fn status(
    dataset: &Dataset,
    before: &DatasetStatus,
    findings: &StatusInputs<'_>,
    now: &Time,
) -> (DatasetStatus, Vec<ConditionUpdate>) {
    let newest = findings
        .reports
        .iter()
        .map(|(_, report)| report)
        .max_by_key(|report| report.catalog_generation);
    let newest = newest.filter(|report| report.catalog_generation > 0);
    let mut after = DatasetStatus {
        observed_generation: dataset.metadata.generation,
        pool: findings.validated.pool.clone(),
        // What is known stays known while workers are away.
        conditions: Vec::new(),
        phase: None,
        ..before.clone()
    };
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    if let Some(newest) = newest {
        after.catalog_generation = Some(number(newest.catalog_generation));
        after.files = Some(number(newest.files));
        after.total_size = Some(ByteQuantity(newest.size_bytes));
        let most =
            |of: fn(&plan::DatasetState) -> u64| findings.reports.iter().map(|(_, report)| of(report)).max();
        let cached = most(|report| report.cached_bytes)
            .unwrap_or(0)
            .min(newest.size_bytes);
        after.cached = Some(ByteQuantity(cached));
        after.cache_capacity = most(|report| report.capacity_bytes).map(ByteQuantity);
        after.cached_percentage = Some(percentage(cached, newest.size_bytes));
        let sum = |of: fn(&plan::DatasetState) -> u64| {
            findings.reports.iter().map(|(_, report)| of(report)).sum::<u64>()
        };
        let hits = sum(|report| report.read_local_bytes) + sum(|report| report.read_peer_bytes);
        let all = hits + sum(|report| report.read_origin_bytes);
        after.hit_ratio = (all > 0).then(|| percentage(hits, all)).or(after.hit_ratio);
    }
    after.workers = Some(i32::try_from(findings.reports.len()).unwrap_or(i32::MAX));
    let has_catalog = after.catalog_generation.is_some();
    let found = conditions(findings, newest, has_catalog);
    let is_false = |kind: &str| {
        found
            .iter()
            .any(|finding| finding.kind == kind && finding.status == Status::False)
    };
    let users = !findings.validated.problems.is_empty() || !findings.taken.is_empty();
    after.phase = Some(match (has_catalog, users || is_false(kind::SOURCE_REACHABLE)) {
        (true, false) if !findings.is_bound => DatasetPhase::Pending,
        (true, false) => DatasetPhase::Bound,
        (true, _) => DatasetPhase::Degraded,
        (false, true) => DatasetPhase::Failed,
        (false, false) => DatasetPhase::Pending,
    });
    after.conditions = update(&before.conditions, &found, dataset.metadata.generation, now);
    (after, found)
}

fn conditions(
    findings: &StatusInputs<'_>,
    newest: Option<&plan::DatasetState>,
    has_catalog: bool,
) -> Vec<ConditionUpdate> {
    let finding = |kind, status, reason, message: String| ConditionUpdate {
        kind,
        status,
        reason,
        message,
    };
    let source = source(findings, has_catalog);
    let ready = ready(findings, has_catalog, &source);
    let catalog = match has_catalog {
        true => finding(
            kind::CATALOG_READY,
            Status::True,
            reason::AS_EXPECTED,
            "there is a catalog".to_owned(),
        ),
        false => finding(
            kind::CATALOG_READY,
            Status::False,
            reason::LISTING,
            "the sources have not been listed yet".to_owned(),
        ),
    };
    let warm = match newest {
        Some(newest) if is_warm(findings, newest) => finding(
            kind::WARM,
            Status::True,
            reason::AS_EXPECTED,
            "every worker has everything".to_owned(),
        ),
        _ => finding(
            kind::WARM,
            Status::False,
            reason::LOADING,
            "not everything is in the pool".to_owned(),
        ),
    };
    vec![ready, source, catalog, warm]
}

fn is_warm(findings: &StatusInputs<'_>, newest: &plan::DatasetState) -> bool {
    let whole = |report: &plan::DatasetState| {
        report.catalog_generation >= newest.catalog_generation && report.cached_bytes >= newest.size_bytes
    };
    // Two files may be one object, so that the bytes are less than the files'.
    let loaded = |load: &Option<plan::LoadState>| {
        load.as_ref()
            .is_some_and(|load| load.finished && load.files_failed == 0 && load.error.is_empty())
    };
    let reports = findings.reports;
    (!reports.is_empty() && reports.iter().all(|(_, report)| whole(report)))
        || (!findings.load.is_empty() && findings.load.iter().all(loaded))
}

/// The last contact with the sources.
fn source(findings: &StatusInputs<'_>, has_catalog: bool) -> ConditionUpdate {
    let mut problems = findings.reports.iter().flat_map(|(_, report)| &report.problems);
    let (status, reason, message) = match problems.next() {
        Some(problem) => {
            let field = problem
                .mount
                .map(|mount| format!("spec.mounts[{mount}]: "))
                .unwrap_or_default();
            (
                Status::False,
                reason_of(problem.kind()),
                format!("{field}{}", problem.message),
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

fn ready(findings: &StatusInputs<'_>, has_catalog: bool, source: &ConditionUpdate) -> ConditionUpdate {
    let no = |reason, message: String| ConditionUpdate {
        kind: kind::READY,
        status: Status::False,
        reason,
        message,
    };
    if let Some(taken) = findings.taken.first() {
        let message =
            format!("{taken} belongs to somebody else: delete it, or give the Dataset another name");
        return no(reason::NAME_TAKEN, message);
    }
    if !has_catalog {
        if let Some(problem) = findings.validated.problems.first() {
            return no(problem.reason, problem.message.clone());
        }
        if source.status == Status::False {
            return no(source.reason, source.message.clone());
        }
        if findings.workers == 0 && findings.is_settled {
            let pool = findings.validated.pool.as_deref().unwrap_or_default();
            let message = format!("CachePool {pool} has no worker: does its nodeSelector match a node?");
            return no(reason::NO_WORKERS, message);
        }
        return no(
            reason::LISTING,
            "the sources are being listed for the first time".to_owned(),
        );
    }
    if !findings.is_bound {
        return no(
            reason::BINDING,
            "the volume is being bound to its claim".to_owned(),
        );
    }
    // It can be read, so it is ready; what is wrong beside is said by the phase and the message.
    let message = match findings.validated.problems.first() {
        Some(problem) => format!("pods can use it as it was: {}", problem.message),
        None => "pods can use it".to_owned(),
    };
    ConditionUpdate {
        kind: kind::READY,
        status: Status::True,
        reason: findings
            .validated
            .problems
            .first()
            .map_or(reason::AS_EXPECTED, |problem| problem.reason),
        message,
    }
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

/// For example `42.0%`; nothing of nothing is all of it.
fn percentage(part: u64, whole: u64) -> String {
    let thousandths = match whole {
        0 => 1_000,
        whole => u128::from(part) * 1_000 / u128::from(whole),
    };
    format!("{}.{}%", thousandths / 10, thousandths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset() -> Dataset {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "millpond.io/v1alpha1", "kind": "Dataset", "metadata": {"name": "d", "generation": 3},
            "spec": {"mounts": [{"mountPoint": "s3://b"}]}
        }))
        .unwrap()
    }

    fn validated() -> Validated {
        Validated {
            pool: Some("gpu".to_owned()),
            capacity_bytes: 100,
            problems: Vec::new(),
        }
    }

    fn shown(reports: &[(String, plan::DatasetState)], workers: usize) -> (DatasetPhase, String, String) {
        let validated = validated();
        let findings = StatusInputs {
            validated: &validated,
            taken: Vec::new(),
            reports,
            is_settled: true,
            load: Vec::new(),
            is_bound: true,
            workers,
        };
        let now = Time(k8s_openapi::jiff::Timestamp::from_second(1).unwrap());
        let (status, found) = status(&dataset(), &DatasetStatus::default(), &findings, &now);
        let ready = found.iter().find(|finding| finding.kind == kind::READY).unwrap();
        (
            status.phase.unwrap(),
            ready.reason.to_owned(),
            status.cached_percentage.unwrap_or_default(),
        )
    }

    fn report(generation: u64, cached: u64) -> (String, plan::DatasetState) {
        let state = plan::DatasetState {
            catalog_generation: generation,
            size_bytes: 1_000,
            cached_bytes: cached,
            ..plan::DatasetState::default()
        };
        ("n1".to_owned(), state)
    }

    #[test]
    fn a_dataset_is_pending_bound_degraded_or_failed() {
        assert_eq!(
            shown(&[], 1),
            (DatasetPhase::Pending, "Listing".to_owned(), String::new())
        );
        assert_eq!(shown(&[], 0).1, "NoWorkers");
        assert_eq!(
            shown(&[report(2, 425)], 1),
            (DatasetPhase::Bound, "AsExpected".to_owned(), "42.5%".to_owned())
        );
        let mut denied = report(0, 0);
        denied.1.problems.push(plan::Problem {
            kind: plan::ProblemKind::ProblemAccessDenied.into(),
            mount: Some(0),
            message: "no".to_owned(),
        });
        assert_eq!(
            shown(&[denied.clone()], 1),
            (DatasetPhase::Failed, "AccessDenied".to_owned(), String::new())
        );
        denied.1.catalog_generation = 1;
        assert_eq!(shown(&[denied], 1).0, DatasetPhase::Degraded);
    }

    #[test]
    fn percentages_have_one_digit() {
        assert_eq!(percentage(0, 0), "100.0%");
        assert_eq!(percentage(1, 3), "33.3%");
        assert_eq!(percentage(u64::MAX, u64::MAX), "100.0%");
    }
}
