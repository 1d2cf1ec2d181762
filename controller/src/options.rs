//! The command line of `millpond-controller`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// Reconciles CachePools, Datasets and DataLoads, and sends the plan to workers and drivers
#[derive(Clone, Debug, Parser)]
#[command(name = "millpond-controller", version)]
pub struct Options {
    /// Namespace of this pod
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,

    /// Name of this pod: its identity in leader election
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,

    /// Image of the workers
    #[arg(long, env = "MILLPOND_IMAGE")]
    pub image: String,

    /// Pull policy of that image: Always, IfNotPresent or Never
    #[arg(long, env = "MILLPOND_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pub image_pull_policy: String,

    /// Address to serve the plan and certificates at, by gRPC
    #[arg(long, env = "MILLPOND_PLAN_ADDRESS", default_value = "0.0.0.0:7400")]
    pub plan_address: SocketAddr,

    /// Address to serve /metrics, /healthz and /readyz at
    #[arg(long, env = "MILLPOND_METRICS_ADDRESS", default_value = "0.0.0.0:9400")]
    pub metrics_address: SocketAddr,

    /// Directory of Millpond on each node
    #[arg(long, env = "MILLPOND_HOST_DIRECTORY", default_value = "/var/lib/millpond")]
    pub host_directory: PathBuf,

    /// Host directories below which the paths of tiers may be, comma-separated
    #[arg(
        long,
        env = "MILLPOND_TIER_ROOTS",
        value_delimiter = ',',
        default_value = "/var/lib/millpond,/mnt"
    )]
    pub tier_roots: Vec<PathBuf>,

    /// Priority class of the workers. Default: the cluster's
    #[arg(long, env = "MILLPOND_WORKER_PRIORITY_CLASS")]
    pub worker_priority_class: Option<String>,

    /// Namespaces whose Datasets and DataLoads are served, comma-separated. Default: all
    #[arg(long, env = "MILLPOND_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
}
