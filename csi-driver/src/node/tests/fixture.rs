//! A node with its keeper, its driver, its mounter and a client in the kubelet's role.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use harness::helper;
use hyper_util::rt::TokioIo;
use millpond_wire::plan::{DriverDataset, Medium, Member, Pool, Tier};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::csi::wire::csi::node_client::NodeClient;
use crate::csi::wire::csi::volume_capability::access_mode::Mode;
use crate::csi::wire::csi::volume_capability::{AccessMode, AccessType, MountVolume};
use crate::csi::wire::csi::{
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest,
    NodeUnpublishVolumeRequest, VolumeCapability,
};
use crate::node::Layout;
use crate::node::plan::{Plan, PlanStore};
use crate::node::testing::{NODE, TestDriverOptions, mounter_socket};
use millpond_fs::fuse::testing::{TestFile, complete, write_catalog};
use millpond_fs::mount::{MountTable, detach};
use millpond_fs::mounter::Mounter;

pub(super) const GUARD: Duration = Duration::from_secs(60);
pub(super) const UID: &str = "11111111-2222-3333-4444-555555555555";

/// Returns the files of a generation: each later one has one more.
pub(super) fn files(generation: u64) -> Vec<TestFile> {
    let later = (2..=generation).map(|later| TestFile::new(format!("later-{later}"), 1000));
    let first = (0..40).map(|number| TestFile::new(format!("dir/{number}"), 50_000 + number));
    first.chain(later).collect()
}

pub(super) struct TestNode {
    pub(super) options: TestDriverOptions,
    pub(super) layout: Layout,
    keeper: Option<Child>,
    mounter: Option<Child>,
    driver: Option<Child>,
    _directory: TempDir,
}

impl TestNode {
    /// Starts a node with a plan, one catalog and all processes. `None`: this machine cannot run it.
    pub(super) async fn start(change: impl FnOnce(&mut TestDriverOptions)) -> Option<Self> {
        let mut node = Self::prepare(change)?;
        node.start_keeper();
        node.start_mounter();
        node.start_driver().await;
        Some(node)
    }

    pub(super) fn prepare(change: impl FnOnce(&mut TestDriverOptions)) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || File::open("/dev/fuse").is_err() {
            eprintln!("not run: needs root and /dev/fuse");
            return None;
        }
        let directory = tempfile::Builder::new()
            .prefix("millpond-node-")
            .tempdir()
            .unwrap();
        let root = directory.path().canonicalize().unwrap();
        let mut options = TestDriverOptions {
            directory: root.clone(),
            kernel_views: true,
            publish_timeout_secs: 20,
            delay_ms: 0,
            metrics_port: 0,
        };
        change(&mut options);
        let layout = Layout::new(root.join("kubelet"), root.join("host"));
        for made in ["kubelet/pods", "kubelet/plugins_registry", "host/driver"] {
            std::fs::create_dir_all(root.join(made)).unwrap();
        }
        for made in ["objects", "landing"] {
            std::fs::create_dir_all(root.join("disk/pool").join(UID).join(made)).unwrap();
        }
        let node = Self {
            options,
            layout,
            keeper: None,
            mounter: None,
            driver: None,
            _directory: directory,
        };
        node.plan(|_| {});
        node.catalog(1);
        Some(node)
    }

    /// Writes the plan that the driver starts with.
    pub(super) fn plan(&self, change: impl FnOnce(&mut Plan)) {
        let dataset = DriverDataset {
            uid: UID.to_owned(),
            namespace: "vision".to_owned(),
            name: "imagenet".to_owned(),
            pool: "pool".to_owned(),
            shared_with: vec!["friends".to_owned()],
            ..DriverDataset::default()
        };
        let pool = Pool {
            name: "pool".to_owned(),
            tiers: vec![Tier {
                medium: Medium::Disk.into(),
                path: self.options.directory.join("disk").to_str().unwrap().to_owned(),
                capacity_bytes: 1 << 30,
            }],
            members: vec![Member {
                node: NODE.to_owned(),
                address: String::new(),
            }],
        };
        let mut plan = Plan {
            synced: true,
            datasets: [(UID.to_owned(), dataset)].into(),
            pools: [("pool".to_owned(), pool)].into(),
        };
        change(&mut plan);
        let store = PlanStore::open(self.layout.plan());
        store.set(plan);
        store.write_to_disk();
    }

    /// Writes a generation's catalog, which the next driver finds.
    pub(super) fn catalog(&self, generation: u64) {
        let directory = self.layout.catalogs_of(UID);
        std::fs::create_dir_all(&directory).unwrap();
        write_catalog(&directory, generation, &files(generation));
    }

    /// Stores a complete file on this node.
    pub(super) fn complete(&self, file: &TestFile) {
        complete(&self.options.directory.join("disk/pool").join(UID), file);
    }

    pub(super) fn start_keeper(&mut self) {
        let socket = self.options.directory.join("host/keeper/keeper.sock");
        let child = program("keeper", socket.to_str().unwrap());
        self.keeper = Some(child);
        wait_until(|| std::os::unix::net::UnixStream::connect(&socket).is_ok() || socket.exists());
    }

    pub(super) fn start_mounter(&mut self) {
        // Shared, so that the driver's mounts reach the mounter's namespace.
        let directory = &self.options.directory;
        if mounts_at(directory).is_empty() {
            mount_bind(directory, directory).unwrap();
            mount_change(directory, MountPropagationFlags::SHARED).unwrap();
        }
        let socket = mounter_socket(directory);
        self.mounter = Some(program("mounter", socket.to_str().unwrap()));
    }

    /// Returns a client of the mounter, as the driver has one.
    pub(super) fn mounter(&self) -> Mounter {
        Mounter::at(mounter_socket(&self.options.directory))
    }

    /// Returns whether a thread of the mounter sleeps in `openat`.
    pub(super) fn mounter_waits_in_openat(&self) -> bool {
        let threads = format!("/proc/{}/task", self.mounter.as_ref().unwrap().id());
        let opening = format!("{} ", libc::SYS_openat);
        let mut threads = std::fs::read_dir(threads).unwrap().flatten();
        threads.any(|thread| {
            let call = std::fs::read_to_string(thread.path().join("syscall"));
            call.is_ok_and(|call| call.starts_with(&opening))
        })
    }

    pub(super) fn spawn_driver(&self) -> Child {
        program("driver", &serde_json::to_string(&self.options).unwrap())
    }

    pub(super) async fn start_driver(&mut self) {
        self.driver = Some(self.spawn_driver());
        self.wait_for_driver().await;
    }

    /// Makes `next` the driver, and stops the previous one by SIGTERM, as its pod's deletion does.
    pub(super) async fn replace_driver(&mut self, next: Child) {
        let mut before = self.driver.replace(next).unwrap();
        let pid = rustix::process::Pid::from_child(&before);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(before.wait().unwrap().success());
        self.wait_for_driver().await;
    }

    async fn wait_for_driver(&mut self) {
        let until = Instant::now() + GUARD;
        loop {
            if let Ok(status) = self.driver.as_mut().unwrap().try_wait() {
                assert!(status.is_none(), "the driver exited: {status:?}");
            }
            if let Ok(channel) = connect(&self.layout.csi_socket()).await {
                let mut client = NodeClient::new(channel);
                if client
                    .node_get_info(crate::csi::wire::csi::NodeGetInfoRequest {})
                    .await
                    .is_ok()
                {
                    return;
                }
            }
            assert!(Instant::now() < until, "the driver does not serve");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) fn kill_driver(&mut self) {
        kill(&mut self.driver);
    }

    pub(super) fn kill_keeper(&mut self) {
        kill(&mut self.keeper);
    }

    pub(super) fn kill_mounter(&mut self) {
        kill(&mut self.mounter);
    }

    /// Simulates a power loss: no process and no mount survives.
    pub(super) fn lose_power(&mut self) {
        self.kill_driver();
        self.kill_keeper();
        // Last: the calls that it waits for end with the keeper.
        self.kill_mounter();
        unmount_all(&self.options.directory);
    }

    pub(super) async fn client(&self) -> NodeClient<Channel> {
        NodeClient::new(connect(&self.layout.csi_socket()).await.unwrap())
    }

    /// Returns a pod's target path, with the parent directories that the kubelet creates.
    pub(super) fn target(&self, pod: &str) -> PathBuf {
        let parent = self
            .layout
            .kubelet()
            .join("pods")
            .join(pod)
            .join("volumes/kubernetes.io~csi/pv");
        std::fs::create_dir_all(&parent).unwrap();
        parent.join("mount")
    }

    pub(super) async fn publish(&self, pod: &str) -> Result<PathBuf, Code> {
        let target = self.target(pod);
        let request = request(&target);
        let mut client = self.client().await;
        let response = client.node_publish_volume(request).await;
        response.map(|_| target).map_err(|status| status.code())
    }

    pub(super) async fn publish_as(&self, request: NodePublishVolumeRequest) -> Result<(), Status> {
        self.client().await.node_publish_volume(request).await.map(|_| ())
    }

    pub(super) async fn unpublish(&self, target: &Path) -> Result<(), Status> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: volume_id(),
            target_path: target.to_str().unwrap().to_owned(),
        };
        self.client()
            .await
            .node_unpublish_volume(request)
            .await
            .map(|_| ())
    }

    /// As [`Self::unpublish`], for a driver that may be killed meanwhile.
    pub(super) async fn unpublish_or_die(&self, target: &Path) -> Option<()> {
        let channel = connect(&self.layout.csi_socket()).await.ok()?;
        let request = NodeUnpublishVolumeRequest {
            volume_id: volume_id(),
            target_path: target.to_str()?.to_owned(),
        };
        NodeClient::new(channel)
            .node_unpublish_volume(request)
            .await
            .ok()
            .map(|_| ())
    }

    pub(super) async fn stats(&self, target: &Path) -> Result<NodeGetVolumeStatsResponse, Status> {
        let request = NodeGetVolumeStatsRequest {
            volume_id: volume_id(),
            volume_path: target.to_str().unwrap().to_owned(),
            staging_target_path: String::new(),
        };
        let response = self.client().await.node_get_volume_stats(request).await;
        response.map(tonic::Response::into_inner)
    }

    /// Returns the metrics in Prometheus' text format.
    pub(super) async fn metrics(&self) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let address = ("127.0.0.1", self.options.metrics_port);
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    pub(super) fn records(&self) -> usize {
        std::fs::read_dir(self.layout.volumes()).map_or(0, Iterator::count)
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.lose_power();
    }
}

pub(super) fn volume_id() -> String {
    format!("millpond-{UID}")
}

pub(super) fn request(target: &Path) -> NodePublishVolumeRequest {
    let context = [
        ("dataset", "imagenet"),
        ("namespace", "vision"),
        ("uid", UID),
        ("csi.storage.k8s.io/pod.namespace", "vision"),
        ("csi.storage.k8s.io/pod.name", "trainer"),
        ("csi.storage.k8s.io/pod.uid", "pod-uid"),
        ("csi.storage.k8s.io/ephemeral", "false"),
    ];
    let context = context.map(|(key, value)| (key.to_owned(), value.to_owned()));
    NodePublishVolumeRequest {
        volume_id: volume_id(),
        target_path: target.to_str().unwrap().to_owned(),
        volume_capability: Some(VolumeCapability {
            access_mode: Some(AccessMode {
                mode: Mode::MultiNodeReaderOnly.into(),
            }),
            access_type: Some(AccessType::Mount(MountVolume::default())),
        }),
        volume_context: context.into(),
        ..NodePublishVolumeRequest::default()
    }
}

/// Reads a complete file on a blocking thread.
pub(super) async fn read(target: &Path, file: &TestFile) -> std::io::Result<Vec<u8>> {
    let path = target.join(&file.path);
    tokio::task::spawn_blocking(move || std::fs::read(path))
        .await
        .unwrap()
}

pub(super) fn mounts_at(path: &Path) -> Vec<millpond_fs::mount::Mount> {
    let table = MountTable::read().unwrap();
    table
        .iter()
        .filter(|mount| mount.point == path)
        .cloned()
        .collect()
}

pub(super) fn wait_until(mut done: impl FnMut() -> bool) {
    let until = Instant::now() + GUARD;
    while !done() {
        assert!(Instant::now() < until, "the condition was not reached in time");
        #[expect(clippy::disallowed_methods, reason = "a test may wait")]
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn unmount_all(directory: &Path) {
    let table = MountTable::read().unwrap();
    let points: Vec<_> = table.iter().map(|mount| mount.point.clone()).collect();
    for point in points.iter().rev().filter(|point| point.starts_with(directory)) {
        drop(detach(point));
    }
}

fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        drop(child.kill());
        child.wait().unwrap();
    }
}

/// Starts one of the node's programs.
fn program(role: &str, argument: &str) -> Child {
    helper("test-node")
        .args([role, argument])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

async fn connect(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    let socket = socket.to_owned();
    let dial = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { std::io::Result::Ok(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    Endpoint::from_static("http://csi")
        .connect_with_connector(dial)
        .await
}
