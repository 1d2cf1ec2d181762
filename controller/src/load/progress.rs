//! The progress of a run: the sum of what the workers report. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use millpond_api::condition::{ConditionUpdate, Status, kind, reason};
use millpond_api::{ByteQuantity, DataLoadStatus, FailedPath, LoadPhase};
use millpond_wire::plan;

use crate::status::percentage;

/// Failed paths in a status.
const MAX_FAILED_PATHS: usize = 20;

/// Begins a run.
pub(super) fn begin(status: &mut DataLoadStatus, now: Timestamp) {
    *status = DataLoadStatus {
        // The second of its start identifies the run.
        started_at: Timestamp::from_second(now.as_second()).ok().map(Time),
        next_run_at: status.next_run_at.take(),
        conditions: std::mem::take(&mut status.conditions),
        ..DataLoadStatus::default()
    };
}

/// Returns the number of the run that a status is about: the second of its start, 0 before the first.
pub(super) fn run_number(status: &DataLoadStatus) -> u64 {
    let started = status.started_at.as_ref();
    started.map_or(0, |started| u64::try_from(started.0.as_second()).unwrap_or(0))
}

/// Updates a status by the reports of the pool's workers; `None` stands for a worker that has not reported the load yet.
pub(super) fn apply_reports(
    status: &mut DataLoadStatus,
    workers: &[Option<plan::LoadState>],
    run: u64,
    now: Timestamp,
) {
    let states: Vec<_> = workers
        .iter()
        .flatten()
        .filter(|state| state.run == run)
        .collect();
    status.phase = Some(LoadPhase::Loading);
    if states.is_empty() {
        return;
    }
    let sum = |of: fn(&plan::LoadState) -> u64| states.iter().map(|state| of(state)).sum::<u64>();
    let number = |number: u64| Some(i64::try_from(number).unwrap_or(i64::MAX));
    let is_counted = states.iter().all(|state| state.counted || state.finished);
    let (done, total) = (sum(|state| state.bytes_done), sum(|state| state.bytes_total));
    status.files_total = number(sum(|state| state.files_total));
    status.files_done = number(sum(|state| state.files_done));
    status.bytes_total = number(total);
    status.bytes_done = number(done);
    status.files_failed = number(sum(|state| state.files_failed));
    // While files are still being counted, a percentage would go back.
    status.progress = is_counted.then(|| percentage(done, total));
    let seconds = u64::try_from(now.as_second()).unwrap_or(0).saturating_sub(run);
    let rate = sum(|state| state.bytes_fetched) / seconds.max(1);
    status.rate = Some(format!("{}/s", ByteQuantity(rate)));
    status.eta = (is_counted && rate > 0).then(|| duration(total.saturating_sub(done) / rate));
    let failures = states
        .iter()
        .flat_map(|state| &state.failures)
        .map(|failure| FailedPath {
            path: failure.path.clone(),
            reason: failure.reason.clone(),
        });
    let errors = states
        .iter()
        .filter(|state| !state.error.is_empty())
        .map(|state| FailedPath {
            path: "/".to_owned(),
            reason: state.error.clone(),
        });
    status.failed_paths = errors.chain(failures).take(MAX_FAILED_PATHS).collect();
    let all_finished = states.len() == workers.len() && states.iter().all(|state| state.finished);
    if all_finished {
        status.finished_at = Some(Time(now));
        status.eta = None;
        let failed = states
            .iter()
            .any(|state| state.files_failed > 0 || !state.error.is_empty());
        status.phase = Some(if failed {
            LoadPhase::Failed
        } else {
            LoadPhase::Complete
        });
        if !failed {
            status.progress = Some(percentage(1, 1));
        }
    }
}

/// Returns the condition of a load that runs or has run.
pub(super) fn condition(status: &DataLoadStatus) -> ConditionUpdate {
    let (holds, reason, message) = match status.phase {
        Some(LoadPhase::Complete) => (
            Status::True,
            reason::AS_EXPECTED,
            "all files are cached".to_owned(),
        ),
        Some(LoadPhase::Failed) => {
            let first = status.failed_paths.first();
            let first = first
                .map(|failed| format!(": {}: {}", failed.path, failed.reason))
                .unwrap_or_default();
            let count = status.files_failed.unwrap_or(0);
            (
                Status::False,
                reason::FILES_FAILED,
                format!("{count} files could not be fetched{first}"),
            )
        }
        _ => (
            Status::False,
            reason::LOADING,
            "files are being fetched".to_owned(),
        ),
    };
    ConditionUpdate {
        kind: kind::COMPLETE,
        status: holds,
        reason,
        message,
    }
}

/// Returns a length of time with its two largest units.
fn duration(seconds: u64) -> String {
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, _) => format!("{hours}h{minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(done: u64, finished: bool, failed: u64) -> plan::LoadState {
        plan::LoadState {
            run: 100,
            files_total: 10,
            files_done: done,
            bytes_total: 1_000,
            bytes_done: done * 100,
            bytes_fetched: done * 100,
            counted: true,
            finished,
            files_failed: failed,
            ..plan::LoadState::default()
        }
    }

    fn started() -> DataLoadStatus {
        let mut status = DataLoadStatus::default();
        begin(&mut status, Timestamp::from_second(100).unwrap());
        status
    }

    #[test]
    fn the_reports_of_workers_are_summed() {
        let mut status = started();
        let now = Timestamp::from_second(110).unwrap();
        apply_reports(
            &mut status,
            &[Some(state(5, false, 0)), Some(state(10, true, 0))],
            100,
            now,
        );
        assert_eq!(status.progress.as_deref(), Some("75.0%"));
        assert_eq!((status.files_total, status.files_done), (Some(20), Some(15)));
        assert_eq!(
            (status.rate.as_deref(), status.eta.as_deref()),
            (Some("150/s"), Some("3s"))
        );
        assert_eq!(status.phase, Some(LoadPhase::Loading));
        apply_reports(
            &mut status,
            &[Some(state(10, true, 0)), Some(state(10, true, 0))],
            100,
            now,
        );
        assert_eq!(status.phase, Some(LoadPhase::Complete));
        assert_eq!(condition(&status).status, Status::True);
    }

    #[test]
    fn a_worker_without_a_report_keeps_a_run_open_and_another_run_does_not_count() {
        let mut status = started();
        let now = Timestamp::from_second(110).unwrap();
        apply_reports(&mut status, &[Some(state(10, true, 0)), None], 100, now);
        assert_eq!(status.phase, Some(LoadPhase::Loading));
        let mut other = started();
        apply_reports(&mut other, &[Some(state(10, true, 0))], 101, now);
        assert_eq!(other.files_done, None);
    }

    #[test]
    fn the_first_failure_is_in_the_message() {
        let mut status = started();
        let mut failed = state(9, true, 1);
        failed.failures.push(plan::FailedFile {
            path: "a".to_owned(),
            reason: "not found".to_owned(),
        });
        apply_reports(
            &mut status,
            &[Some(failed)],
            100,
            Timestamp::from_second(110).unwrap(),
        );
        assert_eq!(
            condition(&status).message,
            "1 files could not be fetched: a: not found"
        );
    }
}
