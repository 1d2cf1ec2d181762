//! Memory limit of this process, and memory of the machine.

use std::path::{Path, PathBuf};

/// Values above this mean "no limit" in cgroup v1, which reports a number near it, rounded to pages.
const UNLIMITED_FROM: u64 = 1 << 60;

/// Returns the smallest memory limit of this process's control groups, of either version; `None`: unlimited.
pub fn memory_limit_bytes() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    limit_of(&groups, Path::new("/sys/fs/cgroup"))
}

/// Returns the memory of this machine, without swap.
pub fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

/// Returns the limit of a process whose `/proc/self/cgroup` is `groups`.
fn limit_of(groups: &str, root: &Path) -> Option<u64> {
    groups.lines().filter_map(|line| limit_of_line(line, root)).min()
}

/// Parses a line of `/proc/self/cgroup`. It is `number:controllers:path`; the one of version 2 has number 0 and no controllers.
fn limit_of_line(line: &str, root: &Path) -> Option<u64> {
    let mut fields = line.splitn(3, ':');
    let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let below = Path::new(path.trim_start_matches('/'));
    let version_2 = number == "0" && controllers.is_empty();
    let (hierarchies, file): (&[&str], _) = if version_2 {
        (&["", "unified"], "memory.max")
    } else if controllers.split(',').any(|name| name == "memory") {
        (&["memory"], "memory.limit_in_bytes")
    } else {
        return None;
    };
    hierarchies
        .iter()
        .flat_map(|hierarchy| ancestors(&root.join(hierarchy), below))
        .filter_map(|group| read_limit(&group.join(file)))
        .min()
}

/// Returns the group's directory and its parents: each limits its children. In a container the path may be that of the
/// host's tree, so the caller skips directories that do not exist.
fn ancestors(hierarchy: &Path, below: &Path) -> Vec<PathBuf> {
    below.ancestors().map(|group| hierarchy.join(group)).collect()
}

fn read_limit(file: &Path) -> Option<u64> {
    let limit: u64 = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (limit < UNLIMITED_FROM).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn the_smallest_limit_above_a_group_counts() {
        let root = root(&[
            ("pods/memory.max", "1000\n"),
            ("pods/a/memory.max", "max\n"),
            ("pods/a/b/memory.max", "2000\n"),
        ]);
        assert_eq!(limit_of("0::/pods/a/b\n", root.path()), Some(1000));
    }

    #[test]
    fn version_1_is_read_too() {
        let root = root(&[
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/job/memory.limit_in_bytes", "4096\n"),
        ]);
        let groups = "5:cpu,cpuacct:/x\n4:memory:/job\n0::/\n";
        assert_eq!(limit_of(groups, root.path()), Some(4096));
    }

    #[test]
    fn no_limit_is_none() {
        let root = root(&[("memory.max", "max\n")]);
        assert_eq!(limit_of("0::/\n", root.path()), None);
        assert_eq!(limit_of("nonsense", root.path()), None);
    }
}
