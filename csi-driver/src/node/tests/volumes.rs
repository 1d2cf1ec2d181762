//! Tests of the kubelet's requests.

use tonic::Code;

use super::fixture::{TestNode, UID, files, mounts_at, read, request, volume_id, wait_until};
use crate::csi::wire::csi::volume_capability::{AccessType, BlockVolume};

/// Returns a free port; another process may take it before its use, which is unlikely.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_shown_as_often_as_asked_and_taken_away() {
    let Some(node) = TestNode::start(|options| options.metrics_port = free_port()).await else {
        return;
    };
    let files = files(1);
    node.complete(&files[0]);
    let target = node.publish("a").await.unwrap();
    assert_eq!(
        node.publish("a").await.unwrap(),
        target,
        "the same again is a success"
    );
    assert_eq!(mounts_at(&target).len(), 1);
    assert_eq!(mounts_at(&target)[0].file_system, "overlay");
    for file in &files {
        assert_eq!(read(&target, file).await.unwrap(), file.whole(), "{}", file.path);
    }
    assert!(std::fs::write(target.join("new"), b"no").is_err());

    let stats = node.stats(&target).await.unwrap();
    assert!(!stats.volume_condition.unwrap().abnormal);
    let size: u64 = files.iter().map(|file| file.size).sum();
    assert!(
        u64::try_from(stats.usage[0].total).unwrap() >= size,
        "{:?}",
        stats.usage
    );
    assert!(stats.usage[1].total >= 40, "{:?}", stats.usage);

    let elsewhere = node.stats(&node.target("b")).await.unwrap_err();
    assert_eq!(elsewhere.code(), Code::NotFound);

    let metrics = node.metrics().await;
    let mut views = metrics.lines().filter(|line| line.starts_with("millpond_views{"));
    let line = views.next().unwrap();
    for part in [r#"dataset="imagenet""#, r#"namespace="vision""#, "} 1"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(
        !metrics.contains("millpond_read_bytes_total"),
        "counted by workers"
    );

    let mut other = request(&target);
    other.readonly = true;
    assert_eq!(
        node.publish_as(other).await.unwrap_err().code(),
        Code::AlreadyExists
    );

    node.unpublish(&target).await.unwrap();
    assert!(!target.exists());
    assert_eq!(node.records(), 0);
    node.unpublish(&target).await.unwrap();
    assert_eq!(node.stats(&target).await.unwrap_err().code(), Code::NotFound);
    // The Dataset is closed some time after its last volume.
    wait_until(|| !node.layout.dataset(UID).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_come_and_go_at_the_same_time() {
    let Some(node) = TestNode::start(|_| {}).await else {
        return;
    };
    let file = &files(1)[3];
    let pods = (0..8).map(|pod| {
        let node = &node;
        async move {
            for _ in 0..3 {
                let name = format!("pod-{pod}");
                // The kubelet may repeat a request before the first is answered.
                let (first, second) = tokio::join!(node.publish(&name), node.publish(&name));
                let target = first.unwrap();
                second.unwrap();
                assert_eq!(read(&target, file).await.unwrap(), file.whole());
                let (first, second) = tokio::join!(node.unpublish(&target), node.unpublish(&target));
                first.unwrap();
                second.unwrap();
                assert!(mounts_at(&target).is_empty());
            }
        }
    });
    futures::future::join_all(pods).await;
    assert_eq!(node.records(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_kernel_views_shows_the_trees_of_its_fuse_mount() {
    let Some(node) = TestNode::start(|options| options.kernel_views = false).await else {
        return;
    };
    let target = node.publish("a").await.unwrap();
    assert_eq!(mounts_at(&target)[0].file_system, "fuse.millpond");
    assert_eq!(mounts_at(&target)[0].root, std::path::Path::new("/gen-1"));
    let file = &files(1)[0];
    assert_eq!(read(&target, file).await.unwrap(), file.whole());
    let mut labelled = request(&node.target("b"));
    if let Some(AccessType::Mount(mount)) = &mut labelled.volume_capability.as_mut().unwrap().access_type {
        mount
            .mount_flags
            .push("context=system_u:object_r:container_file_t:s0".to_owned());
    }
    let refused = node.publish_as(labelled).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    node.unpublish(&target).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_dataset_shows_its_newest_tree() {
    let Some(mut node) = TestNode::prepare(|_| {}) else {
        return;
    };
    node.plan(|plan| plan.datasets.get_mut(UID).unwrap().live = true);
    node.start_keeper();
    node.start_mounter();
    node.start_driver().await;
    let target = node.publish("a").await.unwrap();
    assert_eq!(mounts_at(&target)[0].root, std::path::Path::new("/live"));
    node.unpublish(&target).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_are_refused_by_their_field() {
    let Some(node) = TestNode::start(|options| options.publish_timeout_secs = 1).await else {
        return;
    };
    let target = node.target("a");
    let code = |change: fn(&mut crate::csi::wire::csi::NodePublishVolumeRequest)| {
        let mut request = request(&target);
        change(&mut request);
        let node = &node;
        async move { node.publish_as(request).await.unwrap_err().code() }
    };
    let namespace = "csi.storage.k8s.io/pod.namespace";
    let denied = code(|request| {
        drop(
            request
                .volume_context
                .insert("csi.storage.k8s.io/pod.namespace".into(), "else".into()),
        )
    });
    assert_eq!(denied.await, Code::PermissionDenied);
    assert_eq!(
        code(|request| request.volume_id.clear()).await,
        Code::InvalidArgument
    );
    assert_eq!(
        code(|request| request.target_path = "/etc/x".into()).await,
        Code::InvalidArgument
    );
    assert_eq!(
        code(|request| request.volume_capability = None).await,
        Code::InvalidArgument
    );
    let block = code(|request| {
        request.volume_capability.as_mut().unwrap().access_type = Some(AccessType::Block(BlockVolume {}));
    });
    assert_eq!(block.await, Code::InvalidArgument);
    let unknown = code(|request| drop(request.volume_context.insert("speed".into(), "fast".into())));
    assert_eq!(unknown.await, Code::InvalidArgument);
    let missing = code(|request| drop(request.volume_context.insert("uid".into(), "other".into())));
    assert_eq!(missing.await, Code::Unavailable);
    assert_eq!(node.records(), 0);

    // A namespace in sharedWith may use the Dataset; an inline volume names it itself.
    let mut shared = request(&target);
    shared.volume_context.insert(namespace.into(), "friends".into());
    node.publish_as(shared).await.unwrap();
    node.unpublish(&target).await.unwrap();
    let mut inline = request(&target);
    inline.volume_context = [
        (namespace, "vision"),
        ("dataset", "imagenet"),
        ("csi.storage.k8s.io/ephemeral", "true"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    node.publish_as(inline.clone()).await.unwrap();
    node.unpublish(&target).await.unwrap();
    inline.volume_context.insert(namespace.into(), "else".into());
    assert_eq!(
        node.publish_as(inline).await.unwrap_err().code(),
        Code::Unavailable
    );
    assert_eq!(volume_id(), request(&target).volume_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_worker_shows_the_dataset_too() {
    let Some(mut node) = TestNode::prepare(|_| {}) else {
        return;
    };
    node.plan(|plan| plan.pools.get_mut("pool").unwrap().members[0].node = "elsewhere".to_owned());
    node.start_keeper();
    node.start_mounter();
    node.start_driver().await;
    let target = node.publish("a").await.unwrap();
    let file = &files(1)[1];
    assert_eq!(read(&target, file).await.unwrap(), file.whole());
    node.unpublish(&target).await.unwrap();
}
