//! A folder of one test, with everything in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;

/// The environment variable by which the processes of a scratch folder are known, however far they are detached.
pub(crate) const MARK: &str = "MILLPOND_TEST_SCRATCH";

/// Where root's mounts have their run directories.
pub(crate) const RUN: &str = "/run/millpond";

/// A folder of its own for one test. Dropped, it kills what was started in it, unmounts what is mounted below it and
/// is removed.
#[derive(Debug)]
pub struct Scratch {
    root: tempfile::TempDir,
}

impl Scratch {
    /// Makes a folder with a name of its own.
    ///
    /// # Panics
    /// Where the temporary directory cannot be written: no test can run there.
    #[expect(
        clippy::new_without_default,
        reason = "making a folder is not a default value"
    )]
    pub fn new() -> Self {
        let root = tempfile::Builder::new()
            .prefix("millpond-e2e-")
            .tempdir()
            .expect("make a scratch folder");
        Self { root }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// A path in the folder.
    pub fn join(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A directory in the folder, made now.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        std::fs::create_dir_all(&path).expect("make a directory in the scratch folder");
        path
    }

    /// A directory in the folder that is a file system of its own, `size` (as mount(8) takes it) large.
    ///
    /// # Panics
    /// If it cannot be mounted.
    pub fn tmpfs(&self, name: &str, size: &str) -> PathBuf {
        let path = self.directory(name);
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "millpond-e2e"])
            .arg(&path));
        path
    }

    /// A directory in the folder that is an ext4 of its own on a loop device, `bytes` large. The device ends with the
    /// mount, however that ends.
    ///
    /// # Panics
    /// If it cannot be made or mounted.
    pub fn ext4(&self, name: &str, bytes: u64) -> PathBuf {
        let path = self.directory(name);
        let image = self.join(&format!("{name}.ext4"));
        std::fs::File::create(&image)
            .and_then(|file| file.set_len(bytes))
            .expect("make an image file");
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0"])
            .arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&path));
        path
    }

    /// The mount points below the folder, innermost first.
    pub fn mounts(&self) -> Vec<PathBuf> {
        mounts_below(self.path())
    }

    /// The run directories of mounts in the folder: they stay where all processes were killed.
    fn run_directories(&self) -> Vec<PathBuf> {
        let path = format!("\"{}/", self.path().display());
        let Ok(places) = std::fs::read_dir(RUN) else {
            return Vec::new();
        };
        let places = places.flatten().map(|place| place.path());
        places
            .filter(|place| {
                std::fs::read_to_string(place.join("spec.json")).is_ok_and(|spec| spec.contains(&path))
            })
            .collect()
    }
}

/// The mount points below a directory, innermost first.
fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let all = procfs::process::Process::myself()
        .and_then(|me| me.mountinfo())
        .expect("read the mount table");
    let mut below: Vec<PathBuf> = all
        .0
        .into_iter()
        .map(|mount| mount.mount_point)
        .filter(|point| point.starts_with(directory))
        .collect();
    below.reverse();
    below
}

/// Runs a command that must succeed.
fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for process in process::processes(self.path()) {
            process.kill();
        }
        for point in self.mounts() {
            let _ = nix::mount::umount2(&point, nix::mount::MntFlags::MNT_DETACH);
        }
        for place in self.run_directories() {
            for point in mounts_below(&place) {
                let _ = nix::mount::umount2(&point, nix::mount::MntFlags::MNT_DETACH);
            }
            if mounts_below(&place).is_empty() {
                let _ = std::fs::remove_dir_all(&place);
            }
        }
    }
}
