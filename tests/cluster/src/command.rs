//! The command line.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use test_cluster::{
    Cluster, Name, NodeName, S3Access, UpOptions, follow_targets, run_first_process, run_outer_process,
};

/// Brings up a real Kubernetes on this machine, breaks it, mends it and takes it down.
///
/// etcd, API server, controller manager, scheduler and DNS are processes; nodes have containerd, kubelet and kube-proxy, each
/// node in namespaces of its own, behind a bridge without a way out. Needs root and `scripts/deps cluster`.
#[derive(Debug, Parser)]
#[command(name = "millpond-cluster")]
pub(crate) struct Program {
    /// Keeps clusters apart.
    #[arg(long, global = true, env = "MILLPOND_CLUSTER", default_value = "default")]
    name: Name,
    #[command(subcommand)]
    command: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// Bring it up, after removing what a killed run of the name left. The last line is what a shell is to set.
    Up(Up),
    /// Take it down without a trace.
    Down {
        /// Copy its logs to this folder first.
        #[arg(long, value_name = "FOLDER")]
        keep_logs: Option<PathBuf>,
    },
    /// Run a command inside a node, in its mount, network and pid namespaces.
    Node {
        /// n1, n2, ...
        node: NodeName,
        /// The command and its words.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Kill a node with every process and mount on it. Its disk stays.
    NodeStop {
        /// n1, n2, ...
        node: NodeName,
    },
    /// Start a stopped node as after a reboot, with its disk; return when it is Ready.
    NodeStart {
        /// n1, n2, ...
        node: NodeName,
    },
    /// Kill a node's kubelet; return when the next one is healthy.
    KubeletRestart {
        /// n1, n2, ...
        node: NodeName,
    },
    /// Stop, pause or start the API server.
    #[command(subcommand)]
    Apiserver(ApiServer),
    /// Import image archives into every running node.
    Load {
        /// OCI archives.
        #[arg(required = true, value_name = "IMAGE.tar")]
        archives: Vec<PathBuf>,
    },
    /// A real S3 server that checks credentials, with and without TLS.
    #[command(subcommand)]
    S3(S3),
    /// A real Prometheus that scrapes Millpond's pods each second, with the rules of deploy/rules.
    #[command(subcommand)]
    Prometheus(Prometheus),
    /// Print the value of the first series of an expression in Prometheus, or nothing.
    Query {
        /// In PromQL.
        expression: String,
    },
    /// The outer process of a node.
    #[command(hide = true)]
    NodeProcess {
        /// Which.
        node: NodeName,
    },
    /// The first process of a node.
    #[command(hide = true)]
    NodeInit {
        /// Which.
        node: NodeName,
    },
    /// The discovery of pods for Prometheus.
    #[command(hide = true)]
    PrometheusTargets,
}

#[derive(Debug, Args)]
struct Up {
    /// How many nodes, 1 to 9.
    #[arg(long, default_value_t = 1)]
    nodes: u8,
    /// Take down one of the same name first.
    #[arg(long)]
    replace: bool,
    /// How many requests a second each controller of Kubernetes may send.
    #[arg(long, default_value_t = UpOptions::DEFAULT_CONTROLLER_QPS, value_name = "N")]
    controller_qps: u32,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum ApiServer {
    /// Connections are refused.
    Stop,
    /// Connections hang.
    Pause,
    /// After either; return when it is ready.
    Start,
}

#[derive(Debug, Subcommand)]
enum S3 {
    /// Start it, and print what to set, for `eval`.
    Start {
        /// Its folders are the buckets; default: one of the cluster's own.
        directory: Option<PathBuf>,
    },
    /// Stop it; its buckets stay.
    Stop,
    /// Add a user who has no right to any bucket.
    User {
        /// The access key.
        access: String,
        /// The secret key.
        secret: String,
    },
    /// Give a user a bucket.
    Own {
        /// The bucket.
        bucket: String,
        /// The user's access key.
        access: String,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Prometheus {
    /// Start it, and print its address, for `eval`.
    Start,
    /// Stop it.
    Stop,
}

impl Program {
    pub(crate) fn run(self) -> Result<()> {
        let Self { name, command } = self;
        let cluster = || Cluster::open(&name);
        match command {
            Subject::Up(options) => options.run(name),
            Subject::Down { keep_logs } => Cluster::down(&name, keep_logs.as_deref()),
            Subject::Node { node, command } => {
                let (program, words) = command.split_first().context("a command has a program")?;
                let mut inside = cluster()?.node(node)?.command(program)?;
                Err(inside.args(words).exec()).context("failed to run nsenter")
            }
            Subject::NodeStop { node } => cluster()?.node(node)?.stop(),
            Subject::NodeStart { node } => cluster()?.node(node)?.start(),
            Subject::KubeletRestart { node } => cluster()?.node(node)?.restart_kubelet(),
            Subject::Apiserver(action) => action.run(&cluster()?),
            Subject::Load { archives } => cluster()?.load(&archives),
            Subject::S3(action) => action.run(&cluster()?),
            Subject::Prometheus(Prometheus::Start) => {
                let address = cluster()?.prometheus().start()?;
                print(&format!("export MILLPOND_PROMETHEUS={address}\n"))
            }
            Subject::Prometheus(Prometheus::Stop) => cluster()?.prometheus().stop(),
            Subject::Query { expression } => match cluster()?.prometheus().value(&expression)? {
                Some(value) => print(&format!("{value}\n")),
                None => Ok(()),
            },
            Subject::NodeProcess { node } => run_outer_process(&cluster()?, node),
            Subject::NodeInit { node } => run_first_process(&cluster()?, node),
            Subject::PrometheusTargets => follow_targets(&cluster()?),
        }
    }
}

impl Up {
    fn run(self, name: Name) -> Result<()> {
        let Self {
            nodes,
            replace,
            controller_qps,
        } = self;
        let options = UpOptions {
            name,
            nodes,
            replace,
            controller_qps,
        };
        let mut printed = Ok(());
        let cluster = Cluster::up(&options, |time, step| {
            if printed.is_ok() {
                printed = print(&format!("{:>5} ms  {step}\n", time.as_millis()));
            }
        })?;
        printed?;
        let (kubeconfig, name) = (cluster.kubeconfig(), cluster.name());
        print(&format!(
            "export KUBECONFIG={} MILLPOND_CLUSTER={name}\n",
            kubeconfig.display()
        ))
    }
}

impl ApiServer {
    fn run(self, cluster: &Cluster) -> Result<()> {
        let server = cluster.api_server();
        match self {
            Self::Stop => server.stop(),
            Self::Pause => server.pause(),
            Self::Start => server.start(),
        }
    }
}

impl S3 {
    fn run(self, cluster: &Cluster) -> Result<()> {
        let server = cluster.s3();
        match self {
            Self::Start { directory } => {
                let access: S3Access = server.start(directory.as_deref())?;
                print(&access.exports())
            }
            Self::Stop => server.stop(),
            Self::User { access, secret } => print(&server.add_user(&access, &secret)?),
            Self::Own { bucket, access } => print(&server.set_owner(&bucket, &access)?),
        }
    }
}

fn print(text: &str) -> Result<()> {
    io::stdout().write_all(text.as_bytes()).context("failed to print")
}
