//! The command line of `millpond-worker`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

use super::tiers::TierOption;

/// Caches the Datasets of a CachePool on this node and serves them to drivers.
#[derive(Clone, Debug, Parser)]
#[command(name = "millpond-worker", version)]
pub struct Options {
    /// Name of the CachePool
    #[arg(long, env = "MILLPOND_POOL")]
    pub pool: String,

    /// Name of this node
    #[arg(long, env = "MILLPOND_NODE")]
    pub node: String,

    /// Address of the controller, host:port
    #[arg(long, env = "MILLPOND_CONTROLLER")]
    pub controller: String,

    /// Trusted certificate authorities for the controller, a PEM file
    #[arg(long, env = "MILLPOND_CA", default_value = "/etc/millpond/ca/ca.crt")]
    pub ca: PathBuf,

    /// File of the ServiceAccount token for the controller
    #[arg(
        long,
        env = "MILLPOND_TOKEN",
        default_value = "/var/run/secrets/millpond/token"
    )]
    pub token: PathBuf,

    /// Unix socket for this node's driver
    #[arg(long, env = "MILLPOND_SOCKET")]
    pub socket: PathBuf,

    /// Listen address for drivers of nodes without a worker
    #[arg(long, env = "MILLPOND_DATA_ADDRESS", default_value = "0.0.0.0:7401")]
    pub data_address: SocketAddr,

    /// Listen address of /metrics, /healthz and /readyz
    #[arg(long, env = "MILLPOND_METRICS_ADDRESS", default_value = "0.0.0.0:9402")]
    pub metrics_address: SocketAddr,

    /// Tier, as memory:PATH:BYTES or disk:PATH:BYTES; at most one of each
    #[arg(long = "tier", required = true)]
    pub tiers: Vec<TierOption>,

    /// Percent of the disk tier's file system that stays free, whatever the capacity [default: 20 on a disk of the kubelet or
    /// the container runtime, else 0]
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=90))]
    pub min_free_percent: Option<u8>,

    /// Most bytes of read buffers for each Dataset
    #[arg(long, env = "MILLPOND_READ_BUFFER_BYTES", default_value_t = 256 << 20)]
    pub read_buffer_bytes: u64,

    /// Most bytes of read buffers for all Datasets together, besides 16 MiB that each has in any case [default: half of the
    /// memory limit, or an eighth of the node's memory]
    #[arg(long, env = "MILLPOND_TOTAL_READ_BUFFER_BYTES")]
    pub total_read_buffer_bytes: Option<u64>,
}
