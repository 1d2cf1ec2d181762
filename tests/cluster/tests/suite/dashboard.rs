//! The queries of the dashboard and the rules, in a real Prometheus.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use test_cluster::{Prometheus, workspace};

/// What Grafana fills in.
const VARIABLES: [(&str, &str); 4] = [
    ("$__rate_interval", "1m"),
    ("$__interval", "15s"),
    ("$namespace", ".*"),
    ("$dataset", ".*"),
];

/// Runs the query of every panel; fails at the first that is refused.
pub(crate) fn queries_run(prometheus: Prometheus<'_>) -> Result<()> {
    let dashboard = fs::read(workspace().join("deploy/dashboards/millpond.json"))?;
    let dashboard: Value = serde_json::from_slice(&dashboard)?;
    let mut count = 0;
    for panel in panels(&dashboard) {
        let targets = list(panel, "targets");
        let is_row = panel.get("type").is_some_and(|kind| kind == "row");
        ensure!(is_row || !targets.is_empty(), "a panel asks for nothing: {panel}");
        for target in targets {
            let expression = target.get("expr").and_then(Value::as_str);
            let mut expression = expression.context("a target has no expression")?.to_owned();
            for (variable, value) in VARIABLES {
                expression = expression.replace(variable, value);
            }
            prometheus.query(&expression)?;
            count += 1;
        }
    }
    ensure!(count > 0, "the dashboard asks for nothing");
    println!("        {count} queries of the dashboard");
    Ok(())
}

/// Rules are taken as Prometheus loaded them: each must be healthy, and all of the file be there.
pub(crate) fn rules_are_healthy(prometheus: Prometheus<'_>) -> Result<()> {
    let text = fs::read_to_string(workspace().join("deploy/rules/millpond.yaml"))?;
    let starts = ["- record:", "- alert:"];
    let lines = text.lines().map(str::trim_start);
    let written = lines
        .filter(|line| starts.iter().any(|start| line.starts_with(start)))
        .count();
    let rules = prometheus.rules()?;
    for rule in &rules {
        let field = |name: &str| rule.get(name).and_then(Value::as_str).unwrap_or_default();
        prometheus.query(field("query"))?;
        ensure!(
            field("health") != "err",
            "the rule {}: {}",
            field("name"),
            field("lastError")
        );
    }
    ensure!(
        rules.len() == written,
        "{written} rules are written, {} loaded",
        rules.len()
    );
    println!("        {written} rules");
    Ok(())
}

/// Returns the panels, and those in them.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let outer = list(dashboard, "panels");
    outer
        .into_iter()
        .flat_map(|panel| std::iter::once(panel).chain(list(panel, "panels")))
        .collect()
}

fn list<'a>(value: &'a Value, field: &str) -> Vec<&'a Value> {
    let list = value.get(field).and_then(Value::as_array);
    list.into_iter().flatten().collect()
}
