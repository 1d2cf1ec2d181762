//! What the FUSE server counts.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use protocol::Served;

use crate::metrics::{ServedFrom, ViewMetrics};

/// The requests that the kernel makes, as the label `operation`.
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
    views: ViewMetrics,
    /// Opens that the kernel serves by passthrough from then on.
    pub passthrough_opens: IntCounter,
    /// Opens whose reads come to the server.
    pub direct_opens: IntCounter,
    /// Requests that were answered with an error other than "no such entry".
    pub errors: IntCounter,
}

impl FuseMetrics {
    /// Registers the counters. Opens and bytes are counted in those of the views, whoever serves them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register(registry: &Registry, views: ViewMetrics) -> prometheus::Result<Self> {
        let family = |name: &str, help: &str, label: &str| -> prometheus::Result<IntCounterVec> {
            let family = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(family.clone()))?;
            Ok(family)
        };
        let operations = family(
            "millpond_fuse_operations_total",
            "Requests of the kernel to the FUSE server.",
            "operation",
        )?;
        let opens = family(
            "millpond_fuse_opens_total",
            "Files opened through FUSE, by how they are read.",
            "mode",
        )?;
        let errors = IntCounter::new(
            "millpond_fuse_errors_total",
            "Requests that the FUSE server answered with an error, other than names that do not exist.",
        )?;
        registry.register(Box::new(errors.clone()))?;
        Ok(Self {
            operations: Operation::ALL
                .iter()
                .map(|operation| operations.with_label_values(&[operation.label()]))
                .collect(),
            passthrough_opens: opens.with_label_values(&["passthrough"]),
            direct_opens: opens.with_label_values(&["direct"]),
            errors,
            views,
        })
    }

    pub(crate) fn count(&self, operation: Operation) {
        if let Some(counter) = self.operations.get(operation as usize) {
            counter.inc();
        }
    }

    /// Counts bytes that reads were answered with.
    pub(crate) fn served(&self, served: Served) {
        self.views.bytes(ServedFrom::Local).inc_by(served.local_bytes);
        self.views.bytes(ServedFrom::Peer).inc_by(served.peer_bytes);
        self.views.bytes(ServedFrom::Origin).inc_by(served.origin_bytes);
    }

    /// Counts an open whose reads no process will see: its bytes are taken to be the file's.
    pub(crate) fn passed_through(&self, size_bytes: u64) {
        self.passthrough_opens.inc();
        self.views.opens(ServedFrom::Local).inc();
        self.views.bytes(ServedFrom::Local).inc_by(size_bytes);
    }

    /// Counts an open whose reads come to the server.
    pub(crate) fn opened(&self, from: ServedFrom) {
        self.direct_opens.inc();
        self.views.opens(from).inc();
    }
}
