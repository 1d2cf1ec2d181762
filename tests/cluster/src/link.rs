//! A node's network: its namespace, and the pair of interfaces that links it to the cluster's bridge.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::NodeName;
use crate::ip::ip;
use crate::number::Number;

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    number: Number,
    node: NodeName,
}

impl Link {
    pub(crate) const fn new(number: Number, node: NodeName) -> Self {
        Self { number, node }
    }

    /// Creates the namespace and the pair, with the routes to the pods of the cluster's `nodes` nodes.
    pub(crate) fn create(self, nodes: u8) -> Result<()> {
        let Self { number, node } = self;
        let (namespace, host) = (self.namespace(), self.host_interface());
        let address = number.node_address(node).to_string();
        ip(&["netns", "add", &namespace])?;
        ip(&[
            "link", "add", &host, "type", "veth", "peer", "name", "eth0", "netns", &namespace,
        ])?;
        ip(&["link", "set", &host, "master", &number.bridge(), "up"])?;
        let inside = |words: &[&str]| ip(&[&["-n", namespace.as_str()], words].concat());
        inside(&["link", "set", "lo", "up"])?;
        inside(&["addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        inside(&["link", "set", "eth0", "up"])?;
        inside(&[
            "route",
            "add",
            "default",
            "via",
            &number.host_address().to_string(),
        ])?;
        for other in NodeName::first(nodes).filter(|other| *other != node) {
            let via = number.node_address(other).to_string();
            inside(&["route", "add", &number.pod_subnet(other), "via", &via])?;
        }
        ip(&["route", "replace", &number.pod_subnet(node), "via", &address])
    }

    /// Removes what is there of both. The namespace itself lives until the last process in it has ended.
    pub(crate) fn remove(self) -> Result<()> {
        if self.namespace_file().exists() {
            ip(&["netns", "delete", &self.namespace()])?;
        }
        // The kernel deletes it with the namespace, which may happen between a check and the deletion.
        let _deleted = ip(&["link", "delete", &self.host_interface()]);
        Ok(())
    }

    /// Returns whether the namespace is there.
    pub(crate) fn exists(self) -> bool {
        self.namespace_file().exists()
    }

    /// Opens the namespace, for a process or thread to enter it.
    pub(crate) fn open(self) -> Result<File> {
        let file = self.namespace_file();
        File::open(&file).with_context(|| format!("failed to open {}", file.display()))
    }

    fn namespace(self) -> String {
        format!("{}-{}", self.number.bridge(), self.node)
    }

    fn namespace_file(self) -> PathBuf {
        PathBuf::from("/run/netns").join(self.namespace())
    }

    /// Of at most 15 characters, the kernel's limit.
    fn host_interface(self) -> String {
        format!("mp{}-{}", self.number.get(), self.node)
    }
}
