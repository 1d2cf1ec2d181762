//! The schedule of a Cron load: the five fields of cron, in UTC.

use chrono::{DateTime, Utc};
use croner::parser::CronParser;
use k8s_openapi::jiff::Timestamp;

/// Returns the first time after `now` that a schedule names.
///
/// # Errors
/// The schedule is invalid: the message of a condition.
pub(super) fn next(schedule: &str, now: Timestamp) -> Result<Timestamp, String> {
    let invalid = |reason: String| {
        format!(
            "spec.schedule: {schedule:?} is not minute, hour, day of month, month, day of week (such as \"0 3 * * *\"): {reason}"
        )
    };
    let cron = CronParser::new()
        .parse(schedule)
        .map_err(|error| invalid(error.to_string()))?;
    let now = DateTime::<Utc>::from_timestamp(now.as_second(), 0)
        .ok_or_else(|| invalid("the clock of the controller is out of range".to_owned()))?;
    let next = cron
        .find_next_occurrence(&now, false)
        .map_err(|error| invalid(error.to_string()))?;
    Timestamp::from_second(next.timestamp()).map_err(|error| invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_run_is_after_now() {
        let now: Timestamp = "2026-11-26T02:59:30Z".parse().unwrap();
        assert_eq!(
            next("0 3 * * *", now).unwrap(),
            "2026-11-26T03:00:00Z".parse().unwrap()
        );
        let at: Timestamp = "2026-11-26T03:00:00Z".parse().unwrap();
        assert_eq!(
            next("0 3 * * *", at).unwrap(),
            "2026-11-27T03:00:00Z".parse().unwrap()
        );
    }

    #[test]
    fn an_invalid_schedule_is_named() {
        let error = next("every night", Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(error.starts_with("spec.schedule: \"every night\""), "{error}");
    }
}
