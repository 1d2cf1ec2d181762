//! Runs the programs of a node, each again when it ends, and reaps orphans, as pid 1 must.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::NodeName;
use crate::cluster::Cluster;
use crate::wait::settle;

/// Before a program that has ended is started again.
const RESTART_DELAY: Duration = Duration::from_millis(200);

/// See the module's documentation.
pub(super) struct Supervisor<'a> {
    cluster: &'a Cluster,
    node: NodeName,
    programs: BTreeMap<Pid, (&'static str, Command)>,
}

impl<'a> Supervisor<'a> {
    pub(super) fn new(cluster: &'a Cluster, node: NodeName) -> Self {
        Self {
            cluster,
            node,
            programs: BTreeMap::new(),
        }
    }

    /// Starts a program. Its pid, as seen in here, is in `NAME.pid` on the node's disk.
    pub(super) fn start(&mut self, name: &'static str, mut command: Command) -> Result<()> {
        let state = self.cluster.state();
        let log = state.log(&format!("{}-{name}", self.node));
        let log = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("failed to start {name}"))?;
        let pid = child.id();
        fs::write(
            state.disk(self.node).join(format!("{name}.pid")),
            format!("{pid}\n"),
        )?;
        self.programs
            .insert(Pid::from_raw(pid.try_into()?), (name, command));
        Ok(())
    }

    /// Starts again what has ended.
    pub(super) fn restart_ended(&mut self) -> Result<()> {
        let pids: Vec<_> = self.programs.keys().copied().collect();
        for pid in pids {
            let status = waitpid(pid, Some(WaitPidFlag::WNOHANG))?;
            self.on_end(pid, status)?;
        }
        Ok(())
    }

    /// Does so until the node ends. Nothing else in this process may wait for a child from now on.
    pub(super) fn run(mut self) -> Result<()> {
        loop {
            match waitpid(None, None) {
                Ok(status) => {
                    if let Some(pid) = status.pid() {
                        self.on_end(pid, status)?;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("failed to wait for the node's processes"),
            }
        }
    }

    fn on_end(&mut self, pid: Pid, status: WaitStatus) -> Result<()> {
        if !matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..)) {
            return Ok(());
        }
        let Some((name, command)) = self.programs.remove(&pid) else {
            return Ok(());
        };
        writeln!(std::io::stderr(), "{name} ended ({status:?}); starting it again")?;
        settle(RESTART_DELAY);
        self.start(name, command)
    }
}
