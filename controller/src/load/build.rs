//! Computes the next state of a load: what changes in the plan, and its status. Pure.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use millpond_api::condition::{ConditionUpdate, Status, kind, reason, update};
use millpond_api::{DataLoad, DataLoadStatus, LoadPhase};
use millpond_wire::plan;

use super::progress;
use super::validate::{Problem, ProblemKind, Validated};

/// While a load runs its status is written at most this often.
const PROGRESS_WRITE_INTERVAL: Duration = Duration::from_secs(2);

/// Between two checks of what a load waits for.
const REQUEUE_INTERVAL: Duration = Duration::from_secs(10);

/// The longest and the shortest delay before a waiting Cron load is reconciled again: clocks are corrected, and a delay of
/// zero would be a busy loop.
const MAX_SCHEDULE_DELAY: Duration = Duration::from_secs(600);
const MIN_SCHEDULE_DELAY: Duration = Duration::from_secs(1);

/// What has to be applied and written, and when the load is reconciled again.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prepared {
    pub(super) plan: PlanChange,
    pub(super) status: DataLoadStatus,
    /// The only condition in the status.
    pub(super) condition: ConditionUpdate,
    pub(super) action: Action,
}

/// What happens with the load's entry in the plan.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum PlanChange {
    Put { pool: String, load: plan::Load },
    Remove,
    Unchanged,
}

/// Returns the next state of a load.
pub(super) fn build(
    load: &DataLoad,
    uid: &str,
    validated: Result<Validated<'_>, Problem>,
    now: Timestamp,
) -> Prepared {
    let before = load.status.clone().unwrap_or_default();
    let generation = load.metadata.generation;
    let mut prepared = match validated {
        Ok(validated) => match begin(&before, generation, validated.next_run, now) {
            Begun::Running(status) => run(load, uid, status, &validated, now),
            Begun::Waiting(status, next_run) => wait(status, next_run, now),
            Begun::Finished(status) => Prepared {
                plan: PlanChange::Unchanged,
                condition: progress::condition(&status),
                status,
                action: Action::await_change(),
            },
        },
        Err(problem) => refuse(before.clone(), problem),
    };
    prepared.status.observed_generation = generation;
    prepared.status.conditions = update(
        &before.conditions,
        std::slice::from_ref(&prepared.condition),
        generation,
        &Time(now),
    );
    prepared
}

fn complete(status: Status, reason: &'static str, message: String) -> ConditionUpdate {
    ConditionUpdate {
        kind: kind::COMPLETE,
        status,
        reason,
        message,
    }
}

fn refuse(mut status: DataLoadStatus, problem: Problem) -> Prepared {
    let (phase, plan, action) = match problem.kind {
        ProblemKind::DatasetMissing => (
            LoadPhase::Pending,
            PlanChange::Remove,
            Action::requeue(REQUEUE_INTERVAL),
        ),
        ProblemKind::DatasetNotReady => (
            LoadPhase::Pending,
            PlanChange::Unchanged,
            Action::requeue(REQUEUE_INTERVAL),
        ),
        ProblemKind::InvalidSpec => (LoadPhase::Failed, PlanChange::Remove, Action::await_change()),
    };
    status.phase = Some(phase);
    Prepared {
        plan,
        status,
        condition: complete(Status::False, problem.reason, problem.message),
        action,
    }
}

/// Where a load is in its life, with its status.
enum Begun {
    /// A run is in progress, perhaps since now.
    Running(DataLoadStatus),
    /// A Cron load waits for this time.
    Waiting(DataLoadStatus, Timestamp),
    /// A load that runs once has run, and its spec has not changed since.
    Finished(DataLoadStatus),
}

/// Begins a run where one is due. `next_run` is that of a Cron load.
fn begin(
    before: &DataLoadStatus,
    generation: Option<i64>,
    next_run: Option<Timestamp>,
    now: Timestamp,
) -> Begun {
    let mut status = before.clone();
    let is_finished = before.finished_at.is_some();
    if let Some(next_run) = next_run {
        let is_due = before.next_run_at.as_ref().is_some_and(|due| due.0 <= now);
        let is_running = before.started_at.is_some() && !is_finished;
        if is_due && !is_running {
            progress::begin(&mut status, now);
        }
        status.next_run_at = Some(Time(next_run));
        if !is_due && !is_running {
            return Begun::Waiting(status, next_run);
        }
        return Begun::Running(status);
    }
    if is_finished && before.observed_generation == generation {
        return Begun::Finished(status);
    }
    if is_finished || before.started_at.is_none() {
        progress::begin(&mut status, now);
    }
    Begun::Running(status)
}

fn wait(mut status: DataLoadStatus, next_run: Timestamp, now: Timestamp) -> Prepared {
    status.phase = Some(LoadPhase::Waiting);
    let delay = next_run.duration_since(now).unsigned_abs();
    Prepared {
        plan: PlanChange::Unchanged,
        status,
        condition: complete(
            Status::False,
            reason::SCHEDULED,
            format!("runs next at {next_run}"),
        ),
        action: Action::requeue(delay.clamp(MIN_SCHEDULE_DELAY, MAX_SCHEDULE_DELAY)),
    }
}

fn run(
    load: &DataLoad,
    uid: &str,
    mut status: DataLoadStatus,
    validated: &Validated<'_>,
    now: Timestamp,
) -> Prepared {
    let Validated { dataset, next_run } = validated;
    let run = progress::run_number(&status);
    progress::apply_reports(&mut status, &dataset.reports, run, now);
    let (plan, action) = match (status.finished_at.is_some(), next_run) {
        (true, None) => (PlanChange::Remove, Action::await_change()),
        // Soon, to wait for the schedule.
        (true, Some(_)) => (PlanChange::Remove, Action::requeue(Duration::from_secs(1))),
        (false, _) => {
            let workers = dataset.reports.len().max(1) as u64;
            let limit = load.spec.bandwidth_limit;
            let load = plan::Load {
                uid: uid.to_owned(),
                dataset_uid: dataset.uid.clone(),
                run,
                paths: load.spec.paths.clone(),
                bandwidth_bytes_per_second: limit.map(|limit| (limit.0 / workers).max(1)),
            };
            let pool = dataset.pool.clone();
            (
                PlanChange::Put { pool, load },
                Action::requeue(PROGRESS_WRITE_INTERVAL),
            )
        }
    };
    Prepared {
        plan,
        condition: progress::condition(&status),
        status,
        action,
    }
}

#[cfg(test)]
mod tests {
    use super::super::dereference::ReadyDataset;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn load(spec: serde_json::Value, status: DataLoadStatus) -> DataLoad {
        let mut load: DataLoad = serde_json::from_value(serde_json::json!({
            "apiVersion": "millpond.io/v1alpha1", "kind": "DataLoad",
            "metadata": {"name": "l", "generation": 1}, "spec": spec
        }))
        .unwrap();
        load.status = Some(status);
        load
    }

    fn once() -> serde_json::Value {
        serde_json::json!({"dataset": "d", "bandwidthLimit": "10"})
    }

    fn dataset(reports: Vec<Option<plan::LoadState>>) -> ReadyDataset {
        ReadyDataset {
            uid: "d".to_owned(),
            pool: "gpu".to_owned(),
            reports,
        }
    }

    fn finished(run: u64) -> Option<plan::LoadState> {
        Some(plan::LoadState {
            run,
            finished: true,
            ..plan::LoadState::default()
        })
    }

    fn built(load: &DataLoad, dataset: &ReadyDataset, next_run: Option<i64>, now: i64) -> Prepared {
        let validated = Validated {
            dataset,
            next_run: next_run.map(at),
        };
        build(load, "l", Ok(validated), at(now))
    }

    #[test]
    fn a_problem_decides_phase_plan_and_requeue() {
        let requeue = Action::requeue(REQUEUE_INTERVAL);
        for (kind, phase, plan, action) in [
            (
                ProblemKind::DatasetMissing,
                LoadPhase::Pending,
                PlanChange::Remove,
                requeue.clone(),
            ),
            (
                ProblemKind::DatasetNotReady,
                LoadPhase::Pending,
                PlanChange::Unchanged,
                requeue,
            ),
            (
                ProblemKind::InvalidSpec,
                LoadPhase::Failed,
                PlanChange::Remove,
                Action::await_change(),
            ),
        ] {
            let problem = Problem {
                kind,
                reason: reason::INVALID_GLOB,
                message: "m".to_owned(),
            };
            let load = load(once(), DataLoadStatus::default());
            let prepared = build(&load, "l", Err(problem), at(100));
            assert_eq!((prepared.plan, prepared.action), (plan, action), "{kind:?}");
            assert_eq!(prepared.status.phase, Some(phase));
            assert_eq!(prepared.status.observed_generation, Some(1));
            assert_eq!(prepared.status.conditions[0].reason, "InvalidGlob");
        }
    }

    #[test]
    fn a_load_runs_once_until_its_spec_changes() {
        let idle = dataset(vec![None, None]);
        let prepared = built(&load(once(), DataLoadStatus::default()), &idle, None, 100);
        let PlanChange::Put { pool, load: planned } = &prepared.plan else {
            panic!("it runs: {prepared:?}");
        };
        assert_eq!((pool.as_str(), planned.run), ("gpu", 100));
        // The limit is shared by two workers.
        assert_eq!(planned.bandwidth_bytes_per_second, Some(5));
        // The same run continues at any time.
        let again = built(&load(once(), prepared.status.clone()), &idle, None, 160);
        assert_eq!(again.plan, prepared.plan);
        // It ends with the last worker, and stays finished.
        let done = dataset(vec![finished(100), finished(100)]);
        let ended = built(&load(once(), prepared.status), &done, None, 200);
        assert_eq!(
            (&ended.plan, ended.status.phase),
            (&PlanChange::Remove, Some(LoadPhase::Complete))
        );
        let later = built(&load(once(), ended.status.clone()), &done, None, 300);
        assert_eq!(
            (later.plan, later.action),
            (PlanChange::Unchanged, Action::await_change())
        );
        assert_eq!(later.status, ended.status);
        // Another spec is another run.
        let mut changed = load(once(), ended.status);
        changed.metadata.generation = Some(2);
        let rerun = built(&changed, &done, None, 400);
        assert_eq!(rerun.status.phase, Some(LoadPhase::Loading));
        assert!(matches!(rerun.plan, PlanChange::Put { load, .. } if load.run == 400));
    }

    #[test]
    fn a_cron_load_waits_runs_when_due_and_waits_again() {
        let cron = serde_json::json!({"dataset": "d", "policy": "Cron", "schedule": "0 3 * * *"});
        let idle = dataset(vec![None]);
        let waiting = built(
            &load(cron.clone(), DataLoadStatus::default()),
            &idle,
            Some(1_000),
            100,
        );
        assert_eq!(waiting.plan, PlanChange::Unchanged);
        assert_eq!(waiting.status.phase, Some(LoadPhase::Waiting));
        assert_eq!(waiting.status.conditions[0].reason, "Scheduled");
        assert_eq!(waiting.action, Action::requeue(MAX_SCHEDULE_DELAY));
        let due = built(&load(cron.clone(), waiting.status), &idle, Some(2_000), 1_000);
        assert!(matches!(&due.plan, PlanChange::Put { load, .. } if load.run == 1_000));
        assert_eq!(due.status.next_run_at, Some(Time(at(2_000))));
        let done = dataset(vec![finished(1_000)]);
        let ended = built(&load(cron.clone(), due.status), &done, Some(2_000), 1_100);
        assert_eq!(ended.plan, PlanChange::Remove);
        assert_eq!(ended.status.phase, Some(LoadPhase::Complete));
        let again = built(&load(cron, ended.status), &done, Some(2_000), 1_999);
        assert_eq!(again.status.phase, Some(LoadPhase::Waiting));
        assert_eq!(again.action, Action::requeue(MIN_SCHEDULE_DELAY));
    }
}
