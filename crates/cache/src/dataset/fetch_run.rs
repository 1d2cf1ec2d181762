//! Which requests to send for the blocks that are missing.

use std::ops::Range;

/// Blocks in one request: 8 MiB is where the cost of a request stops to show against S3, and small enough that
/// several fit in the memory budget.
pub(super) const MAX_RUN_BLOCKS: u64 = 8;

/// Groups ascending block numbers into runs of neighbouring blocks, each at most [`MAX_RUN_BLOCKS`] long.
pub(super) fn group_into_runs(missing: impl IntoIterator<Item = u64>) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for block in missing {
        match runs.last_mut() {
            Some(run) if run.end == block && run.end - run.start < MAX_RUN_BLOCKS => run.end = block + 1,
            _ => runs.push(block..block + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_neighbours_and_splits_long_runs() {
        assert_eq!(group_into_runs([]), []);
        assert_eq!(group_into_runs([0, 1, 2, 5, 6, 9]), [0..3, 5..7, 9..10]);
        assert_eq!(group_into_runs(0..20), [0..8, 8..16, 16..20]);
    }

    #[test]
    fn every_block_is_in_exactly_one_run() {
        let missing: Vec<u64> = (0..500).filter(|block| block * 2_654_435_761 % 7 < 4).collect();
        let again: Vec<u64> = group_into_runs(missing.clone()).into_iter().flatten().collect();
        assert_eq!(missing, again);
    }
}
