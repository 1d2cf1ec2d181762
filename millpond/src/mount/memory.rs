//! The memory tier: a dedicated tmpfs in the run directory, which outlives the mount's servers.

use std::ffi::CString;

use anyhow::{Context, Result};
use millpond_cache::MemoryTier;
use millpond_fs::mount::MountTable;
use rustix::mount::{MountFlags, mount};

use super::run_directory::RunDirectory;
use super::spec::Spec;

/// Mounts the tier, or returns the one already mounted; `None`: the mount has no memory tier.
///
/// # Errors
/// If it cannot be mounted.
pub(crate) fn tier(spec: &Spec, run_dir: &RunDirectory) -> Result<Option<MemoryTier>> {
    let bytes = spec.cache.memory_bytes;
    if bytes == 0 {
        return Ok(None);
    }
    let path = run_dir.memory();
    let failed = || format!("failed to mount a tmpfs at {}", path.display());
    std::fs::create_dir_all(&path).with_context(failed)?;
    let table = MountTable::read().context("failed to read the table of mounts")?;
    if table.top_at(&path).is_none() {
        // Huge pages only for files that fill them: `always` makes a file of 20 KB take 2 MiB (measured).
        let with_huge_pages = CString::new(format!("size={bytes},mode=0700,huge=within_size"))?;
        let plain = CString::new(format!("size={bytes},mode=0700"))?;
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        mount("millpond", &path, "tmpfs", flags, with_huge_pages.as_c_str())
            .or_else(|_no_huge_pages| mount("millpond", &path, "tmpfs", flags, plain.as_c_str()))
            .with_context(failed)?;
    }
    Ok(Some(MemoryTier {
        path,
        bytes,
        pool: None,
    }))
}
