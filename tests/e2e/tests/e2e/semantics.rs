//! `docs/semantics.md`, statement by statement, on both views: each statement has the name that the document gives.
//! (`scripts/check-docs` sees to it that each is in both places.)
//!
//! The statements of a view share one mount, and so one test. `MILLPOND_STATEMENTS=PART_OF_A_NAME` takes only those.
#![expect(clippy::unwrap_used, reason = "a test that cannot continue panics")]
#![expect(clippy::print_stdout, reason = "one line for each statement")]

/// Collects functions under their own names.
macro_rules! statements {
    ($($name:ident),* $(,)?) => {
        &[$((stringify!($name), $name as fn(&$crate::semantics::tree::Tree))),*]
    };
}

mod changing;
mod listing;
mod modifying;
mod reading;
mod tree;

use std::panic::{AssertUnwindSafe, catch_unwind};

use harness::View;
use parking_lot::Mutex;
use tree::Tree;

/// A statement: its name in the document, and what must hold of a tree.
type Statement = (&'static str, fn(&Tree));

/// Threads that check statements of one mount; more gain nothing on top of that.
const THREADS: usize = 2;

fn all_statements() -> Vec<Statement> {
    [
        listing::STATEMENTS,
        reading::STATEMENTS,
        changing::STATEMENTS,
        modifying::STATEMENTS,
    ]
    .concat()
}

/// Checks every statement, also after one that fails, and requires that none does.
fn hold(view: View) {
    let wanted = std::env::var("MILLPOND_STATEMENTS").unwrap_or_default();
    let statements: Vec<Statement> = all_statements()
        .into_iter()
        .filter(|(name, _)| name.contains(&wanted))
        .collect();
    assert!(!statements.is_empty(), "no statement's name has {wanted:?} in it");
    let tree = Tree::new(view);
    let next = Mutex::new(statements.iter());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let Some((name, statement)) = next.lock().next() else {
                        break;
                    };
                    let held = catch_unwind(AssertUnwindSafe(|| statement(&tree))).is_ok();
                    println!("{name} ... {}", if held { "ok" } else { "FAILED" });
                    if !held {
                        failed.lock().push(*name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert!(
        failed.is_empty(),
        "{} of {} statements do not hold on the {}: {failed:?}",
        failed.len(),
        statements.len(),
        view.label()
    );
}

#[test]
fn every_statement_holds_on_the_kernel_view() {
    hold(View::Kernel);
}

#[test]
fn every_statement_holds_on_the_fuse_view() {
    hold(View::Fuse);
}
