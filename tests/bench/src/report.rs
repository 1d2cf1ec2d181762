//! The result as a table for people and as JSON for programs.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use crate::memory::Peak;
use crate::row::Row;

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The commit that was measured, and whether the tree differs from it. `None`: there is no repository.
    commit: Option<String>,
    kernel: String,
    cpus: usize,
    /// Sizes so small that the figures mean nothing.
    quick: bool,
    figures: Vec<Measurement>,
    /// The most memory of each mount.
    pub(crate) memory: Vec<Peak>,
}

#[derive(Debug, Serialize)]
struct Measurement {
    figure: String,
    #[serde(flatten)]
    row: Row,
}

impl Report {
    pub(crate) fn new(quick: bool) -> Self {
        Self {
            commit: commit(),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(
                |_unknown| "unknown".to_owned(),
                |release| release.trim().to_owned(),
            ),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            quick,
            figures: Vec::new(),
            memory: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, figure: &str, rows: Vec<Row>) {
        let rows = rows.into_iter().map(|row| Measurement {
            figure: figure.to_owned(),
            row,
        });
        self.figures.extend(rows);
    }

    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let failed = || format!("failed to write the figures to {}", file.display());
        let mut text = serde_json::to_vec_pretty(self).with_context(failed)?;
        text.push(b'\n');
        std::fs::write(file, text).with_context(failed)
    }

    /// The lines for people.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header([
            "figure", "what", "median", "min", "max", "rounds", "goal", "met", "made of",
        ]);
        for column in table.column_iter_mut().skip(2).take(4) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for Measurement { figure, row } in &self.figures {
            table.add_row([
                figure.clone(),
                row.what.clone(),
                row.unit.show(row.median),
                row.unit.show(row.min),
                row.unit.show(row.max),
                row.rounds.to_string(),
                row.goal.map_or_else(|| "-".to_owned(), |goal| goal.to_string()),
                match row.met {
                    None => "-",
                    Some(true) => "yes",
                    Some(false) => "NO",
                }
                .to_owned(),
                row.note.clone(),
            ]);
        }
        let commit = self.commit.as_deref().unwrap_or("unknown");
        let quick = if self.quick {
            "; --quick: the sizes are so small that the figures mean nothing"
        } else {
            ""
        };
        format!(
            "commit {commit}, Linux {}, {} CPUs{quick}\n{table}",
            self.kernel, self.cpus
        )
    }
}

fn commit() -> Option<String> {
    let git = |words: &[&str]| {
        let output = Command::new("git")
            .args(words)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let head = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() {
        head
    } else {
        format!("{head} with changes")
    })
}
