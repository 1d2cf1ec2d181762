//! Programs that the cluster runs.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// The program of this crate: it is the first process of a node, and writes Prometheus' targets.
const PROGRAM: &str = "millpond-cluster";

/// Programs of the machine, found by `PATH`.
const SYSTEM: [&str; 6] = ["etcd", "containerd", "ctr", "runc", "ip", "nsenter"];

/// Programs of the tools folder.
const BUILT: [&str; 2] = ["kube", "coredns"];

/// Returns the folder of the programs that `scripts/deps` has built: that of `scripts/env`.
pub fn tools_dir() -> PathBuf {
    if let Some(tools) = env::var_os("MILLPOND_TOOLS") {
        return tools.into();
    }
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = cache.or_else(home).unwrap_or_default();
    cache.join("millpond/tools")
}

/// Returns a program that `scripts/deps` has built.
pub fn tool(name: &str) -> PathBuf {
    tools_dir().join("bin").join(name)
}

/// Returns the root of the repository.
pub fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

/// Returns a command of Kubernetes: `apiserver`, `kubelet`, `kubectl`, ...
pub(crate) fn kubernetes(component: &str) -> Command {
    let mut command = Command::new(tool("kube"));
    command.arg(component);
    command
}

/// Returns a command of this crate's program, which a test or another program finds beside itself.
pub(crate) fn own_program() -> Result<Command> {
    let current = env::current_exe().context("failed to find this program")?;
    if current.file_name().is_some_and(|name| name == PROGRAM) {
        return Ok(Command::new(current));
    }
    // Tests are in `deps`, below the folder of the programs.
    let beside = current
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(PROGRAM));
    let mut found = beside.filter(|program| program.is_file());
    let program = found.next();
    let program = program.with_context(|| format!("{PROGRAM} is not built: cargo build -p test-cluster"))?;
    Ok(Command::new(program))
}

/// Checks that everything is there.
pub(crate) fn check() -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = env::split_paths(&path).collect();
    for program in SYSTEM {
        if !folders.iter().any(|folder| folder.join(program).is_file()) {
            bail!("{program} is missing: scripts/deps cluster");
        }
    }
    for program in BUILT.map(tool) {
        ensure!(
            program.is_file(),
            "{} is missing: scripts/deps cluster",
            program.display()
        );
    }
    own_program().map(drop)
}

/// Returns the machine's architecture as images name it.
pub(crate) const fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    }
}
