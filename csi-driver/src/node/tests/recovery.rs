//! Tests of reads and volumes when processes are killed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::fixture::{TestNode, UID, files, mounts_at, read, wait_until};

/// Thread that reads and checks all files of a view repeatedly until it is stopped.
struct Reader {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Reader {
    fn start(target: PathBuf, generation: u64) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&rounds));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for file in files(generation) {
                    let read = std::fs::read(target.join(&file.path));
                    assert!(read.unwrap() == file.whole(), "{}", file.path);
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { stop, rounds, thread }
    }

    /// Waits until all files were read once more.
    fn wait_for_pass(&self) {
        let before = self.rounds.load(Ordering::Relaxed);
        wait_until(|| self.thread.is_finished() || self.rounds.load(Ordering::Relaxed) >= before + 2);
        assert!(!self.thread.is_finished(), "a reader saw an error");
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_on_when_the_driver_is_killed_and_each_pod_keeps_its_generation() {
    let Some(mut node) = TestNode::start(|options| options.delay_ms = 1).await else {
        return;
    };
    let target = node.publish("old").await.unwrap();
    let reader = Reader::start(target.clone(), 1);
    reader.wait_for_pass();
    node.catalog(2);
    for _ in 0..3 {
        node.kill_driver();
        node.start_driver().await;
        reader.wait_for_pass();
    }
    assert_eq!(node.publish("old").await.unwrap(), target);
    assert_eq!(mounts_at(&target).len(), 1, "it was adopted, not mounted again");
    assert!(!target.join("later-2").exists());
    let young = node.publish("young").await.unwrap();
    let later = files(2).pop().unwrap();
    assert_eq!(read(&young, &later).await.unwrap(), later.whole());
    reader.end();
    node.unpublish(&target).await.unwrap();
    node.unpublish(&young).await.unwrap();
    wait_until(|| !node.layout.dataset(UID).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_keeper_is_given_everything() {
    let Some(mut node) = TestNode::start(|options| options.delay_ms = 1).await else {
        return;
    };
    let target = node.publish("a").await.unwrap();
    let reader = Reader::start(target.clone(), 1);
    reader.wait_for_pass();
    node.kill_keeper();
    reader.wait_for_pass();
    node.start_keeper();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    // The next driver has only what was registered with the keeper.
    node.kill_driver();
    node.start_driver().await;
    reader.wait_for_pass();
    reader.end();
    node.unpublish(&target).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_driver_stands_by_until_the_old_one_leaves() {
    let Some(mut node) = TestNode::start(|options| options.delay_ms = 1).await else {
        return;
    };
    let target = node.publish("a").await.unwrap();
    let reader = Reader::start(target.clone(), 1);
    reader.wait_for_pass();
    let next = node.spawn_driver();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(
        node.publish("a").await.unwrap(),
        target,
        "the old one still serves"
    );
    node.replace_driver(next).await;
    reader.wait_for_pass();
    reader.end();
    assert_eq!(mounts_at(&target).len(), 1);
    node.unpublish(&target).await.unwrap();
    assert!(mounts_at(&target).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_a_volume_shows_what_it_has_shown() {
    let Some(mut node) = TestNode::start(|_| {}).await else {
        return;
    };
    let target = node.publish("a").await.unwrap();
    let deleted = node.publish("deleted").await.unwrap();
    node.catalog(2);
    node.lose_power();
    assert!(mounts_at(&target).is_empty());
    std::fs::remove_dir_all(node.layout.kubelet().join("pods/deleted")).unwrap();
    node.start_keeper();
    node.start_mounter();
    node.start_driver().await;
    assert_eq!(node.records(), 1, "the deleted pod has no record any more");
    assert_eq!(node.publish("a").await.unwrap(), target);
    assert!(!target.join("later-2").exists());
    let file = &files(1)[0];
    assert_eq!(read(&target, file).await.unwrap(), file.whole());
    assert!(!deleted.exists());
    node.unpublish(&target).await.unwrap();
    assert_eq!(node.records(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_is_killed_while_volumes_come_and_go_leaves_nothing_behind() {
    let Some(mut node) = TestNode::start(|_| {}).await else {
        return;
    };
    for round in 0..6_u64 {
        {
            let work = async {
                let targets = futures::future::join_all((0..4).map(|pod| {
                    let name = format!("pod-{pod}");
                    let node = &node;
                    async move {
                        let target = node.target(&name);
                        // The driver may be killed in between.
                        let published = node.publish_as(super::fixture::request(&target));
                        drop(published.await);
                        let _dead = node.unpublish_or_die(&target).await;
                    }
                }));
                targets.await;
            };
            drop(tokio::time::timeout(std::time::Duration::from_millis(5 + round * 15), work).await);
        }
        node.kill_driver();
        node.start_driver().await;
    }
    for pod in 0..4 {
        let target = node.publish(&format!("pod-{pod}")).await.unwrap();
        assert_eq!(mounts_at(&target).len(), 1);
        let file = &files(1)[pod];
        assert_eq!(read(&target, file).await.unwrap(), file.whole());
        node.unpublish(&target).await.unwrap();
        assert!(mounts_at(&target).is_empty());
    }
    assert_eq!(node.records(), 0);
    wait_until(|| !node.layout.dataset(UID).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_driver_that_is_killed_is_answered_by_the_next() {
    let Some(mut node) = TestNode::start(|options| options.delay_ms = 1_000_000).await else {
        return;
    };
    let target = node.publish("a").await.unwrap();
    // A name that the driver requests from its worker, which does not respond.
    let objects = node.layout.fuse(UID).join("objects");
    let object = objects.join(files(1)[0].id().path());
    let mounter = node.mounter();
    let asking = std::thread::spawn(move || mounter.tree(&object));
    wait_until(|| node.mounter_waits_in_openat());
    // The driver exits although the call still waits; else this would wait.
    node.kill_driver();
    assert!(!asking.is_finished());
    node.options.delay_ms = 0;
    node.start_driver().await;
    let error = asking.join().unwrap().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR), "{error}");
    node.unpublish(&target).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_mounter_is_waited_for_and_readers_do_not_notice() {
    let Some(mut node) = TestNode::start(|options| options.delay_ms = 1).await else {
        return;
    };
    let first = node.publish("first").await.unwrap();
    let reader = Reader::start(first.clone(), 1);
    reader.wait_for_pass();
    node.kill_mounter();
    reader.wait_for_pass();
    {
        let publish = node.publish("second");
        tokio::pin!(publish);
        let early = tokio::time::timeout(std::time::Duration::from_millis(300), &mut publish).await;
        assert!(early.is_err(), "there is no mounter: {early:?}");
    }
    node.start_mounter();
    // The dropped call still runs: publishing the same again is the same volume.
    let second = node.publish("second").await.unwrap();
    assert_eq!(mounts_at(&second).len(), 1);
    let file = &files(1)[3];
    assert_eq!(read(&second, file).await.unwrap(), file.whole());
    reader.end();
    node.unpublish(&first).await.unwrap();
    node.unpublish(&second).await.unwrap();
}
