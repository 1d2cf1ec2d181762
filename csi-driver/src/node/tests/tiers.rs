//! Tests of the workers' directories.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

use millpond_wire::plan::{Medium, Member, Pool, Tier};

use super::fixture::mounts_at;
use crate::node::plan::Plan;
use crate::node::testing::NODE;
use crate::node::{Layout, Tiers, TiersOptions};
use millpond_fs::mount::detach;

fn plan(pools: impl IntoIterator<Item = Pool>) -> Plan {
    Plan {
        synced: true,
        pools: pools.into_iter().map(|pool| (pool.name.clone(), pool)).collect(),
        ..Plan::default()
    }
}

fn pool(tiers: &[(Medium, &str, u64)]) -> Pool {
    let tiers = tiers.iter().map(|(medium, path, capacity_bytes)| Tier {
        medium: (*medium).into(),
        path: (*path).to_owned(),
        capacity_bytes: *capacity_bytes,
    });
    Pool {
        name: "gpu".to_owned(),
        tiers: tiers.collect(),
        members: vec![Member {
            node: NODE.to_owned(),
            address: String::new(),
        }],
    }
}

#[test]
fn tiers_are_made_resized_and_removed_with_their_pool() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: needs root");
        return;
    }
    let directory = tempfile::Builder::new()
        .prefix("millpond-node-")
        .tempdir()
        .unwrap();
    let root = directory.path().canonicalize().unwrap();
    std::fs::create_dir_all(root.join("host/driver")).unwrap();
    std::fs::create_dir_all(root.join("disk")).unwrap();
    let layout = Layout::new(root.join("kubelet"), root.join("host"));
    let tiers = || {
        Tiers::new(TiersOptions {
            layout: layout.clone(),
            node: NODE.to_owned(),
            roots: vec![root.join("disk")],
            owner: 65532,
        })
    };
    let none = BTreeSet::new();
    let disk = root.join("disk/a/b");
    let wanted = |memory| {
        pool(&[
            (Medium::Memory, "", memory),
            (Medium::Disk, disk.to_str().unwrap(), 1 << 20),
        ])
    };
    let (mount, memory) = (layout.memory_mount("gpu"), layout.memory("gpu"));
    let mut first = tiers();
    first.apply(&plan([wanted(8 << 20)]), &none);
    for made in [disk.join("gpu"), layout.worker("gpu"), memory.clone()] {
        let found = std::fs::metadata(&made).unwrap();
        assert_eq!(
            (found.uid(), found.gid(), found.mode() & 0o7777),
            (65532, 65532, 0o700),
            "{made:?}"
        );
    }
    let mounted = mounts_at(&mount);
    assert_eq!(mounted.len(), 1);
    assert_eq!(mounted[0].values("size").next().unwrap(), "8192k");
    first.apply(&plan([wanted(16 << 20)]), &none);
    assert_eq!(mounts_at(&mount).len(), 1);
    assert_eq!(mounts_at(&mount)[0].values("size").next().unwrap(), "16384k");
    // After a reboot a worker finds no directory until the tmpfs is mounted again.
    detach(&mount).unwrap();
    assert!(!memory.exists());
    first.apply(&plan([wanted(16 << 20)]), &none);
    std::fs::write(memory.join("object"), b"bytes").unwrap();

    // Outside of the roots, or through a link: nothing is created.
    std::os::unix::fs::symlink(root.join("host"), root.join("disk/link")).unwrap();
    let through = root.join("disk/link/x");
    let outside = root.join("outside");
    let dots = root.join("disk/../outside");
    for wrong in [&through, &outside, &dots] {
        let mut other = pool(&[(Medium::Disk, wrong.to_str().unwrap(), 1)]);
        other.name = "wrong".to_owned();
        first.apply(&plan([wanted(16 << 20), other]), &none);
        assert!(!layout.worker("wrong").exists());
    }
    assert!(!root.join("host/x").exists() && !outside.exists());

    // A deleted pool keeps its directories while its Datasets are open; another driver removes them later.
    let used = BTreeSet::from(["gpu".to_owned()]);
    first.apply(&plan([]), &used);
    assert!(memory.join("object").exists());
    tiers().apply(&Plan::default(), &none);
    assert!(
        memory.join("object").exists(),
        "a plan that is not synced removes nothing"
    );
    tiers().apply(&plan([]), &none);
    let left = !mounts_at(&mount).is_empty() || disk.join("gpu").exists() || layout.worker("gpu").exists();
    if !mounts_at(&mount).is_empty() {
        drop(detach(&mount));
    }
    assert!(!left);
    assert!(root.join("disk/a/b").exists());
}
