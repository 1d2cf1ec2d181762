//! How far a load is: what the workers say, added up.

use globset::GlobBuilder;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use millpond_api::condition::{ConditionUpdate, Status, kind, reason};
use millpond_api::{ByteQuantity, DataLoadStatus, FailedPath, LoadPhase};
use millpond_wire::plan;

/// Failed paths that the status holds.
const SHOWN_FAILURES: usize = 20;

/// What is wrong with the paths of a load.
pub(super) fn check(paths: &[String]) -> Result<(), String> {
    for (index, path) in paths.iter().enumerate() {
        if let Err(error) = GlobBuilder::new(path).literal_separator(true).build() {
            return Err(format!(
                "spec.paths[{index}]: {path:?} is not a path or a glob: {}",
                error.kind()
            ));
        }
    }
    Ok(())
}

/// Begins a run.
pub(super) fn begin(status: &mut DataLoadStatus, now: Timestamp) {
    *status = DataLoadStatus {
        // A run is known by the second in which it began.
        started_at: Timestamp::from_second(now.as_second()).ok().map(Time),
        next_run_at: status.next_run_at.take(),
        conditions: std::mem::take(&mut status.conditions),
        ..DataLoadStatus::default()
    };
}

/// Takes in what the workers of the pool say; `None` stands for one that has not said anything yet.
pub(super) fn take(
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
    let sum = |of: fn(&plan::LoadState) -> u64| {
        i64::try_from(states.iter().map(|state| of(state)).sum::<u64>()).unwrap_or(i64::MAX)
    };
    let counted = states.iter().all(|state| state.counted || state.finished);
    let (done, total) = (sum(|state| state.bytes_done), sum(|state| state.bytes_total));
    status.files_total = Some(sum(|state| state.files_total));
    status.files_done = Some(sum(|state| state.files_done));
    status.bytes_total = Some(total);
    status.bytes_done = Some(done);
    status.files_failed = Some(sum(|state| state.files_failed));
    // While files are still being counted, a percentage would go back.
    status.progress = counted.then(|| percentage(done, total));
    let fetched = sum(|state| state.bytes_fetched);
    let seconds = status
        .started_at
        .as_ref()
        .map_or(0, |began| now.as_second().saturating_sub(began.0.as_second()));
    let rate = fetched / seconds.max(1);
    status.rate = Some(format!("{}/s", ByteQuantity(u64::try_from(rate).unwrap_or(0))));
    status.eta = (counted && rate > 0).then(|| span(total.saturating_sub(done) / rate));
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
    status.failed_paths = errors.chain(failures).take(SHOWN_FAILURES).collect();
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

/// The condition that follows.
pub(super) fn finding(status: &DataLoadStatus) -> ConditionUpdate {
    let (holds, reason, message) = match status.phase {
        Some(LoadPhase::Complete) => (
            Status::True,
            reason::AS_EXPECTED,
            "everything is there".to_owned(),
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

fn percentage(part: i64, whole: i64) -> String {
    let thousandths = if whole <= 0 {
        1_000
    } else {
        i128::from(part) * 1_000 / i128::from(whole)
    };
    format!("{}.{}%", thousandths / 10, thousandths % 10)
}

/// A time for people: two parts at most.
fn span(seconds: i64) -> String {
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

    fn begun() -> DataLoadStatus {
        let mut status = DataLoadStatus::default();
        begin(&mut status, Timestamp::from_second(100).unwrap());
        status
    }

    #[test]
    fn workers_are_added_up() {
        let mut status = begun();
        let now = Timestamp::from_second(110).unwrap();
        take(
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
        take(
            &mut status,
            &[Some(state(10, true, 0)), Some(state(10, true, 0))],
            100,
            now,
        );
        assert_eq!(status.phase, Some(LoadPhase::Complete));
        assert_eq!(finding(&status).status, Status::True);
    }

    #[test]
    fn a_worker_that_says_nothing_keeps_it_open_and_another_run_does_not_count() {
        let mut status = begun();
        let now = Timestamp::from_second(110).unwrap();
        take(&mut status, &[Some(state(10, true, 0)), None], 100, now);
        assert_eq!(status.phase, Some(LoadPhase::Loading));
        let mut other = begun();
        take(&mut other, &[Some(state(10, true, 0))], 101, now);
        assert_eq!(other.files_done, None);
    }

    #[test]
    fn failures_are_said() {
        let mut status = begun();
        let mut failed = state(9, true, 1);
        failed.failures.push(plan::FailedFile {
            path: "a".to_owned(),
            reason: "gone".to_owned(),
        });
        take(
            &mut status,
            &[Some(failed)],
            100,
            Timestamp::from_second(110).unwrap(),
        );
        assert_eq!(finding(&status).message, "1 files could not be fetched: a: gone");
    }

    #[test]
    fn a_glob_that_is_none_is_named() {
        assert!(check(&["/a/**".to_owned()]).is_ok());
        assert!(
            check(&["/a[".to_owned()])
                .unwrap_err()
                .starts_with("spec.paths[0]: \"/a[\"")
        );
    }
}
