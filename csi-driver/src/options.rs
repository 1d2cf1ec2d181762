//! What a driver is told at its start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Flags; each is also an environment variable.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "millpond-csi-driver",
    version,
    about = "Shows Datasets to the pods of a node"
)]
pub struct DriverOptions {
    /// The node's name
    #[arg(long, env = "MILLPOND_NODE")]
    pub node: String,
    /// The kubelet's directory, the same path as on the host
    #[arg(long, env = "MILLPOND_KUBELET_DIRECTORY", default_value = "/var/lib/kubelet")]
    pub kubelet_directory: PathBuf,
    /// Millpond's directory on the host, the same path as there
    #[arg(long, env = "MILLPOND_HOST_DIRECTORY", default_value = "/var/lib/millpond")]
    pub host_directory: PathBuf,
    /// Host directories below which the disk tiers of pools may lie
    #[arg(
        long,
        env = "MILLPOND_TIER_ROOTS",
        value_delimiter = ',',
        default_value = "/var/lib/millpond,/mnt"
    )]
    pub tier_roots: Vec<PathBuf>,
    /// The controller, as host:port
    #[arg(long, env = "MILLPOND_CONTROLLER")]
    pub controller: String,
    /// Where metrics and health are told
    #[arg(long, env = "MILLPOND_METRICS_ADDRESS", default_value = "0.0.0.0:9401")]
    pub metrics_address: SocketAddr,
    /// The keeper's socket; by default keeper/keeper.sock in the host directory
    #[arg(long, env = "MILLPOND_KEEPER")]
    pub keeper: Option<PathBuf>,
    /// The mounter's socket
    #[arg(
        long,
        env = "MILLPOND_MOUNTER",
        default_value = "/run/millpond-mounter/mounter.sock"
    )]
    pub mounter: PathBuf,
    /// The authorities to trust, in PEM
    #[arg(long, env = "MILLPOND_AUTHORITIES", default_value = "/etc/millpond/ca/ca.crt")]
    pub authorities: PathBuf,
    /// The ServiceAccount token for the controller
    #[arg(
        long,
        env = "MILLPOND_TOKEN",
        default_value = "/var/run/secrets/millpond/token"
    )]
    pub token: PathBuf,
    /// The user and group of workers, who own the tiers
    #[arg(long, env = "MILLPOND_TIER_OWNER", default_value_t = 65532)]
    pub tier_owner: u32,
    /// How many seconds a pod's volume waits for what is missing; the kubelet waits 120
    #[arg(long, env = "MILLPOND_PATIENCE", default_value = "60", value_parser = seconds)]
    pub patience: Duration,
    /// How many seconds a Dataset stays mounted after its last volume
    #[arg(long, env = "MILLPOND_IDLE", default_value = "60", value_parser = seconds)]
    pub idle: Duration,
    /// Show FUSE views only
    #[arg(long, env = "MILLPOND_NO_KERNEL_VIEWS")]
    pub no_kernel_views: bool,
}

impl DriverOptions {
    /// The keeper's socket.
    pub(crate) fn keeper_socket(&self) -> PathBuf {
        let default = || self.host_directory.join("keeper/keeper.sock");
        self.keeper.clone().unwrap_or_else(default)
    }
}

fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.trim_end_matches('s').parse().map(Duration::from_secs)
}
