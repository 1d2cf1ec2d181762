//! The number of a cluster, and the names and addresses that follow from it.
//!
//! The kernel gives the number: the process that creates the bridge `millpond<N>` owns N, and with it the addresses
//! `10.<200+N>.0.0/16`. So two clusters never share an address, and a second `up` of one name fails instead of
//! disturbing the first.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

use crate::NodeName;

/// Numbers that there are.
const COUNT: u8 = 10;

/// See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number(u8);

impl Number {
    /// Accepts 0 to 9.
    pub(crate) fn new(number: u8) -> Result<Self> {
        ensure!(number < COUNT, "no cluster has the number {number}");
        Ok(Self(number))
    }

    /// Returns all numbers in their order.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..COUNT).map(Self)
    }

    /// Returns it as an integer.
    pub(crate) const fn get(self) -> u8 {
        self.0
    }

    /// Returns the bridge that all nodes are linked to.
    pub(crate) fn bridge(self) -> String {
        format!("millpond{}", self.0)
    }

    /// Returns the number whose bridge has this name.
    pub(crate) fn of_bridge(interface: &str) -> Option<Self> {
        let number = interface.strip_prefix("millpond")?.parse().ok()?;
        Self::new(number).ok()
    }

    /// Returns the machine's address as nodes and pods see it: API server, DNS, S3, Prometheus.
    pub(crate) const fn host_address(self) -> Ipv4Addr {
        self.address(0, 254)
    }

    /// Returns the URL of the API server.
    pub(crate) fn api_server(self) -> String {
        format!("https://{}:6443", self.host_address())
    }

    /// Returns etcd's port for clients; the next one is that for peers.
    pub(crate) fn etcd_port(self) -> u16 {
        23_790 + 10 * u16::from(self.0)
    }

    /// Returns a node's address.
    pub(crate) const fn node_address(self, node: NodeName) -> Ipv4Addr {
        self.address(0, node.index())
    }

    /// Returns the subnet of a node's pods.
    pub(crate) fn pod_subnet(self, node: NodeName) -> String {
        format!("{}/24", self.address(node.index(), 0))
    }

    const fn address(self, third: u8, fourth: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 200 + self.0, third, fourth)
    }
}
