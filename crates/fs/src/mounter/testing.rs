//! A mounter for tests: threads of the test's process, with its descriptors, since other tests close theirs.

use std::path::Path;

use super::Mounter;
use super::server::serve;
use crate::peer;

/// A mounter whose socket is in `directory`. Its threads end with the process.
pub(crate) fn mounter(directory: &Path) -> Mounter {
    let socket = directory.join("mounter.sock");
    let listening = peer::listen(&socket).unwrap();
    std::thread::spawn(move || serve(&listening));
    Mounter::at(socket)
}
