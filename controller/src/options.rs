//! The command line of `millpond-controller`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// Reconciles CachePools, Datasets and DataLoads, and tells workers and drivers what to do.
#[derive(Clone, Debug, Parser)]
#[command(name = "millpond-controller", version)]
pub struct Options {
    /// The namespace that this runs in
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,

    /// The name of this pod: its identity in the election of a leader
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,

    /// The image of the workers
    #[arg(long, env = "MILLPOND_IMAGE")]
    pub image: String,

    /// When the nodes pull it: Always, IfNotPresent or Never
    #[arg(long, env = "MILLPOND_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pub image_pull_policy: String,

    /// Where workers and drivers follow the plan
    #[arg(long, env = "MILLPOND_PLAN_ADDRESS", default_value = "0.0.0.0:7400")]
    pub plan_address: SocketAddr,

    /// Where /metrics, /healthz and /readyz are
    #[arg(long, env = "MILLPOND_METRICS_ADDRESS", default_value = "0.0.0.0:9400")]
    pub metrics_address: SocketAddr,

    /// Millpond's own directory on each node
    #[arg(long, env = "MILLPOND_HOST_DIRECTORY", default_value = "/var/lib/millpond")]
    pub host_directory: PathBuf,

    /// Host directories below which tiers may lie
    #[arg(
        long,
        env = "MILLPOND_TIER_ROOTS",
        value_delimiter = ',',
        default_value = "/var/lib/millpond,/mnt"
    )]
    pub tier_roots: Vec<PathBuf>,

    /// The priority class of the workers; none: the cluster's default
    #[arg(long, env = "MILLPOND_WORKER_PRIORITY_CLASS")]
    pub worker_priority_class: Option<String>,

    /// The only namespaces whose Datasets and DataLoads are served; none: all
    #[arg(long, env = "MILLPOND_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
}
