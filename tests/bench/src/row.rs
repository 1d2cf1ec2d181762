//! One line of the result: what was measured, beside its goal.

use std::fmt;

use anyhow::{Context, Result};
use millpond_measure::Measured;
use millpond_measure::statistics::{extremes, median};
use serde::Serialize;

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// Both ends included.
    Between(f64, f64),
}

impl Goal {
    fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
            Self::Between(least, most) => (least..=most).contains(&value),
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, ">= {least}"),
            Self::AtMost(most) => write!(f, "<= {most}"),
            Self::Between(least, most) => write!(f, "{least} to {most}"),
        }
    }
}

/// In what a figure is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// Of one work to another, or a rate of hits.
    Ratio,
    Seconds,
    Milliseconds,
    Microseconds,
    Mebibytes,
    Bytes,
    /// Things counted.
    Count,
}

impl Unit {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Ratio | Self::Count => "",
            Self::Seconds => " s",
            Self::Milliseconds => " ms",
            Self::Microseconds => " us",
            Self::Mebibytes => " MiB",
            Self::Bytes => " B",
        }
    }

    const fn decimals(self) -> usize {
        match self {
            Self::Ratio => 3,
            Self::Seconds => 2,
            Self::Milliseconds | Self::Microseconds | Self::Mebibytes | Self::Bytes | Self::Count => 1,
        }
    }

    pub(crate) fn show(self, value: f64) -> String {
        format!("{value:.*}{}", self.decimals(), self.suffix())
    }
}

/// A figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: Unit,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) rounds: usize,
    /// `None`: it is only shown.
    pub(crate) goal: Option<Goal>,
    /// Whether the median meets the goal.
    pub(crate) met: Option<bool>,
    /// What it is made of.
    pub(crate) note: String,
}

impl Row {
    /// A figure of these values, one a round.
    pub(crate) fn of(what: impl Into<String>, unit: Unit, values: &[f64]) -> Result<Self> {
        let what = what.into();
        let found = median(values).zip(extremes(values));
        let (median, (min, max)) = found.with_context(|| format!("nothing was measured of: {what}"))?;
        Ok(Self {
            what,
            unit,
            median,
            min,
            max,
            rounds: values.len(),
            goal: None,
            met: None,
            note: String::new(),
        })
    }

    /// The ratio of the second work's speed to the first's; `note` gets what a second of each is worth.
    pub(crate) fn ratio(what: impl Into<String>, measured: &[Measured], rate: Rate) -> Result<Self> {
        let what = what.into();
        let [base, ours] = measured else {
            anyhow::bail!("{what}: two works were measured as {}", measured.len());
        };
        Ok(Self {
            what,
            unit: Unit::Ratio,
            median: ours.ratio,
            min: ours.ratio_range.0,
            max: ours.ratio_range.1,
            rounds: ours.times.len(),
            goal: None,
            met: None,
            note: format!(
                "{} to {}'s {}",
                rate.show(ours.median_seconds),
                base.name,
                rate.show(base.median_seconds)
            ),
        })
    }

    pub(crate) fn with_goal(mut self, goal: Goal) -> Self {
        self.met = Some(goal.is_met_by(self.median));
        self.goal = Some(goal);
        self
    }

    pub(crate) fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// What a work of some seconds did.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rate {
    Bytes(u64),
    Files(u64),
    Reads(u64),
}

impl Rate {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    fn show(self, seconds: f64) -> String {
        let per_second = |amount: u64| amount as f64 / seconds.max(f64::EPSILON);
        match self {
            Self::Bytes(bytes) => format!("{:.0} MB/s", per_second(bytes) / 1e6),
            Self::Files(files) => format!("{:.0} files/s", per_second(files)),
            Self::Reads(reads) => format!("{:.0} reads/s", per_second(reads)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_goal_is_met_by_the_median_alone() {
        let row = Row::of("x", Unit::Ratio, &[0.5, 0.98, 1.2]).expect("three values");
        assert_eq!((row.median, row.min, row.max, row.rounds), (0.98, 0.5, 1.2, 3));
        assert_eq!(row.met, None);
        assert_eq!(row.clone().with_goal(Goal::AtLeast(0.97)).met, Some(true));
        assert_eq!(row.clone().with_goal(Goal::AtMost(0.97)).met, Some(false));
        assert_eq!(row.clone().with_goal(Goal::Between(0.98, 1.0)).met, Some(true));
        assert_eq!(row.with_goal(Goal::Between(0.0, 0.97)).met, Some(false));
    }

    #[test]
    fn nothing_measured_is_an_error() {
        assert!(Row::of("x", Unit::Seconds, &[]).is_err());
    }

    #[test]
    fn a_ratio_is_of_speeds() {
        let seconds = |list: [u64; 2]| list.map(Duration::from_secs).to_vec();
        let measured = millpond_measure::evaluate(vec![
            ("native".to_owned(), seconds([1, 3])),
            ("Millpond".to_owned(), seconds([2, 3])),
        ]);
        let row = Row::ratio("x", &measured, Rate::Bytes(5_000_000)).expect("two works");
        assert_eq!((row.median, row.min, row.max), (0.75, 0.5, 1.0));
        assert_eq!(row.note, "2 MB/s to native's 2 MB/s");
    }
}
