//! The control plane: processes of the machine that listen on the bridge's address.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::logs::tails;
use crate::tools::kubernetes;

/// The API server is ready 5 s after its start; more on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts etcd.
pub(crate) fn start_etcd(cluster: &Cluster) -> Result<()> {
    let data = cluster.name().etcd_dir();
    fs::create_dir_all(&data)?;
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
    let port = cluster.number().etcd_port();
    let (url, peers) = (
        format!("http://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{}", port + 1),
    );
    let mut etcd = Command::new("etcd");
    etcd.arg("--data-dir").arg(data);
    etcd.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    etcd.args([
        "--listen-peer-urls",
        &peers,
        "--initial-advertise-peer-urls",
        &peers,
    ]);
    etcd.args(["--initial-cluster", &format!("default={peers}")]);
    cluster.state().process("etcd").start(etcd)
}

/// Starts the controller manager and the scheduler.
pub(crate) fn start_controllers(cluster: &Cluster, controller_qps: u32) -> Result<()> {
    let state = cluster.state();
    let pki = |file: &str| state.pki(file).display().to_string();
    let host = cluster.host_address();
    for (component, port) in [("controller-manager", 10_257), ("scheduler", 10_259)] {
        let kubeconfig = state.kubeconfig(component).display().to_string();
        let mut command = kubernetes(component);
        command.args([
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            format!("--bind-address={host}"),
            format!("--secure-port={port}"),
            "--leader-elect=false".to_owned(),
        ]);
        if component == "controller-manager" {
            command.args([
                "--use-service-account-credentials=true".to_owned(),
                format!(
                    "--service-account-private-key-file={}",
                    pki("service-accounts.key")
                ),
                format!("--root-ca-file={}", pki("ca.crt")),
                format!("--cluster-signing-cert-file={}", pki("ca.crt")),
                format!("--cluster-signing-key-file={}", pki("ca.key")),
                "--allocate-node-cidrs=false".to_owned(),
                "--node-monitor-grace-period=20s".to_owned(),
                format!("--kube-api-qps={controller_qps}"),
                format!("--kube-api-burst={}", controller_qps * 3 / 2),
            ]);
        }
        state.process(component).start(command)?;
    }
    Ok(())
}

/// The API server, which tests stop, pause and start.
#[derive(Clone, Copy, Debug)]
pub struct ApiServer<'a> {
    cluster: &'a Cluster,
}

impl<'a> ApiServer<'a> {
    pub(crate) const fn of(cluster: &'a Cluster) -> Self {
        Self { cluster }
    }

    /// Kills it: connections are refused from now on.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(self) -> Result<()> {
        self.cluster.state().process("apiserver").stop(Signal::KILL)
    }

    /// Suspends it: connections hang from now on.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(self) -> Result<()> {
        self.cluster.state().process("apiserver").signal(Signal::STOP)
    }

    /// Starts it, or resumes one that is suspended; returns when it is ready.
    ///
    /// # Errors
    /// It does not become ready: with the last lines of its log.
    pub fn start(self) -> Result<()> {
        let process = self.cluster.state().process("apiserver");
        if process.pid().is_some() {
            process.signal(Signal::CONT)?;
        } else {
            process.start(self.command())?;
        }
        let etcd = self.cluster.state().process("etcd");
        let is_alive = || {
            for process in [&etcd, &process] {
                ensure!(process.pid().is_some(), "{} has ended", process.name());
            }
            Ok(())
        };
        self.cluster
            .api()?
            .wait_ready(READY_TIMEOUT, is_alive)
            .with_context(|| {
                format!(
                    "failed to start the API server{}",
                    tails(&[etcd.clone(), process.clone()])
                )
            })
    }

    fn command(self) -> Command {
        let state = self.cluster.state();
        let pki = |file: &str| state.pki(file).display().to_string();
        let host = self.cluster.host_address();
        let mut command = kubernetes("apiserver");
        // There is no kube-proxy beside it: aggregator routing makes it dial a webhook's endpoints instead of its Service.
        command.args([
            format!(
                "--etcd-servers=http://127.0.0.1:{}",
                self.cluster.number().etcd_port()
            ),
            format!("--bind-address={host}"),
            format!("--advertise-address={host}"),
            "--secure-port=6443".to_owned(),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
            format!("--kubelet-client-key={}", pki("kubelet-client.key")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", pki("service-accounts.pub")),
            format!(
                "--service-account-signing-key-file={}",
                pki("service-accounts.key")
            ),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--enable-aggregator-routing=true".to_owned(),
        ]);
        command
    }
}
