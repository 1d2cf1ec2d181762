//! `docs/semantics.md`, statement by statement, on both views: each trial has the name that the document gives.
//! (`scripts/check-docs` sees to it that each is in both places.)
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

/// Collects functions under their own names.
macro_rules! statements {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as fn(&$crate::tree::Tree))),*] };
}

mod changing;
mod listing;
mod modifying;
mod reading;
mod tree;

use std::sync::{Arc, Weak};

use e2e::View;
use libtest_mimic::{Arguments, Trial};
use parking_lot::Mutex;
use tree::Tree;

/// A statement: its name in the document, and what must hold of a tree.
type Statement = (&'static str, fn(&Tree));

/// The mount of a view that lives for as long as a trial uses or awaits it.
struct Shared {
    view: View,
    tree: Mutex<Weak<Tree>>,
}

impl Shared {
    fn get(&self) -> Arc<Tree> {
        let mut tree = self.tree.lock();
        tree.upgrade().unwrap_or_else(|| {
            let fresh = Arc::new(Tree::new(self.view));
            *tree = Arc::downgrade(&fresh);
            fresh
        })
    }
}

fn main() {
    let mut arguments = Arguments::from_args();
    // Trials of a view share its mount, which ends with the last of them; more threads gain nothing on top of that.
    arguments.test_threads.get_or_insert(2);
    let statements = all();
    let mut holders = Vec::new();
    let trials = View::BOTH
        .into_iter()
        .flat_map(|view| {
            let shared = Arc::new(Shared {
                view,
                tree: Mutex::new(Weak::new()),
            });
            if !arguments.list {
                holders.push(shared.get());
            }
            statements.clone().into_iter().map(move |(name, statement)| {
                let shared = Arc::clone(&shared);
                Trial::test(format!("{view:?}::{name}").to_lowercase(), move || {
                    statement(&shared.get());
                    Ok(())
                })
            })
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(holders);
    conclusion.exit();
}

/// All statements.
fn all() -> Vec<Statement> {
    [
        listing::STATEMENTS,
        reading::STATEMENTS,
        changing::STATEMENTS,
        modifying::STATEMENTS,
    ]
    .concat()
}
