//! Flags and environment variables of a driver.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Flags; each is also an environment variable.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "millpond-csi-driver",
    version,
    about = "Publishes Datasets as volumes to the pods of a node"
)]
pub struct DriverOptions {
    /// Name of the node
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
    /// Address of the controller, host:port
    #[arg(long, env = "MILLPOND_CONTROLLER")]
    pub controller: String,
    /// Listen address of /metrics and /healthz
    #[arg(long, env = "MILLPOND_METRICS_ADDRESS", default_value = "0.0.0.0:9401")]
    pub metrics_address: SocketAddr,
    /// Socket of the keeper [default: keeper/keeper.sock in the host directory]
    #[arg(long, env = "MILLPOND_KEEPER")]
    pub keeper: Option<PathBuf>,
    /// Socket of the mounter
    #[arg(
        long,
        env = "MILLPOND_MOUNTER",
        default_value = "/run/millpond-mounter/mounter.sock"
    )]
    pub mounter: PathBuf,
    /// Trusted certificate authorities, a PEM file
    #[arg(long, env = "MILLPOND_AUTHORITIES", default_value = "/etc/millpond/ca/ca.crt")]
    pub authorities: PathBuf,
    /// File of the ServiceAccount token for the controller
    #[arg(
        long,
        env = "MILLPOND_TOKEN",
        default_value = "/var/run/secrets/millpond/token"
    )]
    pub token: PathBuf,
    /// User and group id of the workers, which own the tiers
    #[arg(long, env = "MILLPOND_TIER_OWNER", default_value_t = 65532)]
    pub tier_owner: u32,
    /// Seconds that a publish call waits for a missing plan, catalog or worker; the kubelet waits 120
    #[arg(long, alias = "patience", env = "MILLPOND_PATIENCE", default_value = "60", value_parser = seconds)]
    pub publish_timeout: Duration,
    /// Seconds that a Dataset stays mounted after its last volume
    #[arg(long, alias = "idle", env = "MILLPOND_IDLE", default_value = "60", value_parser = seconds)]
    pub idle_unmount_delay: Duration,
    /// Mount FUSE views only
    #[arg(long, env = "MILLPOND_NO_KERNEL_VIEWS")]
    pub no_kernel_views: bool,
}

impl DriverOptions {
    /// Returns the keeper's socket.
    pub(crate) fn keeper_socket(&self) -> PathBuf {
        let default = || self.host_directory.join("keeper/keeper.sock");
        self.keeper.clone().unwrap_or_else(default)
    }
}

fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.trim_end_matches('s').parse().map(Duration::from_secs)
}
