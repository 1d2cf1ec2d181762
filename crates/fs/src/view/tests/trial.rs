//! The kernel's support, found by a trial mount.

use super::super::{KernelSupport, OverlayMode};
use crate::mount::MountTable;

#[test]
fn a_trial_finds_the_better_options_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let abilities = KernelSupport::probe(directory.path()).unwrap();
    // The kernel of these tests has both.
    assert_eq!(abilities.mode.unwrap(), OverlayMode::Handles);
    abilities.counting.unwrap();
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    let table = MountTable::read().unwrap();
    assert!(
        !table
            .iter()
            .any(|mount| mount.point.starts_with(directory.path()))
    );
}
