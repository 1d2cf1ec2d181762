//! Workloads that are run alternately and compared.

use std::fmt;
use std::time::{Duration, Instant};

use crate::statistics::{extremes, median};

/// A workload: an unmeasured preparation before each run, and the measured run.
pub struct Work<'a> {
    name: String,
    prepare: Box<dyn FnMut() -> anyhow::Result<()> + 'a>,
    run: Box<dyn FnMut() -> anyhow::Result<()> + 'a>,
}

impl fmt::Debug for Work<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Workloads that do the same in different ways; the first is the baseline.
#[derive(Debug, Default)]
pub struct Comparison<'a> {
    works: Vec<Work<'a>>,
}

/// Times of one workload.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Name of the workload.
    pub name: String,
    /// Times, in the order of the rounds.
    pub times: Vec<Duration>,
    /// Median time in seconds.
    pub median_seconds: f64,
    /// Median over the rounds of: the baseline's time in the round / this one's. Above 1: faster than the baseline.
    pub ratio: f64,
    /// Smallest and largest of those ratios.
    pub ratio_range: (f64, f64),
}

impl<'a> Comparison<'a> {
    /// Adds a workload without preparation.
    #[must_use]
    pub fn with(self, name: impl Into<String>, run: impl FnMut() -> anyhow::Result<()> + 'a) -> Self {
        self.with_prepared(name, || Ok(()), run)
    }

    /// Adds a workload with a preparation before each run.
    #[must_use]
    pub fn with_prepared(
        mut self,
        name: impl Into<String>,
        prepare: impl FnMut() -> anyhow::Result<()> + 'a,
        run: impl FnMut() -> anyhow::Result<()> + 'a,
    ) -> Self {
        self.works.push(Work {
            name: name.into(),
            prepare: Box::new(prepare),
            run: Box::new(run),
        });
        self
    }

    /// Runs all workloads alternately, `rounds` times (at least once), every second round in reverse, so that none always
    /// follows the same other.
    ///
    /// # Errors
    /// If a workload fails.
    pub fn run(mut self, rounds: usize) -> anyhow::Result<Vec<Measured>> {
        let mut times = vec![Vec::new(); self.works.len()];
        for round in 0..rounds.max(1) {
            let mut turns: Vec<_> = self.works.iter_mut().zip(&mut times).collect();
            if round % 2 == 1 {
                turns.reverse();
            }
            for (work, times) in turns {
                (work.prepare)()?;
                let begun = Instant::now();
                (work.run)()?;
                times.push(begun.elapsed());
            }
        }
        let names = self.works.into_iter().map(|work| work.name);
        Ok(evaluate(names.zip(times).collect()))
    }
}

/// Compares workloads that were run alternately: a name and the times of each, in the order of the rounds. The first is the
/// baseline.
pub fn evaluate(runs: Vec<(String, Vec<Duration>)>) -> Vec<Measured> {
    let seconds = |times: &[Duration]| times.iter().map(Duration::as_secs_f64).collect::<Vec<_>>();
    let base = runs.first().map(|(_, times)| seconds(times)).unwrap_or_default();
    let measured = runs.into_iter().map(|(name, times)| {
        let own = seconds(&times);
        let ratios: Vec<f64> = base.iter().zip(&own).map(|(base, own)| base / own).collect();
        Measured {
            name,
            times,
            median_seconds: median(&own).unwrap_or(f64::NAN),
            ratio: median(&ratios).unwrap_or(f64::NAN),
            ratio_range: extremes(&ratios).unwrap_or((f64::NAN, f64::NAN)),
        }
    });
    measured.collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn works_take_turns_and_change_their_order() {
        let log = RefCell::new(Vec::new());
        let note = |what: &'static str| {
            let log = &log;
            move || {
                log.borrow_mut().push(what);
                Ok(())
            }
        };
        let comparison = Comparison::default()
            .with_prepared("a", note("prepare a"), note("a"))
            .with("b", note("b"));
        let measured = comparison.run(2).expect("nothing fails");
        assert_eq!(*log.borrow(), ["prepare a", "a", "b", "b", "prepare a", "a"]);
        assert_eq!(
            measured.iter().map(|work| work.times.len()).collect::<Vec<_>>(),
            [2, 2]
        );
        assert_eq!(measured.first().map(|work| work.ratio), Some(1.0));
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds() {
        let seconds = |list: [u64; 3]| list.map(Duration::from_secs).to_vec();
        let runs = vec![
            ("a".to_owned(), seconds([1, 10, 2])),
            ("b".to_owned(), seconds([2, 10, 8])),
        ];
        let measured = evaluate(runs);
        assert_eq!((measured[1].ratio, measured[1].ratio_range), (0.5, (0.25, 1.0)));
        assert_eq!(measured[1].median_seconds, 8.0);
    }

    #[test]
    fn a_failure_ends_the_comparison() {
        let comparison = Comparison::default().with("bad", || anyhow::bail!("no"));
        assert!(comparison.run(3).is_err());
    }
}
