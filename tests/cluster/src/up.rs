//! Bringing a cluster up.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::Cluster;
use crate::control_plane::{start_controllers, start_etcd};
use crate::down::down;
use crate::ip::{create_bridge, ip};
use crate::logs::tails;
use crate::node::READY_TIMEOUT;
use crate::node_name::MAX_NODES;
use crate::number::Number;
use crate::state::{Shape, State};
use crate::{Name, certificates, dns, tools};

/// The most requests a second that controllers may be allowed.
const MAX_CONTROLLER_QPS: u32 = 9_999;

/// What is brought up.
#[derive(Clone, Debug)]
pub struct UpOptions {
    /// Keeps clusters apart.
    pub name: Name,
    /// How many nodes, 1 to 9.
    pub nodes: u8,
    /// Whether a cluster of the name that is up is taken down first. One that a killed run left always is.
    pub replace: bool,
    /// How many requests a second each controller of Kubernetes may send.
    pub controller_qps: u32,
}

impl UpOptions {
    /// Kubernetes' own limit of its controllers.
    pub const DEFAULT_CONTROLLER_QPS: u32 = 20;

    /// One node, and what Kubernetes has by itself.
    pub const fn new(name: Name) -> Self {
        Self {
            name,
            nodes: 1,
            replace: false,
            controller_qps: Self::DEFAULT_CONTROLLER_QPS,
        }
    }
}

impl Cluster {
    /// Brings a cluster up: etcd, API server, controllers, scheduler and DNS as processes, and nodes. `on_step` receives
    /// each step with the time since the beginning.
    ///
    /// # Errors
    /// A part does not come up: with the last lines of its log. What is up by then stays until it is taken down.
    pub fn up(options: &UpOptions, on_step: impl FnMut(Duration, &str)) -> Result<Self> {
        let name = &options.name;
        prepare(options).with_context(|| format!("failed to bring up the cluster {name}"))?;
        bring_up(options, on_step).with_context(|| {
            let logs = State::of(name).log_dir();
            format!(
                "cluster {name} is not up; its logs: {}; millpond-cluster down --name {name}",
                logs.display()
            )
        })
    }
}

/// Checks that a cluster can be brought up, and takes down one of the name that may be replaced.
fn prepare(options: &UpOptions) -> Result<()> {
    let UpOptions {
        name,
        nodes,
        replace,
        controller_qps,
    } = options;
    ensure!(nix::unistd::geteuid().is_root(), "it needs root");
    ensure!(
        (1..=MAX_NODES).contains(nodes),
        "{nodes} nodes: want 1 to {MAX_NODES}"
    );
    ensure!(
        (1..=MAX_CONTROLLER_QPS).contains(controller_qps),
        "{controller_qps} requests a second: want 1 to {MAX_CONTROLLER_QPS}"
    );
    tools::check()?;
    let state = State::of(name);
    if state.dir().exists() {
        if !replace && state.process("apiserver").pid().is_some() {
            bail!("it is up already: millpond-cluster down --name {name}, or --replace");
        }
        down(name, None)?;
    }
    Ok(())
}

fn bring_up(options: &UpOptions, mut on_step: impl FnMut(Duration, &str)) -> Result<Cluster> {
    let UpOptions {
        name,
        nodes,
        replace: _,
        controller_qps,
    } = options;
    let state = State::of(name);
    let began = Instant::now();
    let mut step = |what: &str| on_step(began.elapsed(), what);
    state.create()?;
    let shape = Shape::new(claim_number(name)?, *nodes);
    state.write_shape(shape)?;
    let cluster = Cluster::of_shape(name, shape)?;
    let (bridge, host) = (cluster.number().bridge(), cluster.host_address());
    ip(&["addr", "add", &format!("{host}/24"), "dev", &bridge])?;
    ip(&["link", "set", &bridge, "up"])?;

    certificates::create_all(&cluster)?;
    step("certificates");
    start_etcd(&cluster)?;
    cluster.api_server().start()?;
    step("API server");
    let begin = SystemTime::now();
    start_controllers(&cluster, *controller_qps)?;
    for node in cluster.nodes() {
        node.boot()
            .with_context(|| format!("failed to start {}", node.name()))?;
    }
    let api = cluster.api()?;
    dns::start(&cluster, &api)?;
    for node in cluster.nodes() {
        node.wait_ready(&api, begin)?;
        step(&node.name().to_string());
    }
    // A pod that comes before it is refused.
    api.wait_service_account(READY_TIMEOUT)
        .with_context(|| tails(&[state.process("controller-manager")]))?;
    step("ready");
    Ok(cluster)
}

/// Creates the bridge of the first number that is free: the kernel lets one of several succeed.
fn claim_number(name: &Name) -> Result<Number> {
    let mut last = None;
    for number in Number::all() {
        let bridge = number.bridge();
        match create_bridge(&bridge, &name.mark()) {
            Ok(()) => return Ok(number),
            Err(error) => last = Some(error),
        }
    }
    let last = last.context("there is no number")?;
    Err(last.context("ten clusters are up already (ip link show type bridge)"))
}
