//! The whole program with small sizes: every figure is measured and shown, and nothing is left behind.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Every name that `--only` takes.
const FIGURES: [&str; 14] = [
    "large",
    "large-dropped",
    "small",
    "small-dropped",
    "cpu",
    "fuse",
    "start",
    "walk",
    "first-read",
    "first-pass",
    "epochs",
    "half",
    "million",
    "memory",
];

fn figures(directory: &Path, words: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_millpond-figures"))
        .arg("--quick")
        .arg("--dir")
        .arg(directory)
        .args(words)
        .output()
        .expect("run millpond-figures")
}

/// The system's temporary directory may lie in memory, where a kernel view cannot have its cache.
fn directory_beside_the_program() -> tempfile::TempDir {
    let program = Path::new(env!("CARGO_BIN_EXE_millpond-figures"));
    tempfile::Builder::new()
        .prefix("millpond-bench-test-")
        .tempdir_in(program.parent().expect("it lies in a directory"))
        .expect("make a directory")
}

#[test]
fn every_figure_is_measured_and_nothing_is_left() {
    let directory = directory_beside_the_program();
    let json = directory.path().join("figures.json");
    let output = figures(
        directory.path(),
        &["--json", json.to_str().expect("the path is Unicode")],
    );
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}\n{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let text = fs::read(&json).expect("the figures were written");
    let report: serde_json::Value = serde_json::from_slice(&text).expect("they are JSON");
    let rows = report["figures"].as_array().expect("a list of figures");
    for figure in FIGURES {
        assert!(
            rows.iter().any(|row| row["figure"] == figure),
            "no row of {figure}"
        );
        assert!(said.contains(figure), "the table shows no {figure}:\n{said}");
    }
    for row in rows {
        let number = |name: &str| row[name].as_f64().unwrap_or(f64::NAN);
        assert!(
            number("min") <= number("median") && number("median") <= number("max"),
            "{row}"
        );
    }
    let held = report["memory"].as_array().expect("a list of mounts");
    assert!(
        held.iter()
            .all(|mount| mount["anonymous_bytes"].as_u64() > Some(0))
    );
    fs::remove_file(&json).expect("remove the figures");
    let left: Vec<_> = fs::read_dir(directory.path()).expect("list").collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    let mounts = fs::read_to_string("/proc/self/mounts").expect("read the table of mounts");
    let root = directory.path().to_str().expect("the path is Unicode");
    assert!(!mounts.contains(root), "still mounted:\n{mounts}");
}

#[test]
fn a_program_that_is_missing_is_named() {
    let directory = directory_beside_the_program();
    let output = figures(directory.path(), &["--millpond", "/nonexistent/millpond"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("there is no /nonexistent/millpond"), "{said}");
}
