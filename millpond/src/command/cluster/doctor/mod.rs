//! `kubectl millpond doctor`: what is wrong in a cluster, why, and what helps.

mod components;
mod nodes;
mod objects;

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::super::terminal::say;
use super::check_result::{Finding, Verdict};
use super::connection::Cluster;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only what is not as it should be.
    #[arg(short, long)]
    quiet: bool,
}

pub(super) async fn run(cluster: &Cluster, arguments: &Arguments) -> Result<ExitCode> {
    let (components, nodes, objects) = tokio::join!(
        components::look(cluster),
        nodes::look(cluster),
        objects::look(cluster)
    );
    let parts = [
        ("Millpond itself", components),
        ("the nodes", nodes),
        ("its objects", objects),
    ];
    let mut findings = Vec::new();
    for (what, part) in parts {
        findings.extend(part.unwrap_or_else(|error| {
            vec![Finding::bad(
                what,
                format!("cannot be looked at: {error:#}"),
                "ask somebody who may, or give --context of a cluster that has Millpond",
            )]
        }));
    }
    for finding in &findings {
        if arguments.quiet && finding.verdict == Verdict::Good {
            continue;
        }
        say(format_args!(
            "{}  {}: {}",
            finding.verdict.mark(),
            finding.subject,
            finding.detail
        ));
        if let Some(fix) = &finding.fix {
            say(format_args!("         fix: {fix}"));
        }
    }
    let count = |verdict| {
        findings
            .iter()
            .filter(|finding| finding.verdict == verdict)
            .count()
    };
    let (wrong, warnings) = (count(Verdict::Bad), count(Verdict::Warning));
    say(match (wrong, warnings) {
        (0, 0) => "\nAll is well.".to_owned(),
        (0, warnings) => format!("\nNothing is wrong; {warnings} could be better."),
        (wrong, warnings) => format!("\n{wrong} wrong, {warnings} could be better."),
    });
    Ok(if wrong > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
