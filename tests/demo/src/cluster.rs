//! In a real Kubernetes on this machine: two nodes and an S3 server come up, the chart is installed, a Dataset is declared,
//! a pod reads it in three epochs, kubectl and Prometheus show what they see of it, and everything is taken down.

mod data;
mod machine;
mod shell;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use harness::report::say;

use self::data::Data;
use self::machine::Machine;
use self::shell::Shell;
use crate::interrupt::Interrupt;

/// The words of the command line.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Leaves the cluster up, and prints how to use it.
    #[arg(long)]
    keep: bool,
}

/// The image that the chart installs.
const IMAGE: &str = "target/image/millpond-demo.tar";
const IMAGE_REPOSITORY: &str = "millpond.test/millpond";
const IMAGE_TAG: &str = "demo";

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
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .context("the project's directory")?;
    let demo = Demo {
        root,
        begun: Instant::now(),
        interrupt,
    };
    let shell = Shell::new(root);
    demo.section("the image: static programs, and nothing else (minutes the first time)")?;
    // Without optimisation, which takes minutes instead of half an hour on two cores: cached data is read by the kernel in
    // any case. The command line is not for the image, but for the plugin of kubectl: built there, it is built once.
    let tag = format!("{IMAGE_REPOSITORY}:{IMAGE_TAG}");
    let crates = "controller,cache-worker,csi-driver,millpond";
    shell.run(&[
        "scripts/image", "--profile", "dev", "--crates", crates, "--tag", &tag, IMAGE,
    ])?;
    demo.section("a Kubernetes of two nodes (about 20 s)")?;
    let machine = Machine::start(&shell, &root.join(IMAGE))?;
    let shown = demo.show(&machine);
    if arguments.keep && shown.is_ok() {
        say(format_args!("\nThe cluster is up:\n{}", machine.keep()));
        return Ok(());
    }
    demo.heading("everything down");
    let down = machine.stop();
    interrupt.check().and(shown).and(down)
}

struct Demo<'a> {
    root: &'a Path,
    begun: Instant,
    interrupt: &'a Interrupt,
}

impl Demo<'_> {
    fn heading(&self, what: &str) {
        say(format_args!("\n== {what} (after {} s)", self.begun.elapsed().as_secs()));
    }

    /// Begins a section, unless a signal to end has come.
    fn section(&self, what: &str) -> Result<()> {
        self.interrupt.check()?;
        self.heading(what);
        Ok(())
    }

    fn show(&self, machine: &Machine) -> Result<()> {
        let work = tempfile::Builder::new()
            .prefix("millpond-demo-")
            .tempdir()
            .context("failed to make a directory")?;
        let work = work.path();
        let shell = self.shell(machine, work)?;

        self.section(&format!("a bucket of {}", data::DESCRIPTION))?;
        let data = Data::write(&machine.s3().directory.join("imagenet/train"))?;

        self.section("Millpond, a pool, the bucket's keys, a Dataset")?;
        self.install(&shell)?;
        self.declare(&shell, machine, work)?;

        self.section("a pod that reads all of it three times")?;
        self.train(&shell, work)?;
        let checked = self.check(&shell, work)?;
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

        let address = machine.prometheus();
        self.section(&format!("the hit ratio in Prometheus, at {address}"))?;
        for query in QUERIES {
            say(format_args!("{query}\n  {}", machine.query(query)?));
        }
        Ok(())
    }

    /// Commands that find kubectl, with its plugin beside it, helm and the cluster.
    fn shell(&self, machine: &Machine, work: &Path) -> Result<Shell> {
        let programs = work.join("bin");
        fs::create_dir(&programs).context("failed to make a directory")?;
        let plugin = self.plugin();
        ensure!(plugin.is_file(), "the image's build made no {}", plugin.display());
        symlink(&plugin, programs.join("kubectl-millpond")).context("failed to link the plugin of kubectl")?;
        let kubectl = programs.join("kubectl");
        let script = format!("#!/bin/sh\nexec \"{}\" kubectl \"$@\"\n", machine.kube().display());
        fs::write(&kubectl, script)
            .and_then(|()| fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)))
            .context("failed to write kubectl")?;
        let mut shell = Shell::new(self.root);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = [programs, machine.tools()]
            .into_iter()
            .chain(std::env::split_paths(&path));
        shell.set("PATH", std::env::join_paths(paths).context("a PATH of these")?);
        shell.set("KUBECONFIG", machine.kubeconfig());
        Ok(shell)
    }

    /// The command line, where the image's build put it.
    fn plugin(&self) -> PathBuf {
        let target = format!("target/{}-unknown-linux-musl/debug/millpond", std::env::consts::ARCH);
        self.root.join(target)
    }

    fn install(&self, shell: &Shell) -> Result<()> {
        let image = format!("image.repository={IMAGE_REPOSITORY},image.tag={IMAGE_TAG},image.pullPolicy=Never");
        let words = [
            "helm", "install", "millpond", "deploy/chart", "--namespace", "millpond-system", "--create-namespace",
            "--wait", "--timeout", "2m", "--set", &image,
        ];
        say(format_args!("\n$ {}", words.join(" ")));
        let printed = shell.output(&words)?;
        // The rest is the chart's notes, for who installs it.
        let status = printed.lines().find(|line| line.starts_with("STATUS"));
        say(status.context("helm printed no status")?);
        Ok(())
    }

    fn declare(&self, shell: &Shell, machine: &Machine, work: &Path) -> Result<()> {
        let s3 = machine.s3();
        // With this bucket, these keys and a pool that fits, also on a disk that is nearly full.
        let manifest = self.example("imagenet.yaml", &[
            ("AKIAIOSFODNN7EXAMPLE", &s3.access_key),
            ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", &s3.secret_key),
            ("# endpoint: http://minio.storage.svc:9000", &format!("endpoint: {}", s3.endpoint)),
            ("# allow_http: ", "allow_http: "),
            ("capacity: 1Gi", "capacity: 256Mi"),
            ("capacity: 100Gi", "capacity: 4Gi\n      minFreePercent: 0"),
        ])?;
        let file = write(work, "imagenet.yaml", &manifest)?;
        shell.show(&["kubectl", "apply", "-f", &file])?;
        shell.show(&["kubectl", "wait", "--for=condition=Ready", "--timeout=60s", "dataset/imagenet"])
    }

    fn train(&self, shell: &Shell, work: &Path) -> Result<()> {
        let manifest = self.example("training-pod.yaml", &[("image: busybox", "image: millpond.test/busybox:1")])?;
        let file = write(work, "training-pod.yaml", &manifest)?;
        shell.show(&["kubectl", "apply", "-f", &file])?;
        wait_for_end(shell, "pod/training")?;
        shell.show(&["kubectl", "logs", "training"])
    }

    /// The checksum of what another pod reads.
    fn check(&self, shell: &Shell, work: &Path) -> Result<String> {
        let file = write(work, "check.yaml", CHECK)?;
        shell.output(&["kubectl", "apply", "-f", &file])?;
        wait_for_end(shell, "pod/check")?;
        let printed = shell.output(&["kubectl", "logs", "check"])?;
        Ok(printed.trim().to_owned())
    }

    /// An example of the documentation, with these words instead of those.
    fn example(&self, name: &str, changes: &[(&str, &str)]) -> Result<String> {
        let path = self.root.join("deploy/examples").join(name);
        let mut text =
            fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        for (from, to) in changes {
            ensure!(text.contains(from), "{} has no {from:?}", path.display());
            text = text.replace(from, to);
        }
        Ok(text)
    }
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
