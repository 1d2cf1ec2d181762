//! An overlay of a directory of metadata over directories of data.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::context::{Context, DetachedMount, PathValue};
use super::error::Result;

/// The layers and options of an overlay, as sent to the mounter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Overlay {
    /// The path in error messages: the future mountpoint.
    pub(crate) subject: OsString,
    /// The options beside the layers.
    pub(crate) options: Vec<(String, OsString)>,
    /// The one layer with names and attributes.
    pub(crate) metadata: OsString,
    /// The layers with contents, in lookup order.
    pub(crate) data: Vec<OsString>,
}

impl Overlay {
    /// Mounts the overlay, attached nowhere yet. Sends requests to each layer's file system.
    pub(crate) fn mount(&self) -> Result<DetachedMount> {
        let context = Context::open("overlay", Path::new(&self.subject))?;
        for (key, value) in &self.options {
            context.text(key, value)?;
        }
        let layers = std::iter::once(("lowerdir+", &self.metadata))
            .chain(self.data.iter().map(|layer| ("datadir+", layer)));
        // Opened paths must stay open until the overlay has looked them up.
        let mut values = Vec::new();
        for (key, layer) in layers {
            let value = PathValue::of(Path::new(layer))?;
            context.text(key, value.text())?;
            values.push(value);
        }
        let mount = context.create()?;
        drop(values);
        Ok(mount)
    }

    /// All paths in it.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &OsStr> {
        let layers = std::iter::once(&self.metadata).chain(&self.data);
        std::iter::once(&self.subject)
            .chain(layers)
            .map(OsString::as_os_str)
    }
}
