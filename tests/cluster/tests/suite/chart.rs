//! The chart against a real API server, Helm and Prometheus: what is rendered is accepted, installs, upgrades, goes; roles
//! allow what they must and no more; every query of rules and dashboard runs. Needs no image: no pod has to start.
//!
//! `MILLPOND_CHART_CLUSTER` names a cluster that is up, and empty of Millpond; else one is brought up.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use test_cluster::{Cluster, Kubectl, UpOptions, eventually, tool, tools_dir, workspace};

use crate::checks::{Checks, OwnCluster, has, refused_with, run, same};
use crate::dashboard;

const SYSTEM: &str = "millpond-system";
const CONTROLLER: &str = "system:serviceaccount:millpond-system:millpond-controller";

/// Of the namespaces' tenants.
const TEAM: &str = "team";

/// A pod whose metrics grow as a driver's would.
const SCRAPED_POD: &str = include_str!("scraped-pod.yaml");

/// With the operator's kinds in the API server.
const MONITORS: [&str; 2] = ["--api-versions", "monitoring.coreos.com/v1"];

/// All kinds of the chart that are in a namespace.
const NAMESPACED_KINDS: &str = "deployments,daemonsets,services,serviceaccounts,roles,rolebindings,networkpolicies,\
                                poddisruptionbudgets,configmaps,podmonitors,prometheusrules";

#[test]
fn the_chart_is_accepted_installs_upgrades_and_goes() {
    let (_own, cluster) = cluster().expect("a cluster");
    let chart = Chart::prepare(cluster).expect("namespaces");
    let mut checks = Checks::default();
    let mut check = |sentence, check: fn(&Chart) -> Result<()>| checks.check(sentence, || check(&chart));
    check(
        "the base of the kustomization is what the chart renders",
        rendered_base_is_current,
    );
    check("the chart passes Helm's lint", lints);
    check(
        "the CRDs are accepted, with what their rules cost",
        crds_are_accepted,
    );
    check(
        "every variant of the values is accepted by the strict dry run",
        variants_are_accepted,
    );
    check(
        "monitors appear with the operator's kinds, which accept them",
        monitors_are_accepted,
    );
    check(
        "bad values are refused with the field's name",
        bad_values_are_refused,
    );
    check("Helm installs it", installs);
    check(
        "the examples are accepted by the strict dry run",
        examples_are_accepted,
    );
    check("kubectl explain has a word for every field", explains);
    check(
        "the API server holds the rules and defaults of a Dataset",
        api_server_holds_the_rules,
    );
    check("the controller may do what it must", controller_may_what_it_must);
    check("the controller may do no more", controller_may_no_more);
    check(
        "with watchNamespaces its access to Secrets, claims and tokens ends at them",
        watched_namespaces_bind_it,
    );
    check("the others may do nothing, but write Events", others_may_nothing);
    check(
        "the controller meets the restricted pod security standard",
        controller_is_restricted,
    );
    check(
        "an upgrade brings the CRDs up to date with objects in place, and a rollback comes back",
        upgrades,
    );
    check(
        "uninstalling leaves the CRDs and Datasets, and nothing else",
        uninstalls,
    );
    check("it installs again over what stayed", installs_again);
    check(
        "kubectl apply -k deploy installs the same, and again without a change",
        kustomization_applies,
    );
    check("Prometheus accepts the rules", rules_are_valid);
    check(
        "every query of the dashboard and every rule runs in Prometheus",
        queries_run,
    );
    check("Prometheus finds pods and has the hit ratio", pods_are_scraped);
    checks.finish();
}

/// Returns the cluster, and what takes it down if it was brought up here.
fn cluster() -> Result<(Option<OwnCluster>, Cluster)> {
    if let Ok(name) = std::env::var("MILLPOND_CHART_CLUSTER") {
        return Ok((None, Cluster::open(&name.parse()?)?));
    }
    let own = OwnCluster::new("chart")?;
    let cluster = Cluster::up(&UpOptions::new(own.name.clone()), |_, _| ())?;
    Ok((Some(own), cluster))
}

struct Chart {
    cluster: Cluster,
    kubectl: Kubectl,
}

impl Chart {
    fn prepare(cluster: Cluster) -> Result<Self> {
        let chart = Self {
            kubectl: cluster.kubectl(),
            cluster,
        };
        for (namespace, labels) in [
            (
                SYSTEM,
                json!({"pod-security.kubernetes.io/enforce": "privileged"}),
            ),
            (TEAM, json!({})),
        ] {
            chart.namespace(namespace, labels)?;
        }
        Ok(chart)
    }

    fn namespace(&self, name: &str, labels: Value) -> Result<()> {
        let metadata = json!({"name": name, "labels": labels});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        self.kubectl.apply(&namespace.to_string())
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        // Paths of `deploy` are relative to the root of the repository.
        run(self.kubectl.command().args(words))
    }

    fn helm(&self, words: &[&str]) -> Result<String> {
        let mut helm = Command::new(tool("helm"));
        helm.env("KUBECONFIG", self.kubectl.kubeconfig()).args(words);
        run(&mut helm)
    }

    fn in_system(&self, verb: &[&str], more: &[&str]) -> Result<String> {
        self.helm(&[verb, &["--namespace", SYSTEM], more].concat())
    }

    fn render(&self, values: &[&str]) -> Result<String> {
        self.in_system(&["template", "millpond", "deploy/chart"], values)
    }

    /// Renders, and lets the API server's strict dry run accept it.
    fn accepted(&self, values: &[&str]) -> Result<String> {
        let rendered = self.render(values)?;
        let words = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--validate=strict",
            "--dry-run=server",
            "-f",
            "-",
        ];
        self.kubectl
            .run_with(&words, &rendered)
            .with_context(|| format!("with {values:?}"))?;
        Ok(rendered)
    }

    /// The schema refuses the values with the field's name.
    fn refused(&self, field: &str, values: &[&str]) -> Result<()> {
        refused_with(self.render(values), field)
    }

    fn get(&self, object: &[&str], path: &str) -> Result<String> {
        let path = format!("jsonpath={path}");
        self.run(&[&["get"], object, &["-o", &path]].concat())
    }

    fn controller_replicas(&self) -> Result<String> {
        self.get(
            &["deployment", "-n", SYSTEM, "millpond-controller"],
            "{.spec.replicas}",
        )
    }

    /// Returns whether the account may, by kubectl's exit status.
    fn can(&self, account: &str, what: &str) -> Result<bool> {
        let mut words = vec!["auth", "can-i", "--quiet", "--as", account];
        words.extend(what.split_whitespace());
        let output = self.kubectl.output(&words, "")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(0) || !stderr.contains("rror"),
            "{what}: {stderr}"
        );
        Ok(output.status.success())
    }

    fn may(&self, account: &str, what: &[&str]) -> Result<()> {
        for what in what {
            ensure!(self.can(account, what)?, "{account} may not {what}");
        }
        Ok(())
    }

    fn may_not(&self, account: &str, what: &[&str]) -> Result<()> {
        for what in what {
            ensure!(!self.can(account, what)?, "{account} may {what}");
        }
        Ok(())
    }

    fn established(&self, crds: &[&str]) -> Result<()> {
        let words = ["wait", "--for=condition=Established", "--timeout=20s"];
        self.run(&[&words, crds].concat()).map(drop)
    }
}

fn rendered_base_is_current(_chart: &Chart) -> Result<()> {
    run(Command::new(workspace().join("scripts/render")).arg("--check")).map(drop)
}

fn lints(chart: &Chart) -> Result<()> {
    chart.helm(&["lint", "--strict", "deploy/chart"]).map(drop)
}

fn crds_are_accepted(chart: &Chart) -> Result<()> {
    chart.run(&["apply", "--server-side", "--validate=strict", "-f", "deploy/crds"])?;
    chart.established(&[
        "crd/cachepools.millpond.io",
        "crd/datasets.millpond.io",
        "crd/dataloads.millpond.io",
    ])?;
    // As Helm would have made them, since it installs over nothing else.
    chart.run(&["delete", "--wait", "-f", "deploy/crds"]).map(drop)
}

fn variants_are_accepted(chart: &Chart) -> Result<()> {
    let set = |values: &[&str]| {
        let words: Vec<_> = values.iter().flat_map(|value| ["--set", *value]).collect();
        chart.accepted(&words)
    };
    set(&[])?;
    set(&[
        "controller.replicas=1",
        "priorityClasses.create=false",
        "worker.priorityClass=",
    ])?;
    set(&["priorityClasses.node=", "priorityClasses.quota=true"])?;
    has(&set(&["priorityClasses.quota=true"])?, "kind: ResourceQuota")?;
    has(
        &chart.accepted(&["--kube-version", "v1.36.0-gke.1"])?,
        "kind: ResourceQuota",
    )?;
    set(&[
        "controller.watchNamespaces={default,kube-public}",
        "workloadIdentity.enabled=true",
    ])?;
    set(&[
        "networkPolicy.enabled=false",
        "monitoring.dashboard=false",
        "crds.install=false",
    ])?;
    set(&["networkPolicy.metricsFrom.kubernetes\\.io/metadata\\.name=monitoring"])?;
    set(&[
        "node.tierRoots={/mnt,/data/nvme}",
        "node.hostDirectory=/data/millpond",
    ])?;
    set(&[
        "imagePullSecrets[0].name=registry",
        "image.repository=registry.example.com/millpond",
        "image.tag=1.0",
    ])?;
    set(&[
        "controller.env[0].name=RUST_LOG",
        "controller.env[0].value=debug",
        "csiDriver.env[0].name=RUST_LOG",
        "csiDriver.env[0].value=debug",
        "controller.tolerations[0].operator=Exists",
        "csiDriver.nodeSelector.gpu=yes",
    ])
    .map(drop)
}

fn monitors_are_accepted(chart: &Chart) -> Result<()> {
    ensure!(
        !chart.render(&[])?.contains("PodMonitor"),
        "monitors without their kinds"
    );
    let crds = tools_dir().join("crds");
    let crds = crds.to_str().context("a path of ours is UTF-8")?;
    chart.run(&["apply", "--server-side", "-f", crds])?;
    chart.established(&[
        "crd/podmonitors.monitoring.coreos.com",
        "crd/prometheusrules.monitoring.coreos.com",
    ])?;
    let label = ["--set", "monitoring.labels.release=prometheus"];
    let rendered = chart.accepted(&[MONITORS, label].concat())?;
    has(&rendered, "kind: PodMonitor")?;
    has(&rendered, "kind: PrometheusRule")
}

fn bad_values_are_refused(chart: &Chart) -> Result<()> {
    chart.refused("replicas", &["--set", "controller.replicas=0"])?;
    chart.refused("tierRoots", &["--set-json", "node.tierRoots=[]"])?;
    chart.refused("hostDirectory", &["--set", "node.hostDirectory=var/lib/millpond"])?;
    chart.refused("pullPolicy", &["--set", "image.pullPolicy=Sometimes"])?;
    chart.refused("imagee", &["--set", "imagee.tag=1"])?;
    chart.refused("limit", &["--set", "keeper.limit=forever"])
}

fn installs(chart: &Chart) -> Result<()> {
    chart.in_system(
        &["install", "millpond", "deploy/chart"],
        &["--set", "image.pullPolicy=Never"],
    )?;
    chart.established(&["crd/datasets.millpond.io"])?;
    chart.run(&["get", "csidriver", "csi.millpond.io"])?;
    same(&chart.controller_replicas()?, "2")
}

fn examples_are_accepted(chart: &Chart) -> Result<()> {
    let words = [
        "apply",
        "--server-side",
        "--validate=strict",
        "--dry-run=server",
        "-f",
        "deploy/examples",
    ];
    chart.run(&words).map(drop)
}

/// Every field has a word of its own.
fn explains(chart: &Chart) -> Result<()> {
    let mut explained = chart.run(&["explain", "dataset.spec"])?;
    has(&explained, "Name of the CachePool that caches the data")?;
    for object in ["cachepool.spec.tiers", "dataset.spec.mounts", "dataload.spec"] {
        explained += &chart.run(&["explain", object])?;
    }
    ensure!(!explained.contains("<no description>"), "{explained}");
    Ok(())
}

fn api_server_holds_the_rules(chart: &Chart) -> Result<()> {
    chart.run(&["apply", "-f", "deploy/examples/imagenet.yaml"])?;
    let defaults = chart.get(
        &["dataset", "imagenet"],
        "{.spec.eviction} {.spec.view} {.spec.replicas}",
    )?;
    same(&defaults, "Never Snapshot 1")?;
    let patch = |patch: Value| {
        let patch = patch.to_string();
        chart.run(&["patch", "dataset", "imagenet", "--type=merge", "-p", &patch])
    };
    refused_with(
        patch(json!({"spec": {"pool": "other"}})),
        "pool cannot be changed",
    )?;
    let mount = json!({"mountPoint": "s3://a", "options": {"secret_access_key": "x"}});
    refused_with(
        patch(json!({"spec": {"mounts": [mount]}})),
        "put them into a Secret",
    )?;
    chart
        .run(&["get", "datasets,cachepools,dataloads", "-A"])
        .map(drop)
}

fn controller_may_what_it_must(chart: &Chart) -> Result<()> {
    chart.may(
        CONTROLLER,
        &[
            "patch datasets.millpond.io --subresource=status -n team",
            "update datasets.millpond.io --subresource=finalizers -n team",
            "create persistentvolumeclaims -n team",
            "delete persistentvolumes",
            "get secrets/any -n team",
            "create events.events.k8s.io -n team",
            "create tokenreviews.authentication.k8s.io",
            "create daemonsets.apps -n millpond-system",
            "update leases.coordination.k8s.io/millpond-controller -n millpond-system",
            "update secrets/millpond-ca -n millpond-system",
        ],
    )
}

fn controller_may_no_more(chart: &Chart) -> Result<()> {
    chart.may_not(
        CONTROLLER,
        &[
            "list secrets -n team",
            "list secrets",
            "watch secrets -n team",
            "update secrets/any -n team",
            "create secrets -n team",
            "create pods -n team",
            "delete pods -n team",
            "create pods --subresource=exec -n millpond-system",
            "create serviceaccounts --subresource=token -n team",
            "create daemonsets.apps -n team",
            "delete datasets.millpond.io -n team",
            "create clusterroles.rbac.authorization.k8s.io",
            "patch nodes",
        ],
    )
}

fn watched_namespaces_bind_it(chart: &Chart) -> Result<()> {
    chart.in_system(
        &["upgrade", "millpond", "deploy/chart"],
        &[
            "--set",
            "controller.watchNamespaces={team}",
            "--set",
            "workloadIdentity.enabled=true",
        ],
    )?;
    chart.may(
        CONTROLLER,
        &[
            "get secrets/any -n team",
            "create persistentvolumeclaims -n team",
            "create serviceaccounts --subresource=token -n team",
        ],
    )?;
    chart.may_not(
        CONTROLLER,
        &[
            "get secrets/any -n default",
            "create persistentvolumeclaims -n default",
            "create serviceaccounts --subresource=token -n default",
        ],
    )?;
    let deployment = chart.run(&[
        "get",
        "deployment",
        "-n",
        SYSTEM,
        "millpond-controller",
        "-o",
        "yaml",
    ])?;
    has(&deployment, "--watch-namespaces=team")
}

fn others_may_nothing(chart: &Chart) -> Result<()> {
    let account = |name: &str| format!("system:serviceaccount:{SYSTEM}:millpond-{name}");
    for name in ["worker", "keeper", "csi-driver"] {
        chart.may_not(
            &account(name),
            &[
                "get pods -n team",
                "get secrets/any -n millpond-system",
                "get nodes",
                "get datasets.millpond.io -n team",
            ],
        )?;
    }
    chart.may(&account("csi-driver"), &["create events -n team"])?;
    chart.may_not(&account("worker"), &["create events -n team"])
}

fn controller_is_restricted(chart: &Chart) -> Result<()> {
    chart.namespace(
        "restricted",
        json!({"pod-security.kubernetes.io/warn": "restricted"}),
    )?;
    let controller = chart.render(&["--show-only", "templates/controller.yaml"])?;
    let controller = controller.replace("namespace: millpond-system", "namespace: restricted");
    let output = chart
        .kubectl
        .output(&["apply", "--dry-run=server", "-f", "-"], &controller)?;
    let warnings = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && !warnings.contains("would violate"),
        "{warnings}"
    );
    chart
        .run(&["delete", "namespace", "restricted", "--wait=false"])
        .map(drop)
}

fn upgrades(chart: &Chart) -> Result<()> {
    let driver = || -> Result<u64> {
        let words = ["daemonset", "-n", SYSTEM, "millpond-csi-driver"];
        Ok(chart.get(&words, "{.metadata.generation}")?.parse()?)
    };
    let uid = || chart.get(&["dataset", "imagenet"], "{.metadata.uid}");
    let (driver_before, uid_before) = (driver()?, uid()?);
    // A CRD of before, which the upgrade brings up to date with objects in place.
    let remove = json!([{"op": "remove", "path": "/spec/versions/0/additionalPrinterColumns/5"}]);
    let remove = remove.to_string();
    chart.run(&[
        "patch",
        "crd",
        "datasets.millpond.io",
        "--type=json",
        "-p",
        &remove,
    ])?;
    chart.in_system(
        &["upgrade", "millpond", "deploy/chart"],
        &[
            "--set",
            "controller.replicas=1",
            "--set",
            "image.tag=next",
            "--server-side=true",
            "--force-conflicts",
        ],
    )?;
    same(&chart.controller_replicas()?, "1")?;
    ensure!(driver()? > driver_before, "the driver was not upgraded");
    let keeper = ["daemonset", "-n", SYSTEM, "millpond-keeper"];
    same(&chart.get(&keeper, "{.spec.updateStrategy.type}")?, "OnDelete")?;
    same(&uid()?, &uid_before)?;
    let columns = "{.spec.versions[0].additionalPrinterColumns[*].name}";
    has(&chart.get(&["crd", "datasets.millpond.io"], columns)?, "Phase")?;
    chart.in_system(&["rollback", "millpond", "1"], &[])?;
    same(&chart.controller_replicas()?, "2")
}

fn uninstalls(chart: &Chart) -> Result<()> {
    chart.in_system(&["uninstall", "millpond"], &["--wait", "--timeout", "60s"])?;
    let kinds = "clusterroles,clusterrolebindings,csidrivers,priorityclasses";
    let ours = ["-l", "app.kubernetes.io/part-of=millpond", "-o", "name"];
    let mut left = chart.run(&[&["get", kinds], ours.as_slice()].concat())?;
    left += &chart.run(&[&["get", NAMESPACED_KINDS, "-n", SYSTEM], ours.as_slice()].concat())?;
    same(&left, "")?;
    // Data is not lost by removing the program.
    chart.run(&["get", "dataset", "imagenet"]).map(drop)
}

fn installs_again(chart: &Chart) -> Result<()> {
    chart.in_system(&["install", "millpond", "deploy/chart"], &[])?;
    chart.run(&["get", "dataset", "imagenet"])?;
    chart.in_system(&["uninstall", "millpond"], &["--wait", "--timeout", "60s"])?;
    chart.run(&["delete", "-f", "deploy/examples/imagenet.yaml", "--wait=false"])?;
    chart.run(&["delete", "--wait", "-f", "deploy/crds"]).map(drop)
}

fn kustomization_applies(chart: &Chart) -> Result<()> {
    chart.run(&["apply", "-k", "deploy"])?;
    chart.run(&["get", "deployment", "-n", SYSTEM, "millpond-controller"])?;
    let again = chart.run(&["apply", "-k", "deploy"])?;
    // kubectl patches the selector of a budget with itself at every apply.
    let is_change = |line: &&str| !line.contains("unchanged") && !line.starts_with("poddisruptionbudget");
    let changed: Vec<_> = again.lines().filter(is_change).collect();
    ensure!(changed.is_empty(), "changed by the second apply: {changed:#?}");
    chart.run(&["delete", "-k", "deploy", "--wait=false"]).map(drop)
}

fn rules_are_valid(_chart: &Chart) -> Result<()> {
    run(Command::new(tool("promtool")).args(["check", "rules", "deploy/rules/millpond.yaml"])).map(drop)
}

fn queries_run(chart: &Chart) -> Result<()> {
    let prometheus = chart.cluster.prometheus();
    prometheus.start()?;
    dashboard::queries_run(prometheus)?;
    dashboard::rules_are_healthy(prometheus)
}

/// A pod with the counters of a driver, of which the recording rule makes 0.75.
fn pods_are_scraped(chart: &Chart) -> Result<()> {
    let prometheus = chart.cluster.prometheus();
    prometheus.start()?;
    chart.kubectl.apply(SCRAPED_POD)?;
    let ratio = "millpond:hit_ratio{namespace=\"team\",dataset=\"imagenet\"}";
    let found = eventually("the hit ratio", Duration::from_secs(30), || {
        let value = prometheus.value(ratio)?;
        ensure!(
            value.is_some_and(|value| (value - 0.75).abs() < 1e-6),
            "it is {value:?}"
        );
        Ok(Some(()))
    });
    chart.run(&["delete", "-n", TEAM, "pod", "scraped", "--wait=false"])?;
    prometheus.stop()?;
    found
}
