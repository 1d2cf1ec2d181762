//! Directories named on the command line.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Characters of a hash in a directory's name: short enough for a socket's path, long enough to avoid collisions.
const HASH_CHARACTERS: usize = 16;

/// Returns an existing directory to mount at: absolute, without symbolic links.
pub(crate) fn mountpoint(directory: &Path) -> Result<PathBuf> {
    let resolved = match resolve(directory) {
        Ok(resolved) => resolved,
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "{} does not exist: create it first (mkdir -p {})",
            directory.display(),
            directory.display()
        ),
        Err(error) => {
            return Err(error).with_context(|| format!("failed to resolve {}", directory.display()));
        }
    };
    if resolved == Path::new("/") {
        bail!("/ cannot be mounted over: choose another directory");
    }
    Ok(resolved)
}

/// Resolves a path that may be the root of a mount whose server has exited: `stat` of that root fails, but its parent
/// can be resolved.
pub(crate) fn resolve(path: &Path) -> io::Result<PathBuf> {
    let error = match path.canonicalize() {
        Ok(resolved) => return Ok(resolved),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
        Err(error) => error,
    };
    let absolute = std::path::absolute(path)?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => Err(error),
    }
}

/// Returns the cache directory of a source without `--cache-dir`.
pub(crate) fn default_cache_directory(source: &str) -> Result<PathBuf> {
    let root = if rustix::process::geteuid().is_root() {
        PathBuf::from("/var/cache")
    } else {
        std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|directory| directory.is_absolute())
            .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
            .context("there is no home directory for the cache: give --cache-dir")?
    };
    Ok(root
        .join("millpond")
        .join(hash(source.trim_end_matches('/').as_bytes())))
}

/// Returns a name derived from `bytes`, stable across versions of this program.
pub(crate) fn hash(bytes: &[u8]) -> String {
    let mut hash = blake3::hash(bytes).to_hex().to_string();
    hash.truncate(HASH_CHARACTERS);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_is_named_with_what_makes_it() {
        let error = mountpoint(Path::new("/no/such/directory"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("mkdir -p /no/such/directory"), "{error}");
    }

    #[test]
    fn links_are_followed_once_and_for_all() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(mountpoint(&link).unwrap(), real);
    }

    #[test]
    fn the_root_is_refused() {
        assert!(mountpoint(Path::new("/")).is_err());
    }

    #[test]
    fn one_source_has_one_cache() {
        assert_eq!(
            default_cache_directory("s3://bucket/a/").unwrap(),
            default_cache_directory("s3://bucket/a").unwrap()
        );
        assert_ne!(
            default_cache_directory("s3://bucket/a").unwrap(),
            default_cache_directory("s3://bucket/b").unwrap()
        );
    }
}
