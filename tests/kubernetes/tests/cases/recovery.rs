//! Everything fails, one part after the other, while pods read cached and uncached files: no error, and the right bytes.

use std::time::Duration;

use anyhow::{Result, ensure};
use kubernetes_tests::{
    Bucket, Dataset, Namespace, POOL, Reader, SYSTEM, World, delete_many, eventually, settle,
};

use crate::Case;

pub(crate) const ALONE: &[Case] = &[
    ("a_deleted_driver_pod_is_not_felt", driver_deleted),
    ("a_killed_driver_is_not_felt", driver_killed),
    ("a_killed_mounter_is_not_felt", mounter_killed),
    ("a_killed_worker_is_not_felt", worker_killed),
    ("a_deleted_worker_pod_is_not_felt", worker_deleted),
    (
        "a_pod_is_told_that_its_volume_has_no_worker_and_that_it_is_back",
        worker_missing,
    ),
    ("a_restarted_keeper_is_not_felt", keeper_restarted),
    ("a_restarted_kubelet_is_not_felt", kubelet_restarted),
    (
        "a_killed_controller_is_not_felt_and_another_leads",
        controller_killed,
    ),
    (
        "a_controller_that_is_killed_in_any_step_is_no_loss",
        controller_killed_in_steps,
    ),
    ("reads_go_on_while_the_api_server_is_away", api_server_away),
    (
        "without_millpond_what_is_cached_is_read_and_a_pod_can_be_killed",
        millpond_gone,
    ),
    ("a_node_that_returns_shows_the_same_generation", node_restarted),
];

/// What is read: some of it in the cache, and some that never is, since the quota is less than the data.
fn data<'a>(world: &'a World, namespace: &Namespace) -> Result<Bucket<'a>> {
    let mut bucket = world.s3.bucket(namespace.name())?;
    bucket.put_many("small", 20, 50_000)?;
    bucket.put_many("large", 2, 9 << 20)?;
    namespace.apply(&world.s3.secret("source"))?;
    let dataset = Dataset::of("data", &bucket).with("quota: 12Mi");
    namespace.apply(&dataset.yaml())?;
    namespace.wait("dataset/data", "Ready", "True")?;
    Ok(bucket)
}

/// Reads in three pods while `disturb` does its work, and for some time after.
fn undisturbed(world: &World, name: &str, disturb: impl FnOnce() -> Result<()>) -> Result<()> {
    let namespace = world.namespace(name)?;
    let bucket = data(world, &namespace)?;
    let sums = bucket.sums("/data");
    let readers = [("first", "n1"), ("second", "n1"), ("elsewhere", "n2")]
        .map(|(name, node)| Reader::start(&namespace, name, node, &Reader::claim("data"), &sums));
    let readers = readers.into_iter().collect::<Result<Vec<_>>>()?;
    for reader in &readers {
        reader.passes(1)?;
    }
    disturb()?;
    for reader in &readers {
        reader.passes(2)?;
    }
    Ok(())
}

fn driver_deleted(world: &World) -> Result<()> {
    undisturbed(world, "recovery-driver", || {
        world.replace_pods("csi-driver", "n1")?;
        world.replace_pods("csi-driver", "n2")
    })
}

fn driver_killed(world: &World) -> Result<()> {
    killed_on_both(world, "recovery-driver-kill", "millpond-csi-driver")
}

fn mounter_killed(world: &World) -> Result<()> {
    killed_on_both(world, "recovery-mounter", "millpond-mounter")
}

/// Kills a program on both nodes while pods read.
fn killed_on_both(world: &World, name: &str, program: &str) -> Result<()> {
    undisturbed(world, name, || {
        for node in ["n1", "n2"] {
            world.kill(node, program)?;
        }
        settle(Duration::from_secs(2));
        world.wait_ready()
    })
}

fn worker_killed(world: &World) -> Result<()> {
    undisturbed(world, "recovery-worker-kill", || {
        world.kill("n1", "millpond-worker")?;
        settle(Duration::from_secs(2));
        world.wait_ready()
    })
}

fn worker_deleted(world: &World) -> Result<()> {
    undisturbed(world, "recovery-worker", || world.replace_pods("worker", "n1"))
}

fn worker_missing(world: &World) -> Result<()> {
    let namespace = world.namespace("recovery-no-worker")?;
    let bucket = data(world, &namespace)?;
    let reader = Reader::of(&namespace, "reader", "n1", "data", &bucket)?;
    reader.passes(1)?;
    let select = |node: &str| {
        let patch = format!("{{\"spec\":{{\"nodeSelector\":{{\"millpond.test/node\":\"{node}\"}}}}}}");
        world
            .kubectl()
            .run(&["patch", "cachepool", POOL, "--type=merge", "-p", &patch])
    };
    select("none")?;
    let told = namespace.event("pod/reader", "VolumeConditionAbnormal");
    select("n1")?;
    world.wait_ready()?;
    let told = told?;
    ensure!(told.contains("no worker"), "the event says: {told}");
    namespace.event("pod/reader", "VolumeConditionNormal")?;
    reader.passes(2)
}

fn keeper_restarted(world: &World) -> Result<()> {
    undisturbed(world, "recovery-keeper", || {
        world.replace_pods("keeper", "n1")?;
        // What it holds was given to it again.
        settle(Duration::from_secs(2));
        world.kill("n1", "millpond-csi-driver")?;
        settle(Duration::from_secs(2));
        world.wait_ready()
    })
}

fn kubelet_restarted(world: &World) -> Result<()> {
    undisturbed(world, "recovery-kubelet", || {
        world.cluster.node(world.node("n1")?)?.restart_kubelet()
    })
}

fn leader(world: &World) -> Result<String> {
    world.kubectl().run(&[
        "--namespace",
        SYSTEM,
        "get",
        "lease",
        "millpond-controller",
        "-o",
        "jsonpath={.spec.holderIdentity}",
    ])
}

/// Kills the leader; it has no time to do or say anything.
fn kill_leader(world: &World) -> Result<()> {
    // One that was killed a moment ago still has the Lease.
    let leader = eventually("a leader that lives", Duration::from_secs(60), || {
        let leader = leader(world)?;
        let pods = world.pods("controller", "")?;
        Ok(pods.contains(&format!("pod/{leader}")).then_some(leader))
    })?;
    let words = ["delete", "pod", &leader, "--grace-period=0", "--force"];
    world
        .kubectl()
        .run(&[["--namespace", SYSTEM].as_slice(), &words].concat())
        .map(drop)
}

fn controller_killed(world: &World) -> Result<()> {
    undisturbed(world, "recovery-controller", || {
        let before = leader(world)?;
        kill_leader(world)?;
        eventually("another leader", Duration::from_secs(60), || {
            let now = leader(world)?;
            Ok((!now.is_empty() && now != before).then_some(()))
        })?;
        world.wait_ready()
    })
}

/// Many Datasets come, and go, so that at the moment of the kill they are in different steps.
fn controller_killed_in_steps(world: &World) -> Result<()> {
    const DATASETS: usize = 30;
    let (namespace, mut bucket) = world.source("recovery-steps")?;
    bucket.put_many("small", 5, 10_000)?;
    let names: Vec<_> = (0..DATASETS).map(|number| format!("data-{number}")).collect();
    let manifests: Vec<_> = names
        .iter()
        .map(|name| Dataset::of(name, &bucket).yaml())
        .collect();
    namespace.apply(&manifests.join("---\n"))?;
    kill_leader(world)?;
    for name in &names {
        namespace.wait(&format!("dataset/{name}"), "Ready", "True")?;
    }
    let uids = namespace.run(&["get", "datasets", "-o", "jsonpath={.items[*].metadata.uid}"])?;
    delete_many(world, &namespace)?;
    kill_leader(world)?;
    for name in &names {
        namespace.gone(&format!("dataset/{name}"))?;
        namespace.gone(&format!("pvc/{name}"))?;
    }
    let volumes = world.kubectl().run(&["get", "pv", "-o", "name"])?;
    let left: Vec<_> = uids
        .split_whitespace()
        .filter(|uid| volumes.contains(uid))
        .collect();
    ensure!(left.is_empty(), "volumes are left of {left:?}");
    world.wait_ready()
}

fn api_server_away(world: &World) -> Result<()> {
    let namespace = world.namespace("recovery-api")?;
    let bucket = data(world, &namespace)?;
    let reader = Reader::of(&namespace, "reader", "n1", "data", &bucket)?;
    reader.passes(1)?;
    world.cluster.own()?.api_server().stop()?;
    settle(Duration::from_secs(60));
    world.cluster.own()?.api_server().start()?;
    reader.passes(2)?;
    world.wait_ready()
}

fn millpond_gone(world: &World) -> Result<()> {
    let (namespace, mut bucket) = world.source("recovery-gone")?;
    bucket.put_many("small", 20, 50_000)?;
    namespace.apply(&Dataset::of("data", &bucket).with("prefetch: OnCreate").yaml())?;
    namespace.wait("dataset/data", "Warm", "True")?;
    let reader = Reader::of(&namespace, "reader", "n1", "data", &bucket)?;
    reader.passes(1)?;
    let scale = |replicas: &str| {
        world
            .kubectl()
            .run(&[
                "--namespace",
                SYSTEM,
                "scale",
                "deployment/millpond-controller",
                replicas,
            ])
            .map(drop)
    };
    scale("--replicas=0")?;
    // A selector that no node has: nothing is deleted that would have to be made again.
    let nowhere = |selector: &str| -> Result<()> {
        for set in [
            "millpond-csi-driver",
            "millpond-keeper",
            &format!("millpond-worker-{POOL}"),
        ] {
            let patch = format!(
                "{{\"spec\":{{\"template\":{{\"spec\":{{\"nodeSelector\":{{\"millpond.test/nowhere\":{selector}}}}}}}}}}}"
            );
            world.kubectl().run(&[
                "--namespace",
                SYSTEM,
                "patch",
                "daemonset",
                set,
                "--type=merge",
                "-p",
                &patch,
            ])?;
        }
        Ok(())
    };
    nowhere("\"yes\"")?;
    world.kubectl().run(&[
        "--namespace",
        SYSTEM,
        "delete",
        "pods",
        "--all",
        "--grace-period=0",
        "--force",
    ])?;
    let outcome = reader.passes(3);
    let ended = reader.end();
    nowhere("null")?;
    scale("--replicas=2")?;
    world.wait_ready()?;
    outcome.and(ended)
}

fn node_restarted(world: &World) -> Result<()> {
    let (namespace, mut bucket) = world.source("recovery-node")?;
    bucket.put_many("small", 20, 50_000)?;
    namespace.ready(&Dataset::of("data", &bucket))?;
    let reader = Reader::of(&namespace, "reader", "n1", "data", &bucket)?;
    reader.passes(1)?;
    let node = world.cluster.node(world.node("n1")?)?;
    node.stop()?;
    settle(Duration::from_secs(3));
    node.start()?;
    world.wait_ready()?;
    eventually("the pod to run again", Duration::from_secs(120), || {
        let said = reader.said()?;
        ensure!(!said.contains("BROKEN"), "{said}");
        Ok(said.contains("pass 2").then_some(()))
    })
}
