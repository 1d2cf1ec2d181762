//! In a real Kubernetes on this machine: two nodes and an S3 server come up, the chart is installed, a Dataset is declared,
//! a pod reads it in three epochs, kubectl and Prometheus show what they see of it, and everything is taken down.

mod data;
mod shell;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use harness::Scratch;
use harness::report::say;
use test_cluster::{Cluster, Name, S3Access, UpOptions, tool, tools_dir, workspace};

use self::data::Data;
use self::shell::Shell;
use crate::interrupt::Interrupt;

/// The words of the command line.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Leaves the cluster up, and prints how to use it.
    #[arg(long)]
    keep: bool,
}

/// The cluster's name.
const NAME: &str = "demo";
const NODES: u8 = 2;

/// The values of the image that the chart installs.
const IMAGE: &str = "image.repository=millpond.test/millpond,image.tag=demo,image.pullPolicy=Never";

/// A pod that reads the whole Dataset and prints the checksum of all bytes.
const CHECK: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: check}
spec:
  restartPolicy: Never
  containers:
    - name: check
      image: millpond.test/busybox:1
      command: [sh, -c, "cd /data && find . -type f | sort | xargs cat | sha256sum | cut -d ' ' -f 1"]
      volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: imagenet}}]
"#;

/// What Prometheus is asked for at the end.
const QUERIES: [&str; 3] = [
    r#"millpond:hit_ratio{dataset="imagenet"}"#,
    r#"sum by (served_from) (millpond_read_bytes_total{dataset="imagenet",served_from="local"})"#,
    r#"sum by (served_from) (millpond_read_bytes_total{dataset="imagenet",served_from="origin"})"#,
];

/// Runs all of it. Without `--keep`, and after a failure, nothing is left.
pub(crate) fn run(arguments: &Arguments, interrupt: &Interrupt) -> Result<()> {
    let demo = Demo {
        begun: Instant::now(),
        interrupt,
    };
    for built in [image(), plugin()] {
        ensure!(
            built.is_file(),
            "there is no {}: make demo builds it",
            built.display()
        );
    }
    demo.section("a Kubernetes of two nodes (about half a minute)")?;
    let name: Name = NAME.parse()?;
    let shown = demo.bring_up(&name).and_then(|cluster| {
        demo.show(&cluster)?;
        Ok(cluster)
    });
    if let (Ok(cluster), true) = (&shown, arguments.keep) {
        let program = std::env::current_exe().context("failed to find this program")?;
        say(format_args!(
            "\nThe cluster is up:\n  export KUBECONFIG={}\n  {} down --name {NAME}",
            cluster.kubeconfig().display(),
            program.with_file_name("millpond-cluster").display()
        ));
        return Ok(());
    }
    demo.heading("everything down");
    let down = Cluster::down(&name, None);
    // What a signal has ended failed by that.
    interrupt.check()?;
    shown.map(drop).and(down)
}

struct Demo<'a> {
    begun: Instant,
    interrupt: &'a Interrupt,
}

impl Demo<'_> {
    fn heading(&self, what: &str) {
        say(format_args!(
            "\n== {what} (after {} s)",
            self.begun.elapsed().as_secs()
        ));
    }

    /// Begins a section, unless a signal to end has come.
    fn section(&self, what: &str) -> Result<()> {
        self.interrupt.check()?;
        self.heading(what);
        Ok(())
    }

    fn bring_up(&self, name: &Name) -> Result<Cluster> {
        let options = UpOptions {
            nodes: NODES,
            replace: true,
            ..UpOptions::new(name.clone())
        };
        let cluster = Cluster::up(&options, |time, step| {
            say(format_args!("  {step:<40} {:>5.1} s", time.as_secs_f64()));
        })?;
        self.interrupt.check()?;
        Ok(cluster)
    }

    fn show(&self, cluster: &Cluster) -> Result<()> {
        self.section("the image on both nodes, an S3 server, Prometheus")?;
        cluster.load(&[image()])?;
        let s3 = cluster.s3().start(None)?;
        let prometheus = cluster.prometheus().start()?;
        say(format_args!("  S3: {}\n  Prometheus: {prometheus}", s3.endpoint));

        let scratch = Scratch::below(&std::env::temp_dir(), "millpond-demo-")?;
        let work = scratch.path();
        let shell = commands(cluster, &scratch)?;

        self.section(&format!("a bucket of {}", data::DESCRIPTION))?;
        let data = Data::write(&s3.directory.join("imagenet/train"))?;

        self.section("Millpond, a pool, the bucket's keys, a Dataset")?;
        install(&shell)?;
        declare(&shell, &s3, work)?;

        self.section("a pod that reads all of it three times")?;
        train(&shell, work)?;
        let checked = checksum_in_a_pod(&shell, work)?;
        ensure!(
            checked == data.checksum,
            "the pod has read other bytes than the bucket's"
        );
        say(format_args!(
            "every byte that a pod read is the bucket's: sha256 {checked}"
        ));

        self.section("what is there")?;
        shell.show(&["kubectl", "millpond", "warmup", "imagenet", "--watch"])?;
        shell.show(&["kubectl", "get", "datasets,dataloads,cachepools", "-A"])?;
        shell.show(&["kubectl", "millpond", "status", "-A"])?;
        shell.show(&["kubectl", "millpond", "doctor", "--quiet"])?;

        self.section(&format!("the hit ratio in Prometheus, at {prometheus}"))?;
        for query in QUERIES {
            let value = cluster.prometheus().value(query)?;
            let value = value.map_or_else(|| "no series yet".to_owned(), |value| value.to_string());
            say(format_args!("{query}\n  {value}"));
        }
        Ok(())
    }
}

/// Commands that find kubectl, with its plugin beside it, helm and the cluster.
fn commands(cluster: &Cluster, scratch: &Scratch) -> Result<Shell> {
    let programs = scratch.try_directory("bin")?;
    symlink(plugin(), programs.join("kubectl-millpond")).context("failed to link the plugin of kubectl")?;
    let kubectl = programs.join("kubectl");
    let script = format!("#!/bin/sh\nexec \"{}\" kubectl \"$@\"\n", tool("kube").display());
    fs::write(&kubectl, script)
        .and_then(|()| fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)))
        .context("failed to write kubectl")?;
    let mut shell = Shell::new(workspace());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = [programs, tools_dir().join("bin")]
        .into_iter()
        .chain(std::env::split_paths(&path));
    shell.set("PATH", std::env::join_paths(paths).context("a PATH of these")?);
    shell.set("KUBECONFIG", cluster.kubeconfig());
    Ok(shell)
}

/// The image, as `make demo` builds it: without optimisation, which takes minutes instead of half an hour on two cores.
/// Cached data is read by the kernel in any case.
fn image() -> PathBuf {
    workspace().join("target/image/millpond-demo.tar")
}

/// The command line, built beside the image's programs: kubectl's plugin.
fn plugin() -> PathBuf {
    let target = format!(
        "target/{}-unknown-linux-musl/debug/millpond",
        std::env::consts::ARCH
    );
    workspace().join(target)
}

fn install(shell: &Shell) -> Result<()> {
    let words = [
        "helm",
        "install",
        "millpond",
        "deploy/chart",
        "--namespace",
        "millpond-system",
        "--create-namespace",
        "--wait",
        "--timeout",
        "2m",
        "--set",
        IMAGE,
    ];
    say(format_args!("\n$ {}", words.join(" ")));
    let printed = shell.output(&words)?;
    // The rest is the chart's notes, for who installs it.
    let status = printed.lines().find(|line| line.starts_with("STATUS"));
    say(status.context("helm printed no status")?);
    Ok(())
}

fn declare(shell: &Shell, s3: &S3Access, work: &Path) -> Result<()> {
    // With this bucket, these keys and a pool that fits, also on a disk that is nearly full.
    let manifest = example(
        "imagenet.yaml",
        &[
            ("AKIAIOSFODNN7EXAMPLE", &s3.access_key),
            ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", &s3.secret_key),
            (
                "# endpoint: http://minio.storage.svc:9000",
                &format!("endpoint: {}", s3.endpoint),
            ),
            ("# allow_http: ", "allow_http: "),
            ("capacity: 1Gi", "capacity: 256Mi"),
            ("capacity: 100Gi", "capacity: 4Gi\n      minFreePercent: 0"),
        ],
    )?;
    let file = write(work, "imagenet.yaml", &manifest)?;
    shell.show(&["kubectl", "apply", "-f", &file])?;
    shell.show(&[
        "kubectl",
        "wait",
        "--for=condition=Ready",
        "--timeout=60s",
        "dataset/imagenet",
    ])
}

fn train(shell: &Shell, work: &Path) -> Result<()> {
    let manifest = example(
        "training-pod.yaml",
        &[("image: busybox", "image: millpond.test/busybox:1")],
    )?;
    let file = write(work, "training-pod.yaml", &manifest)?;
    shell.show(&["kubectl", "apply", "-f", &file])?;
    wait_for_end(shell, "pod/training")?;
    shell.show(&["kubectl", "logs", "training"])
}

/// The checksum of what another pod reads.
fn checksum_in_a_pod(shell: &Shell, work: &Path) -> Result<String> {
    let file = write(work, "check.yaml", CHECK)?;
    shell.output(&["kubectl", "apply", "-f", &file])?;
    wait_for_end(shell, "pod/check")?;
    let printed = shell.output(&["kubectl", "logs", "check"])?;
    Ok(printed.trim().to_owned())
}

/// An example of the documentation, with these words instead of those.
fn example(name: &str, changes: &[(&str, &str)]) -> Result<String> {
    let path = workspace().join("deploy/examples").join(name);
    let mut text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    for (from, to) in changes {
        ensure!(text.contains(from), "{} has no {from:?}", path.display());
        text = text.replace(from, to);
    }
    Ok(text)
}

fn write(directory: &Path, name: &str, text: &str) -> Result<String> {
    let path = directory.join(name);
    fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    Ok(path.display().to_string())
}

fn wait_for_end(shell: &Shell, pod: &str) -> Result<()> {
    let phase = "--for=jsonpath={.status.phase}=Succeeded";
    shell
        .output(&["kubectl", "wait", phase, "--timeout=300s", pod])
        .map(drop)
}
