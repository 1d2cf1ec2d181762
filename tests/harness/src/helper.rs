//! Programs that tests start and kill.

use std::process::Command;

/// A command of a helper program: an example of the crate whose test runs, which cargo builds together with its tests.
///
/// # Panics
/// If it was not built.
pub fn helper(name: &str) -> Command {
    let test = std::env::current_exe().expect("the path of this test");
    let folder = test.ancestors().nth(2).expect("tests lie in <profile>/deps");
    let program = folder.join("examples").join(name);
    assert!(
        program.is_file(),
        "there is no {}: cargo build --examples",
        program.display()
    );
    Command::new(program)
}
