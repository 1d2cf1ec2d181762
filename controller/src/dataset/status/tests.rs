//! Table tests of the status and of when it is written.

use super::super::validate::Problem;
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
        problems: Vec::new(),
    }
}

/// Inputs of a Dataset that has no problem, with one worker.
fn inputs<'a>(validated: &'a Validated, reports: &'a [(String, plan::DatasetState)]) -> StatusInputs<'a> {
    StatusInputs {
        validated,
        applied: Applied {
            name_conflict: None,
            is_bound: true,
        },
        reports,
        startup_grace_over: true,
        load: Vec::new(),
        workers: 1,
    }
}

fn computed(inputs: &StatusInputs<'_>) -> (DatasetStatus, Vec<ConditionUpdate>) {
    let now = Time(k8s_openapi::jiff::Timestamp::from_second(1).unwrap());
    status(&dataset(), &DatasetStatus::default(), inputs, &now)
}

fn condition(updates: &[ConditionUpdate], kind: &str) -> (Status, &'static str, String) {
    let update = updates.iter().find(|update| update.kind == kind).unwrap();
    (update.status, update.reason, update.message.clone())
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

fn with_problem(
    (node, mut state): (String, plan::DatasetState),
    kind: plan::ProblemKind,
    mount: Option<u32>,
) -> (String, plan::DatasetState) {
    state.problems.push(plan::Problem {
        kind: kind.into(),
        mount,
        message: "no".to_owned(),
    });
    (node, state)
}

#[test]
fn a_dataset_is_pending_bound_degraded_or_failed() {
    use plan::ProblemKind::{ProblemAccessDenied, ProblemTier};
    let validated = validated();
    let denied = |generation| with_problem(report(generation, 0), ProblemAccessDenied, Some(0));
    let refused = |generation| with_problem(report(generation, 0), ProblemTier, None);
    for (reports, phase, ready, reason, source) in [
        (
            vec![],
            DatasetPhase::Pending,
            Status::False,
            "Listing",
            Status::Unknown,
        ),
        (
            vec![report(0, 0)],
            DatasetPhase::Pending,
            Status::False,
            "Listing",
            Status::Unknown,
        ),
        (
            vec![report(2, 425)],
            DatasetPhase::Bound,
            Status::True,
            "AsExpected",
            Status::True,
        ),
        (
            vec![denied(0)],
            DatasetPhase::Failed,
            Status::False,
            "AccessDenied",
            Status::False,
        ),
        (
            vec![denied(1)],
            DatasetPhase::Degraded,
            Status::True,
            "AsExpected",
            Status::False,
        ),
        (
            vec![refused(0)],
            DatasetPhase::Failed,
            Status::False,
            "TierRefused",
            Status::Unknown,
        ),
        (
            vec![refused(1)],
            DatasetPhase::Degraded,
            Status::True,
            "TierRefused",
            Status::True,
        ),
    ] {
        let (status, updates) = computed(&inputs(&validated, &reports));
        assert_eq!(status.phase, Some(phase), "{reports:?}");
        let found = condition(&updates, kind::READY);
        assert_eq!((found.0, found.1), (ready, reason), "{reports:?}");
        assert_eq!(
            condition(&updates, kind::SOURCE_REACHABLE).0,
            source,
            "{reports:?}"
        );
    }
}

#[test]
fn a_problem_names_its_mount_or_its_node() {
    use plan::ProblemKind::{ProblemAccessDenied, ProblemTier};
    let validated = validated();
    let reports = [with_problem(
        with_problem(report(0, 0), ProblemTier, None),
        ProblemAccessDenied,
        Some(2),
    )];
    let (_, updates) = computed(&inputs(&validated, &reports));
    assert_eq!(
        condition(&updates, kind::SOURCE_REACHABLE).2,
        "spec.mounts[2]: no"
    );
    let reports = [with_problem(report(1, 0), ProblemTier, None)];
    let (_, updates) = computed(&inputs(&validated, &reports));
    assert_eq!(
        condition(&updates, kind::READY).2,
        "ready, but the worker of node n1 cannot use its cache: no"
    );
}

#[test]
fn without_a_worker_a_pool_is_named_once_all_had_time_to_connect() {
    let validated = validated();
    let mut inputs = inputs(&validated, &[]);
    inputs.workers = 0;
    assert_eq!(condition(&computed(&inputs).1, kind::READY).1, "NoWorkers");
    inputs.startup_grace_over = false;
    assert_eq!(condition(&computed(&inputs).1, kind::READY).1, "Listing");
}

#[test]
fn a_mistake_fails_a_new_dataset_and_degrades_a_readable_one() {
    let mut validated = validated();
    validated.problems.push(Problem {
        reason: reason::INVALID_GLOB,
        message: "spec.mounts[0].include: bad".to_owned(),
    });
    for (reports, phase, status, message) in [
        (
            vec![],
            DatasetPhase::Failed,
            Status::False,
            "spec.mounts[0].include: bad",
        ),
        (
            vec![report(1, 0)],
            DatasetPhase::Degraded,
            Status::True,
            "ready with the last valid spec: spec.mounts[0].include: bad",
        ),
    ] {
        let (found, updates) = computed(&inputs(&validated, &reports));
        assert_eq!(found.phase, Some(phase));
        let ready = condition(&updates, kind::READY);
        assert_eq!(ready, (status, "InvalidGlob", message.to_owned()));
    }
}

#[test]
fn a_taken_name_and_an_unbound_claim_are_not_ready() {
    let validated = validated();
    let reports = [report(1, 0)];
    let mut inputs = inputs(&validated, &reports);
    inputs.applied.is_bound = false;
    let (found, updates) = computed(&inputs);
    assert_eq!(found.phase, Some(DatasetPhase::Pending));
    assert_eq!(condition(&updates, kind::READY).1, "Binding");
    inputs.applied.name_conflict = Some("PersistentVolumeClaim d".to_owned());
    let (found, updates) = computed(&inputs);
    assert_eq!(found.phase, Some(DatasetPhase::Degraded));
    assert_eq!(
        condition(&updates, kind::READY).2,
        "PersistentVolumeClaim d exists and is not managed by Millpond: delete it or rename the Dataset"
    );
}

#[test]
fn numbers_are_those_of_the_newest_catalog_and_stay_without_workers() {
    let validated = validated();
    let mut reports = [report(2, 425), report(1, 300)];
    reports[0].1.read_local_bytes = 3;
    reports[1].1.read_origin_bytes = 1;
    let (status, _) = computed(&inputs(&validated, &reports));
    assert_eq!(status.catalog_generation, Some(2));
    assert_eq!(status.cached_percentage.as_deref(), Some("42.5%"));
    assert_eq!(status.hit_ratio.as_deref(), Some("75.0%"));
    assert_eq!((status.workers, status.observed_generation), (Some(2), Some(3)));
    let now = Time(k8s_openapi::jiff::Timestamp::from_second(2).unwrap());
    let (after, _) = super::status(&dataset(), &status, &inputs(&validated, &[]), &now);
    assert_eq!(after.cached_percentage, status.cached_percentage);
    assert_eq!((after.workers, after.phase), (Some(0), status.phase));
}

#[test]
fn a_dataset_is_warm_when_every_worker_has_all_of_it() {
    let validated = validated();
    let load = |finished, files_failed| {
        Some(plan::LoadState {
            finished,
            files_failed,
            ..plan::LoadState::default()
        })
    };
    for (reports, loads, is_warm) in [
        (vec![report(2, 1_000)], vec![], true),
        (vec![report(2, 1_000), report(1, 1_000)], vec![], false),
        (vec![report(2, 1_000), report(2, 999)], vec![], false),
        (vec![report(2, 999)], vec![load(true, 0)], true),
        (vec![report(2, 999)], vec![load(true, 0), load(false, 0)], false),
        (vec![report(2, 999)], vec![load(true, 0), None], false),
        (vec![report(2, 999)], vec![load(true, 1)], false),
    ] {
        let mut inputs = inputs(&validated, &reports);
        inputs.load = loads;
        let warm = condition(&computed(&inputs).1, kind::WARM).0;
        assert_eq!(warm == Status::True, is_warm, "{reports:?} {:?}", inputs.load);
    }
}

#[test]
fn progress_and_numbers_are_written_seldom_and_everything_else_immediately() {
    let validated = validated();
    let none = DatasetStatus::default();
    let (listing, in_progress) = computed(&inputs(&validated, &[]));
    let reports = [report(1, 10)];
    let (bound, usable) = computed(&inputs(&validated, &reports));
    let mut more = bound.clone();
    more.cached = Some(ByteQuantity(20));
    let seconds = Duration::from_secs;
    for (before, after, updates, was_written, since, may_write, expected) in [
        (
            &bound,
            &bound,
            &usable,
            true,
            seconds(60),
            true,
            Decision::Unchanged,
        ),
        // In progress: not in the first 2 s, then every 10 s, if the limit for all allows it.
        (
            &none,
            &listing,
            &in_progress,
            false,
            seconds(0),
            true,
            Decision::Postpone(seconds(2)),
        ),
        (
            &none,
            &listing,
            &in_progress,
            false,
            seconds(2),
            true,
            Decision::Write,
        ),
        (
            &none,
            &listing,
            &in_progress,
            false,
            seconds(2),
            false,
            Decision::Postpone(seconds(5)),
        ),
        (
            &none,
            &listing,
            &in_progress,
            true,
            seconds(4),
            true,
            Decision::Postpone(seconds(6)),
        ),
        // Usable: immediately.
        (
            &listing,
            &bound,
            &usable,
            false,
            seconds(0),
            false,
            Decision::Write,
        ),
        (
            &listing,
            &bound,
            &usable,
            true,
            seconds(0),
            false,
            Decision::Write,
        ),
        // Numbers alone: every 5 s.
        (
            &bound,
            &more,
            &usable,
            true,
            seconds(1),
            false,
            Decision::Postpone(seconds(4)),
        ),
        (&bound, &more, &usable, true, seconds(5), false, Decision::Write),
    ] {
        let decision = decide(before, after, updates, was_written, since, || may_write);
        assert_eq!(decision, expected, "{was_written} {since:?} {may_write}");
    }
}
