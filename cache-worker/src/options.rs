//! The command line of `millpond-worker`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

use super::tiers::TierOption;

/// Keeps the data of a CachePool on this node, and gives it to the node's driver.
#[derive(Clone, Debug, Parser)]
#[command(name = "millpond-worker", version)]
pub struct Options {
    /// The CachePool that this worker belongs to
    #[arg(long, env = "MILLPOND_POOL")]
    pub pool: String,

    /// The name of this node
    #[arg(long, env = "MILLPOND_NODE")]
    pub node: String,

    /// The controller, as host:port
    #[arg(long, env = "MILLPOND_CONTROLLER")]
    pub controller: String,

    /// The authorities that the controller's certificate is checked with
    #[arg(long, env = "MILLPOND_CA", default_value = "/etc/millpond/ca/ca.crt")]
    pub ca: PathBuf,

    /// The ServiceAccount token that tells the controller who this is
    #[arg(
        long,
        env = "MILLPOND_TOKEN",
        default_value = "/var/run/secrets/millpond/token"
    )]
    pub token: PathBuf,

    /// Where the node's driver speaks with this worker
    #[arg(long, env = "MILLPOND_SOCKET")]
    pub socket: PathBuf,

    /// Where drivers of nodes without a worker speak with this one
    #[arg(long, env = "MILLPOND_DATA_ADDRESS", default_value = "0.0.0.0:7401")]
    pub data_address: SocketAddr,

    /// Where /metrics, /healthz and /readyz are
    #[arg(long, env = "MILLPOND_METRICS_ADDRESS", default_value = "0.0.0.0:9402")]
    pub metrics_address: SocketAddr,

    /// A tier, as memory:PATH:BYTES or disk:PATH:BYTES; at most one of each
    #[arg(long = "tier", required = true)]
    pub tiers: Vec<TierOption>,

    /// How much of the disk tier's file system stays free, in percent, whatever the capacity; left out: 20 where the kubelet or
    /// the container runtime have their directories on it, else 0
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=90))]
    pub min_free_percent: Option<u8>,

    /// What the buffers of each Dataset's reads may take together, in bytes
    #[arg(long, env = "MILLPOND_READ_BUFFER_BYTES", default_value_t = 256 << 20)]
    pub read_buffer_bytes: u64,

    /// What the buffers of all Datasets' reads may take together, in bytes, beside 16 MiB that each can have in any case; left
    /// out: half of the memory limit, or an eighth of the node's memory
    #[arg(long, env = "MILLPOND_TOTAL_READ_BUFFER_BYTES")]
    pub total_read_buffer_bytes: Option<u64>,
}
