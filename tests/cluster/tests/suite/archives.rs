//! The archives of images: the same bytes again, every digest right, two platforms, accepted by containerd.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use test_cluster::{Cluster, workspace};

use crate::checks::{has, refused, run, same};

const IMAGE: &str = "archive.test/one:1";

pub(crate) fn are_valid(cluster: &Cluster) -> Result<()> {
    let work = tempfile::tempdir()?;
    let work = work.path();
    let root = work.join("root");
    fs::create_dir_all(root.join("bin"))?;
    fs::create_dir_all(root.join("tmp"))?;
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    let busybox = root.join("bin/busybox");
    fs::copy("/bin/busybox", &busybox)?;
    symlink("busybox", root.join("bin/sh"))?;
    let [first, second, third] = ["first.tar", "second.tar", "third.tar"].map(|name| work.join(name));
    archive(&first, IMAGE, &root, &["amd64", "arm64"])?;
    File::options()
        .write(true)
        .open(&busybox)?
        .set_modified(SystemTime::now())?;
    archive(&second, IMAGE, &root, &["amd64", "arm64"])?;
    ensure!(
        fs::read(&first)? == fs::read(&second)?,
        "the archive is not the same again"
    );
    let layout = work.join("layout");
    fs::create_dir(&layout)?;
    run(Command::new("tar").arg("-xf").arg(&first).arg("-C").arg(&layout))?;
    for blob in fs::read_dir(layout.join("blobs/sha256"))? {
        let blob = blob?;
        let sum = run(Command::new("sha256sum").arg(blob.path()))?;
        let sum = sum.split_whitespace().next().context("sha256sum prints a sum")?;
        same(sum, &blob.file_name().to_string_lossy())?;
    }
    cluster.load(&[first])?;
    let ctr = |node: &str, words: &[&str]| {
        let images = ["ctr", "--namespace", "k8s.io", "images"];
        cluster.node(node.parse()?)?.run(&[&images, words].concat())
    };
    has(&ctr("n1", &["ls"])?, IMAGE)?;
    has(&ctr("n2", &["check", &format!("name=={IMAGE}")])?, "complete")?;
    // A name without a tag.
    refused(archive(&third, "archive.test/one", &root, &["amd64"])).map(drop)
}

fn archive(file: &Path, image: &str, root: &Path, platforms: &[&str]) -> Result<()> {
    let mut command = Command::new(workspace().join("scripts/oci-archive"));
    command.arg(file).arg(image);
    for platform in platforms {
        command.arg(format!("{platform}={}", root.display()));
    }
    run(&mut command).map(drop)
}
