//! `kubectl millpond doctor`: problems of Millpond in a cluster, with cause and fix.

mod components;
mod nodes;
mod objects;

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::super::terminal::print_line;
use super::check_result::{CheckResult, Verdict};
use super::connection::Cluster;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print only warnings and problems.
    #[arg(short, long)]
    quiet: bool,
}

pub(super) async fn run(cluster: &Cluster, arguments: &Arguments) -> Result<ExitCode> {
    let (components, nodes, objects) = tokio::join!(
        components::check(cluster),
        nodes::check(cluster),
        objects::check(cluster)
    );
    let parts = [
        ("Millpond itself", components),
        ("the nodes", nodes),
        ("its objects", objects),
    ];
    let mut results = Vec::new();
    for (what, part) in parts {
        results.extend(part.unwrap_or_else(|error| {
            vec![CheckResult::bad(
                what,
                format!("check failed: {error:#}"),
                "use an account with permission, or give --context of a cluster that has Millpond",
            )]
        }));
    }
    for result in &results {
        if arguments.quiet && result.verdict == Verdict::Good {
            continue;
        }
        print_line(format_args!(
            "{}  {}: {}",
            result.verdict.mark(),
            result.subject,
            result.detail
        ));
        if let Some(fix) = &result.fix {
            print_line(format_args!("         fix: {fix}"));
        }
    }
    let count = |verdict| results.iter().filter(|result| result.verdict == verdict).count();
    let (wrong, warnings) = (count(Verdict::Bad), count(Verdict::Warning));
    print_line(match (wrong, warnings) {
        (0, 0) => "\nNo problem found.".to_owned(),
        (0, warnings) => format!("\nNo problem found, {warnings} warnings."),
        (wrong, warnings) => format!("\n{wrong} problems, {warnings} warnings."),
    });
    Ok(if wrong > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
