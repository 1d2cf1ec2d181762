//! The mount, made and taken away by the real command as a person would.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::bucket::BUCKET;
use crate::server::Server;

/// How long a killed server's successor may take. Only ever reached by a defect.
const SUCCESSOR_PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at it.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A mount that is up. Dropped, it is unmounted.
pub(crate) struct Mount {
    program: PathBuf,
    directory: PathBuf,
    /// What the command said.
    pub(crate) said: String,
}

impl Mount {
    /// Mounts the server's bucket at `directory`. Credentials go through the environment, as they would at a person's.
    pub(crate) fn new(server: &Server, directory: &Path, cache: &Path, metrics: &str) -> Result<Self> {
        let program = program()?;
        let output = Command::new(&program)
            .arg("mount")
            .arg(format!("s3://{BUCKET}"))
            .arg(directory)
            .args(["--endpoint", &server.url(), "--metrics", metrics, "--cache-dir"])
            .arg(cache)
            .env("AWS_ACCESS_KEY_ID", &server.credentials().access_key)
            .env("AWS_SECRET_ACCESS_KEY", &server.credentials().secret_key)
            .env("AWS_REGION", "us-east-1")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("failed to run {}", program.display()))?;
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
        if !output.status.success() {
            bail!("millpond mount failed: {}", said.trim());
        }
        Ok(Self {
            program,
            directory: directory.to_owned(),
            said: said.trim().to_owned(),
        })
    }

    /// Kills the mount's server with SIGKILL; its process number.
    pub(crate) fn kill_server(&self) -> Result<i32> {
        let (pid, _) = self.server()?;
        let process = Pid::from_raw(pid).context("the server has no process number")?;
        rustix::process::kill_process(process, Signal::KILL).context("failed to kill the mount's server")?;
        Ok(pid)
    }

    /// Waits for the successor of the killed one; its process number.
    pub(crate) fn successor(&self, killed: i32) -> Result<i32> {
        let begun = Instant::now();
        loop {
            // Between the two there is none to ask.
            if let Ok((pid, predecessors)) = self.server()
                && pid != killed
                && predecessors > 0
            {
                return Ok(pid);
            }
            if begun.elapsed() > SUCCESSOR_PATIENCE {
                bail!("no server followed the killed one");
            }
            pause();
        }
    }

    /// The server's process number, and how many the mount had before it.
    fn server(&self) -> Result<(i32, u64)> {
        let said = self.run(&["stats", "--json"])?;
        let stats: Value =
            serde_json::from_str(&said).context("millpond stats --json printed something else")?;
        let mount = stats.get("mount").context("the stats have no mount")?;
        let number = |name: &str| {
            let number = mount.get(name).and_then(Value::as_u64);
            number.with_context(|| format!("the stats have no {name}"))
        };
        Ok((i32::try_from(number("server_pid")?)?, number("predecessors")?))
    }

    /// Unmounts, and requires that it succeeds.
    pub(crate) fn unmount(self) -> Result<()> {
        self.run(&["unmount"]).map(drop)
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        let output = Command::new(&self.program)
            .args(words)
            .arg(&self.directory)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("failed to run {}", self.program.display()))?;
        if !output.status.success() {
            bail!(
                "millpond {} failed: {}",
                words.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if is_mounted_below(&self.directory).unwrap_or(true) {
            // What is left then is found, and said, by whoever looks afterwards.
            let _ = self.run(&["unmount", "--force"]);
        }
    }
}

/// Whether anything is mounted at or below `directory`.
pub(crate) fn is_mounted_below(directory: &Path) -> Result<bool> {
    let mounts = procfs::process::Process::myself()
        .and_then(|me| me.mountinfo())
        .context("failed to read the table of mounts")?;
    Ok(mounts
        .into_iter()
        .any(|mount| mount.mount_point.starts_with(directory)))
}

/// The `millpond` of this build: it lies beside this program.
fn program() -> Result<PathBuf> {
    let this = std::env::current_exe().context("failed to find this program")?;
    let program = this.with_file_name("millpond");
    if !program.is_file() {
        bail!(
            "there is no {}: build it first (make demo-local does)",
            program.display()
        );
    }
    Ok(program)
}

#[expect(
    clippy::disallowed_methods,
    reason = "it waits for a process of somebody else's, which it can only ask"
)]
fn pause() {
    std::thread::sleep(LOOK_INTERVAL);
}
