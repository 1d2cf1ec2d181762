//! A node: its network, cgroups and outer process, seen from the machine.
//!
//! Killing the outer process ends the node with all that runs and is mounted on it. Its disk stays.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::NodeName;
use crate::api::Api;
use crate::cgroup::Cgroup;
use crate::cluster::Cluster;
use crate::init;
use crate::link::Link;
use crate::logs::tails;
use crate::process::Process;
use crate::tools::own_program;
use crate::wait::{POLL_INTERVAL, poll};

/// A node is Ready 5 s after its start; more where it imports its images on a busy machine.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Processes of a killed node end within this.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    cluster: &'a Cluster,
    name: NodeName,
}

impl<'a> Node<'a> {
    pub(crate) const fn new(cluster: &'a Cluster, name: NodeName) -> Self {
        Self { cluster, name }
    }

    /// Returns its name.
    pub const fn name(self) -> NodeName {
        self.name
    }

    /// Returns whether it runs.
    pub fn is_running(self) -> bool {
        self.process().pid().is_some()
    }

    /// Returns a command that runs inside the node, in its mount, network and pid namespaces.
    ///
    /// # Errors
    /// The node does not run.
    pub fn command<P: AsRef<OsStr>>(self, program: P) -> Result<Command> {
        ensure!(self.is_running(), "{} is not running", self.name);
        let init = self.first_process()?;
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            init.trim(),
            "--mount",
            "--net",
            "--uts",
            "--ipc",
            "--pid",
            "--",
        ]);
        command.arg(program);
        Ok(command)
    }

    /// Runs a command inside the node, and returns what it prints.
    ///
    /// # Errors
    /// It fails: with what it printed as errors.
    pub fn run(self, words: &[&str]) -> Result<String> {
        let (program, rest) = words.split_first().context("a command has a program")?;
        let output = self.command(program)?.args(rest).output()?;
        ensure!(
            output.status.success(),
            "{} on {} failed ({}): {}",
            words.join(" "),
            self.name,
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Kills the node, as by pulling its plug, with every process and mount on it.
    ///
    /// # Errors
    /// It is stopped already, or its processes do not end.
    pub fn stop(self) -> Result<()> {
        ensure!(self.is_running(), "{} is stopped already", self.name);
        self.remove()
    }

    /// Starts a stopped node as after a reboot, with its disk; returns when it is Ready.
    ///
    /// # Errors
    /// It runs, or does not become Ready: with the last lines of its logs.
    pub fn start(self) -> Result<()> {
        ensure!(!self.is_running(), "{} is running", self.name);
        // Its last report before it was stopped may be "Ready": only a newer one counts.
        let begin = SystemTime::now();
        self.boot()?;
        self.wait_ready(&self.cluster.api()?, begin)
    }

    /// Kills the node's kubelet; returns when the next one is healthy. Containers keep running.
    ///
    /// # Errors
    /// There is no next one.
    pub fn restart_kubelet(self) -> Result<()> {
        let file = self.cluster.state().disk(self.name).join(init::KUBELET_PID);
        let pid = || fs::read_to_string(&file).with_context(|| format!("{} has no kubelet", self.name));
        let before = pid()?;
        self.run(&["kill", "-KILL", before.trim()])?;
        let api = self.cluster.api()?;
        poll(
            &format!("the kubelet of {}", self.name),
            READY_TIMEOUT,
            POLL_INTERVAL,
            || Ok((pid()? != before && api.is_kubelet_healthy(self.name)?).then_some(())),
        )
        .with_context(|| self.trouble())
    }

    /// Starts the node, as new or with the disk that it had. Returns before it is Ready.
    pub(crate) fn boot(self) -> Result<()> {
        self.link().create(self.cluster.node_count())?;
        self.cgroup().create()?;
        let disk = self.cluster.state().disk(self.name);
        fs::create_dir_all(&disk)?;
        for file in init::PID_FILES {
            match fs::remove_file(disk.join(file)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        let mut command = own_program()?;
        command.arg("--name").arg(self.cluster.name().as_str());
        command.arg("node-process").arg(self.name.to_string());
        self.process().start(command)
    }

    /// Waits until the node is Ready, as its kubelet has reported since `begin`.
    pub(crate) fn wait_ready(self, api: &Api, begin: SystemTime) -> Result<()> {
        api.wait_node_ready(self.name, begin, READY_TIMEOUT, || self.check_alive())
            .with_context(|| self.trouble())
    }

    /// Ends what there is of the node's processes, network and cgroups.
    pub(crate) fn remove(self) -> Result<()> {
        self.process().stop(Signal::KILL)?;
        self.link().remove()?;
        let cgroup = self.cgroup();
        poll(
            &format!("the processes of {} to end", self.name),
            END_TIMEOUT,
            POLL_INTERVAL,
            || Ok(cgroup.remove()?.then_some(())),
        )
    }

    /// Returns whether anything of it may be there.
    pub(crate) fn has_traces(self) -> bool {
        self.process().is_recorded() || self.link().exists()
    }

    pub(crate) const fn link(self) -> Link {
        Link::new(self.cluster.number(), self.name)
    }

    pub(crate) fn cgroup(self) -> Cgroup {
        Cgroup::of(self.cluster.name(), self.name)
    }

    fn process(self) -> Process {
        self.cluster.state().process(&self.name.to_string())
    }

    fn check_alive(self) -> Result<()> {
        if !self.is_running() {
            bail!("the first process of {} has ended", self.name);
        }
        Ok(())
    }

    /// Returns the last lines of its logs, for an error.
    fn trouble(self) -> String {
        let log = |program: &str| self.cluster.state().process(&format!("{}-{program}", self.name));
        let logs = [self.process(), log("containerd"), log("kubelet"), log("proxy")];
        format!("{} did not come up{}", self.name, tails(&logs))
    }

    /// Returns the pid of the node's pid 1.
    fn first_process(self) -> Result<String> {
        let file = self.cluster.state().disk(self.name).join(init::INIT_PID);
        // Written right after its start.
        poll(
            &format!("the first process of {}", self.name),
            END_TIMEOUT,
            POLL_INTERVAL,
            || Ok(fs::read_to_string(&file).ok().filter(|pid| pid.ends_with('\n'))),
        )
    }
}
