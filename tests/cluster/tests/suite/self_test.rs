//! The cluster itself: two nodes are brought up, used, broken, mended and taken down.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Client;
use test_cluster::{Cluster, Name, UpOptions, eventually, tool, workspace};

use crate::archives;
use crate::checks::{Checks, GUARD, OwnCluster, has, refused, refused_with, run, same};

/// Two pods, one on each node.
const PODS: &str = include_str!("self-test.yaml");

const MOUNTS: &str = "/proc/self/mountinfo";

#[test]
fn the_cluster_is_what_tests_rely_on() {
    let own = OwnCluster::new("self-test").expect("no orphan is left");
    let second = OwnCluster {
        name: format!("{}-b", own.name).parse().expect("a name"),
    };
    let name = &own.name;
    let mut checks = Checks::default();
    let mut up = None;
    checks.check("two nodes come up, with the version that was asked for", || {
        up = Some(comes_up(name)?);
        Ok(())
    });
    let Some(cluster) = up else {
        return checks.finish();
    };
    checks.check("a second cluster of the name is refused", || {
        let again = Cluster::up(&UpOptions::new(name.clone()), |_, _| ());
        refused_with(again, "is up already")
    });
    checks.check("pods run on both nodes", || runs_pods(&cluster));
    checks.check("pods reach each other, names and Services", || {
        pods_reach_each_other(&cluster)
    });
    checks.check(
        "mounts propagate between node and pod, and to no other node",
        || mounts_propagate(&cluster),
    );
    checks.check(
        "a lost node comes back with its disk and without its mounts",
        || node_comes_back_with_its_disk(&cluster),
    );
    checks.check("the kubelet restarts below running pods", || {
        kubelet_restarts(&cluster)
    });
    checks.check("the API server is stopped, paused and started", || {
        apiserver_goes_and_comes(&cluster)
    });
    checks.check(
        "the S3 server checks credentials and is reached from pods",
        || s3_checks_credentials(&cluster),
    );
    checks.check("image archives are valid, reproducible and imported", || {
        archives::are_valid(&cluster)
    });
    checks.check("two clusters do not collide", || {
        clusters_do_not_collide(&cluster, &second.name)
    });
    checks.check("what a killed run left is replaced", || {
        replaces_what_a_killed_run_left(&cluster)
    });
    checks.check("nothing is left of it", || leaves_nothing(name));
    checks.finish();
}

/// `n1` or `n2`.
fn on(cluster: &Cluster, node: &str, words: &[&str]) -> Result<String> {
    cluster.node(node.parse()?)?.run(words)
}

/// Runs a command in a pod.
fn exec(cluster: &Cluster, pod: &str, words: &[&str]) -> Result<String> {
    cluster.kubectl().run(&[&["exec", pod, "--"], words].concat())
}

fn jsonpath(cluster: &Cluster, object: &[&str], path: &str) -> Result<String> {
    let path = format!("jsonpath={path}");
    cluster
        .kubectl()
        .run(&[&["get"], object, &["-o", &path]].concat())
}

fn address_of(cluster: &Cluster, pod: &str) -> Result<String> {
    jsonpath(cluster, &["pod", pod], "{.status.podIP}")
}

fn comes_up(name: &Name) -> Result<Cluster> {
    let options = UpOptions {
        nodes: 2,
        ..UpOptions::new(name.clone())
    };
    let cluster = Cluster::up(&options, |time, step| {
        println!("{:>5} ms  {step}", time.as_millis())
    })?;
    let nodes = jsonpath(&cluster, &["nodes"], "{.items[*].metadata.name}")?;
    same(&nodes, "n1 n2")?;
    let version = cluster.kubectl().run(&["version", "-o", "json"])?;
    let version: serde_json::Value = serde_json::from_str(&version)?;
    let version = version
        .pointer("/serverVersion/gitVersion")
        .and_then(|version| version.as_str());
    same(version.unwrap_or_default(), &kubernetes_version()?)?;
    Ok(cluster)
}

/// That of the module which links Kubernetes into one program.
fn kubernetes_version() -> Result<String> {
    let module = fs::read_to_string(workspace().join("tests/cluster/go/go.mod"))?;
    let mut lines = module.lines().map(str::trim);
    let version = lines.find_map(|line| {
        line.trim_start_matches("require ")
            .strip_prefix("k8s.io/kubernetes ")
    });
    Ok(version
        .context("no version of Kubernetes is required")?
        .to_owned())
}

fn runs_pods(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    kubectl.apply(PODS)?;
    let words = [
        "wait",
        "--for=condition=Ready",
        "--timeout=25s",
        "pod/one",
        "pod/two",
    ];
    kubectl.run(&words).map(drop)
}

fn pods_reach_each_other(cluster: &Cluster) -> Result<()> {
    let (one, two) = (address_of(cluster, "one")?, address_of(cluster, "two")?);
    exec(cluster, "one", &["ping", "-c", "1", "-W", "5", &two])?;
    exec(cluster, "two", &["ping", "-c", "1", "-W", "5", &one])?;
    has(
        &exec(
            cluster,
            "one",
            &["nslookup", "two.pods.default.svc.cluster.local"],
        )?,
        &two,
    )?;
    exec(
        cluster,
        "one",
        &["nslookup", "kubernetes.default.svc.cluster.local"],
    )?;
    exec(cluster, "one", &["nc", "-w", "5", "kubernetes.default", "443"]).map(drop)
}

fn mounts_propagate(cluster: &Cluster) -> Result<()> {
    const BELOW: &str = "/var/lib/millpond/below";
    const OTHER: &str = "/var/lib/millpond/other";
    exec(cluster, "one", &["mkdir", "-p", "/host/below"])?;
    exec(
        cluster,
        "one",
        &["mount", "-t", "tmpfs", "from-pod", "/host/below"],
    )?;
    has(&on(cluster, "n1", &["cat", MOUNTS])?, &format!(" {BELOW} "))?;
    on(cluster, "n1", &["mkdir", "-p", OTHER])?;
    on(cluster, "n1", &["mount", "-t", "tmpfs", "from-node", OTHER])?;
    has(&exec(cluster, "one", &["cat", MOUNTS])?, " /host/other ")?;
    ensure!(
        !on(cluster, "n2", &["cat", MOUNTS])?.contains(BELOW),
        "n2 has the mount of n1"
    );
    ensure!(
        !fs::read_to_string(MOUNTS)?.contains(BELOW),
        "the machine has the mount of n1"
    );
    exec(cluster, "one", &["test", "-c", "/dev/fuse"])?;
    has(&on(cluster, "n1", &["cat", "/proc/self/mounts"])?, "fusectl")
}

fn node_comes_back_with_its_disk(cluster: &Cluster) -> Result<()> {
    let node = cluster.node("n1".parse()?)?;
    let files = ["/mnt/kept", "/var/lib/millpond/kept"];
    for file in files {
        node.run(&["sh", "-c", &format!("echo kept >{file}")])?;
    }
    node.stop()?;
    refused(node.run(&["true"]))?;
    node.start()?;
    for file in files {
        same(&node.run(&["cat", file])?, "kept\n")?;
    }
    let mounts = node.run(&["cat", MOUNTS])?;
    ensure!(
        !mounts.contains("/var/lib/millpond/below"),
        "a mount came back: {mounts}"
    );
    let words = ["wait", "--for=condition=Ready", "--timeout=25s", "pod/one"];
    cluster.kubectl().run(&words)?;
    eventually("the pod", GUARD, || exec(cluster, "one", &["true"]).map(Some)).map(drop)
}

fn kubelet_restarts(cluster: &Cluster) -> Result<()> {
    let container = || {
        jsonpath(
            cluster,
            &["pod", "two"],
            "{.status.containerStatuses[0].containerID}",
        )
    };
    let before = container()?;
    cluster.node("n2".parse()?)?.restart_kubelet()?;
    same(&container()?, &before)?;
    let guard = Duration::from_secs(20);
    eventually("the pod", guard, || exec(cluster, "two", &["true"]).map(Some)).map(drop)
}

fn apiserver_goes_and_comes(cluster: &Cluster) -> Result<()> {
    let server = cluster.api_server();
    let get = || cluster.kubectl().run(&["get", "nodes"]);
    server.stop()?;
    refused(get())?;
    server.start()?;
    get()?;
    server.pause()?;
    refused(cluster.kubectl().run(&["get", "nodes", "--request-timeout=2s"]))?;
    server.start()?;
    get().map(drop)
}

fn s3_checks_credentials(cluster: &Cluster) -> Result<()> {
    let s3 = cluster.s3();
    let access = s3.start(None)?;
    fs::create_dir_all(access.directory.join("bucket"))?;
    s3.add_user("alice", "her-secret")?;
    s3.set_owner("bucket", "alice")?;
    let (host, port) = access
        .endpoint
        .trim_start_matches("http://")
        .split_once(':')
        .context("a port")?;
    exec(cluster, "one", &["nc", "-w", "5", host, port])?;
    // By the cluster's authority alone: a certificate of another is an error.
    let ca = reqwest::Certificate::from_pem(&fs::read(&access.ca)?)?;
    for endpoint in [&access.endpoint, &access.tls_endpoint] {
        let status = status(&format!("{endpoint}/bucket/x"), ca.clone())?;
        ensure!(status == 403, "{endpoint} answers {status} to who has no key");
    }
    has(&s3.admin(&["list-users"])?, "alice")?;
    let mut wrong = Command::new(tool("versitygw"));
    wrong.args(["admin", "--access", &access.access_key, "--secret", "wrong"]);
    refused(run(wrong.args([
        "--endpoint-url",
        &access.endpoint,
        "list-users",
    ])))
    .map(drop)
}

fn status(url: &str, ca: reqwest::Certificate) -> Result<u16> {
    millpond_process::tls::install();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let request = async {
        let client = Client::builder()
            .no_proxy()
            .tls_certs_only([ca])
            .timeout(GUARD)
            .build()?;
        Ok::<_, reqwest::Error>(client.get(url).send().await?.status().as_u16())
    };
    Ok(runtime.block_on(request)?)
}

fn clusters_do_not_collide(cluster: &Cluster, second: &Name) -> Result<()> {
    let other = Cluster::up(&UpOptions::new(second.clone()), |_, _| ())?;
    ensure!(
        other.host_address() != cluster.host_address(),
        "both have one address"
    );
    other.kubectl().run(&["get", "node", "n1"])?;
    refused(other.kubectl().run(&["get", "node", "n2"]))?;
    cluster.kubectl().run(&["get", "node", "n2"])?;
    Cluster::down(second, None)?;
    exec(cluster, "one", &["true"]).map(drop)
}

fn replaces_what_a_killed_run_left(cluster: &Cluster) -> Result<()> {
    for process in ["apiserver", "etcd"] {
        let record = fs::read_to_string(cluster.state_dir().join("pids").join(process))?;
        let pid = record.split_whitespace().next().context("a record has a pid")?;
        run(Command::new("kill").args(["-KILL", pid]))?;
    }
    let address = SocketAddr::from((cluster.host_address(), 6_443));
    eventually("their end", GUARD, || {
        Ok(TcpStream::connect_timeout(&address, GUARD).is_err().then_some(()))
    })?;
    let again = Cluster::up(&UpOptions::new(cluster.name().clone()), |_, _| ())?;
    same(&jsonpath(&again, &["nodes"], "{.items[*].metadata.name}")?, "n1")
}

fn leaves_nothing(name: &Name) -> Result<()> {
    let cluster = Cluster::open(name)?;
    cluster.prometheus().start()?;
    cluster.s3().start(None)?;
    let traces = Traces::of(&cluster);
    Cluster::down(name, None)?;
    let left = traces.left()?;
    ensure!(left.is_empty(), "left: {left:#?}");
    // Nothing to do is no error.
    Cluster::down(name, None)
}

/// What a cluster may leave behind, of every kind.
struct Traces {
    mark: String,
    host: String,
    name: Name,
}

impl Traces {
    fn of(cluster: &Cluster) -> Self {
        Self {
            mark: format!("millpond-cluster-{}", cluster.name()),
            host: cluster.host_address().to_string(),
            name: cluster.name().clone(),
        }
    }

    fn left(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        for process in procfs::process::all_processes()?.flatten() {
            let words = process.cmdline().unwrap_or_default();
            let is_ours = words
                .iter()
                .any(|word| word.contains(&self.mark) || *word == self.name.as_str());
            if is_ours {
                left.push(words.join(" "));
            }
        }
        let bridge = bridge_of(&self.host)?;
        for (words, mark) in [
            (["-o", "link", "show"], self.mark.as_str()),
            (["-o", "netns", "list"], &format!("{bridge}-")),
            (["-o", "route", "show"], self.host.trim_end_matches("0.254")),
        ] {
            let found = run(Command::new("ip").args(words))?;
            left.extend(
                found
                    .lines()
                    .filter(|line| line.contains(mark))
                    .map(str::to_owned),
            );
        }
        // In each hierarchy, or in the only one; of all nodes that a cluster of this name may have had.
        let groups = format!("millpond-{}-", self.name);
        let mut hierarchies = vec![PathBuf::from("/sys/fs/cgroup")];
        for entry in fs::read_dir("/sys/fs/cgroup")? {
            let path = entry?.path();
            hierarchies.extend(path.is_dir().then_some(path));
        }
        for hierarchy in hierarchies {
            for entry in fs::read_dir(&hierarchy)? {
                let entry = entry?;
                let is_ours = entry.file_name().to_string_lossy().starts_with(&groups);
                left.extend(is_ours.then(|| entry.path().display().to_string()));
            }
        }
        let mounts = fs::read_to_string(MOUNTS)?;
        left.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&self.mark))
                .map(str::to_owned),
        );
        for folder in ["/tmp", "/dev/shm"] {
            let folder = Path::new(folder).join(&self.mark);
            left.extend(folder.exists().then(|| folder.display().to_string()));
        }
        Ok(left)
    }
}

/// The number is in both: `10.<200+N>.0.254` and `millpond<N>`.
fn bridge_of(host: &str) -> Result<String> {
    let second: u8 = host
        .split('.')
        .nth(1)
        .context("an address has four parts")?
        .parse()?;
    Ok(format!("millpond{}", second - 200))
}
