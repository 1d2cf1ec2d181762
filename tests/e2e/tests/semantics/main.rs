//! `docs/semantics.md`, statement by statement, on both views: each trial has the name that the document gives.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

/// Collects functions under their own names.
macro_rules! statements {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as fn(&$crate::tree::Tree))),*] };
}

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
    documented();
    let statements: Vec<Statement> =
        [listing::STATEMENTS, reading::STATEMENTS, modifying::STATEMENTS].concat();
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

/// Requires that the document names every statement that is tested here, so that neither drifts from the other.
fn documented() {
    let document = include_str!("../../../../docs/semantics.md");
    let tested = [listing::STATEMENTS, reading::STATEMENTS, modifying::STATEMENTS].concat();
    for (name, _) in &tested {
        assert!(
            document.contains(&format!("`{name}`")),
            "docs/semantics.md does not name `{name}`"
        );
    }
}
