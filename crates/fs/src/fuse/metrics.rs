//! Metrics of the FUSE server.

use millpond_core::ServedBytes;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// The kernel's requests, as the label `operation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Lookup,
    GetAttr,
    Open,
    Read,
    Release,
    OpenDir,
    ReadDir,
    StatFs,
    Xattr,
    Modify,
}

impl Operation {
    const ALL: [Self; 10] = [
        Self::Lookup,
        Self::GetAttr,
        Self::Open,
        Self::Read,
        Self::Release,
        Self::OpenDir,
        Self::ReadDir,
        Self::StatFs,
        Self::Xattr,
        Self::Modify,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::GetAttr => "getattr",
            Self::Open => "open",
            Self::Read => "read",
            Self::Release => "release",
            Self::OpenDir => "opendir",
            Self::ReadDir => "readdir",
            Self::StatFs => "statfs",
            Self::Xattr => "xattr",
            Self::Modify => "modify",
        }
    }
}

/// The counters of one FUSE mount.
#[derive(Clone, Debug)]
pub struct FuseMetrics {
    operations: Vec<IntCounter>,
    /// Opens whose reads the kernel serves by passthrough.
    pub passthrough_opens: IntCounter,
    /// The sizes of the files so opened: exact where readers read complete files.
    pub passthrough_bytes: IntCounter,
    /// Opens whose reads the server answers.
    pub direct_opens: IntCounter,
    /// Requests that failed, other than with "no such entry".
    pub errors: IntCounter,
    /// Bytes of reads that the server answered from this node.
    pub local_bytes: IntCounter,
    /// From another worker.
    pub peer_bytes: IntCounter,
    /// From the source.
    pub origin_bytes: IntCounter,
}

impl FuseMetrics {
    /// Registers the counters.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let family = |name: &str, help: &str, label: &str| -> prometheus::Result<IntCounterVec> {
            let family = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(family.clone()))?;
            Ok(family)
        };
        let operations = family(
            "millpond_fuse_operations_total",
            "Requests of the kernel to the FUSE server, by operation.",
            "operation",
        )?;
        let opens = family(
            "millpond_fuse_opens_total",
            "Files opened through FUSE: passthrough (the kernel reads the cache file), direct (the server answers reads).",
            "mode",
        )?;
        let bytes = family(
            "millpond_fuse_read_bytes_total",
            "Bytes of reads that the FUSE server answered, by source: local (this node's cache), peer, origin.",
            "served_from",
        )?;
        let passthrough_bytes = IntCounter::new(
            "millpond_fuse_passthrough_bytes_total",
            "Sizes of the files opened by passthrough, whose reads the server does not see.",
        )?;
        registry.register(Box::new(passthrough_bytes.clone()))?;
        let errors = IntCounter::new(
            "millpond_fuse_errors_total",
            "Requests that failed, other than with ENOENT.",
        )?;
        registry.register(Box::new(errors.clone()))?;
        Ok(Self {
            operations: Operation::ALL
                .iter()
                .map(|operation| operations.with_label_values(&[operation.label()]))
                .collect(),
            passthrough_opens: opens.with_label_values(&["passthrough"]),
            passthrough_bytes,
            direct_opens: opens.with_label_values(&["direct"]),
            errors,
            local_bytes: bytes.with_label_values(&["local"]),
            peer_bytes: bytes.with_label_values(&["peer"]),
            origin_bytes: bytes.with_label_values(&["origin"]),
        })
    }

    pub(crate) fn count(&self, operation: Operation) {
        if let Some(counter) = self.operations.get(operation as usize) {
            counter.inc();
        }
    }

    pub(crate) fn served(&self, served: ServedBytes) {
        self.local_bytes.inc_by(served.local_bytes);
        self.peer_bytes.inc_by(served.peer_bytes);
        self.origin_bytes.inc_by(served.origin_bytes);
    }
}
