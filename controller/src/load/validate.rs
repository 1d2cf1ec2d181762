//! Finds what the CEL rules of a load cannot: a missing Dataset, invalid globs, an invalid schedule. Pure.

use globset::GlobBuilder;
use k8s_openapi::jiff::Timestamp;
use millpond_api::condition::reason;
use millpond_api::{DataLoad, LoadPolicy};

use super::dereference::{ReadyDataset, Target};
use super::schedule;

/// A load that can run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Validated<'a> {
    pub(super) dataset: &'a ReadyDataset,
    /// When a Cron load runs after now; `None`: the load runs once.
    pub(super) next_run: Option<Timestamp>,
}

/// Why a load cannot run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) kind: ProblemKind,
    /// One of [`reason`].
    pub(super) reason: &'static str,
    /// Names the field, the value and the fix.
    pub(super) message: String,
}

/// Who can fix a problem, and whether a run that is in progress ends by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProblemKind {
    /// The Dataset does not exist; the load waits for it. A run ends.
    DatasetMissing,
    /// The Dataset is not ready; the load waits for it. A run continues.
    DatasetNotReady,
    /// The spec is invalid; the load fails until it is changed. A run ends.
    InvalidSpec,
}

/// Returns a load that can run after `now`, or why it cannot.
pub(super) fn validate<'a>(
    load: &DataLoad,
    target: &'a Target,
    now: Timestamp,
) -> Result<Validated<'a>, Problem> {
    let name = &load.spec.dataset;
    let problem = |kind, reason, message| Problem {
        kind,
        reason,
        message,
    };
    let dataset = match target {
        Target::Missing => {
            let message =
                format!("spec.dataset: Dataset {name:?} does not exist in this namespace: create it");
            let kind = ProblemKind::DatasetMissing;
            return Err(problem(kind, reason::DATASET_NOT_FOUND, message));
        }
        Target::NotReady => {
            let message = format!("Dataset {name:?} is not ready: see its conditions");
            let kind = ProblemKind::DatasetNotReady;
            return Err(problem(kind, reason::DATASET_NOT_READY, message));
        }
        Target::Ready(dataset) => dataset,
    };
    check_paths(&load.spec.paths)
        .map_err(|message| problem(ProblemKind::InvalidSpec, reason::INVALID_GLOB, message))?;
    let next_run = match load.spec.policy {
        LoadPolicy::Once => None,
        LoadPolicy::Cron => {
            let schedule = load.spec.schedule.as_deref().unwrap_or_default();
            let next = schedule::next(schedule, now);
            let invalid = |message| problem(ProblemKind::InvalidSpec, reason::INVALID_SCHEDULE, message);
            Some(next.map_err(invalid)?)
        }
    };
    Ok(Validated { dataset, next_run })
}

fn check_paths(paths: &[String]) -> Result<(), String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_names_its_field() {
        let ready = Target::Ready(ReadyDataset {
            uid: "d".to_owned(),
            pool: "gpu".to_owned(),
            reports: Vec::new(),
        });
        let now = Timestamp::from_second(100).unwrap();
        let plain = serde_json::json!({"dataset": "d", "paths": ["/a/**"]});
        let glob = serde_json::json!({"dataset": "d", "paths": ["/a", "/a["]});
        let cron = serde_json::json!({"dataset": "d", "policy": "Cron", "schedule": "every night"});
        for (spec, target, kind, reason, start) in [
            (
                &plain,
                &Target::Missing,
                ProblemKind::DatasetMissing,
                "DatasetNotFound",
                "spec.dataset: Dataset \"d\" does not exist",
            ),
            (
                &plain,
                &Target::NotReady,
                ProblemKind::DatasetNotReady,
                "DatasetNotReady",
                "Dataset \"d\" is not ready",
            ),
            (
                &glob,
                &ready,
                ProblemKind::InvalidSpec,
                "InvalidGlob",
                "spec.paths[1]: \"/a[\"",
            ),
            (
                &cron,
                &ready,
                ProblemKind::InvalidSpec,
                "InvalidSchedule",
                "spec.schedule: \"every night\"",
            ),
        ] {
            let problem = validate(&load(spec), target, now).unwrap_err();
            assert_eq!((problem.kind, problem.reason), (kind, reason));
            assert!(problem.message.starts_with(start), "{}", problem.message);
        }
        let valid = load(&plain);
        let validated = validate(&valid, &ready, now).unwrap();
        assert_eq!(validated.next_run, None);
    }

    fn load(spec: &serde_json::Value) -> DataLoad {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "millpond.io/v1alpha1", "kind": "DataLoad", "metadata": {"name": "l"}, "spec": spec
        }))
        .unwrap()
    }
}
