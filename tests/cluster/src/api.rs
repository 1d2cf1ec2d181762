//! The cluster's API server, spoken to by a client of its own: what is waited for is watched.

use std::fmt::Debug;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use hyper::Request;
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::await_condition;
use kube::{Client, Config, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::NodeName;
use crate::wait::POLL_INTERVAL;

/// One request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// How often is checked that a process which is waited for has not ended.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// A blocking client.
pub(crate) struct Api {
    runtime: Runtime,
    client: Client,
}

impl Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    /// Reads its address and credentials; it need not run.
    pub(crate) fn new(kubeconfig: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let client = runtime.block_on(client(kubeconfig))?;
        Ok(Self { runtime, client })
    }

    /// Waits until it is ready. `check` fails when that is in vain.
    pub(crate) fn wait_ready(&self, limit: Duration, check: impl Fn() -> Result<()>) -> Result<()> {
        let poll = async {
            let deadline = Instant::now() + limit;
            loop {
                let request = Request::get("/readyz").body(Vec::new())?;
                let answer = timeout(REQUEST_TIMEOUT, self.client.request_text(request)).await;
                let last = match answer {
                    Ok(Ok(_)) => return Ok(()),
                    Ok(Err(error)) => error.to_string(),
                    Err(_elapsed) => "it does not answer".to_owned(),
                };
                check()?;
                if Instant::now() >= deadline {
                    bail!("the API server is not ready after {} s: {last}", limit.as_secs());
                }
                sleep(POLL_INTERVAL).await;
            }
        };
        self.runtime.block_on(poll)
    }

    /// Waits until a node is Ready, as its kubelet has reported since `begin`. `check` fails when that is in vain.
    pub(crate) fn wait_node_ready(
        &self,
        node: NodeName,
        begin: SystemTime,
        limit: Duration,
        check: impl Fn() -> Result<()>,
    ) -> Result<()> {
        // Kubelets report in whole seconds.
        let begin = i64::try_from(begin.duration_since(SystemTime::UNIX_EPOCH)?.as_secs())?;
        let nodes = kube::Api::<Node>::all(self.client.clone());
        let is_ready = move |node: Option<&Node>| is_ready_since(node, begin);
        self.wait(nodes, &node.to_string(), "is not Ready", limit, is_ready, check)
    }

    /// Waits for the default ServiceAccount: a pod that comes before it is refused.
    pub(crate) fn wait_service_account(&self, limit: Duration) -> Result<()> {
        let accounts = kube::Api::<ServiceAccount>::namespaced(self.client.clone(), "default");
        self.wait(
            accounts,
            "default",
            "is not there",
            limit,
            |account: Option<&ServiceAccount>| account.is_some(),
            || Ok(()),
        )
    }

    /// Returns whether the kubelet of a node reports through the API server that it is healthy.
    pub(crate) fn is_kubelet_healthy(&self, node: NodeName) -> Result<bool> {
        let request = Request::get(format!("/api/v1/nodes/{node}/proxy/healthz")).body(Vec::new())?;
        let answer = async { timeout(REQUEST_TIMEOUT, self.client.request_text(request)).await };
        Ok(self.runtime.block_on(answer).is_ok_and(|answer| answer.is_ok()))
    }

    /// Creates an object, or makes it so.
    pub(crate) fn apply<K>(&self, namespace: &str, object: &K) -> Result<()>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        let objects = kube::Api::<K>::namespaced(self.client.clone(), namespace);
        let (params, patch) = (
            PatchParams::apply("millpond-cluster").force(),
            Patch::Apply(object),
        );
        let name = object.name_any();
        let applied = objects.patch(&name, &params, &patch);
        let applied = self
            .runtime
            .block_on(async { timeout(REQUEST_TIMEOUT * 5, applied).await });
        applied
            .context("the API server does not answer")?
            .with_context(|| format!("failed to apply {} {name}", K::kind(&())))?;
        Ok(())
    }

    fn wait<K>(
        &self,
        objects: kube::Api<K>,
        name: &str,
        trouble: &str,
        limit: Duration,
        condition: impl Fn(Option<&K>) -> bool,
        check: impl Fn() -> Result<()>,
    ) -> Result<()>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let wait = async {
            let deadline = Instant::now() + limit;
            let mut waiting = std::pin::pin!(await_condition(objects, name, condition));
            while Instant::now() < deadline {
                match timeout_at(deadline.min(Instant::now() + CHECK_INTERVAL), &mut waiting).await {
                    Ok(met) => return met.map(drop).map_err(anyhow::Error::from),
                    Err(_elapsed) => check()?,
                }
            }
            bail!("{} {name} {trouble} after {} s", K::kind(&()), limit.as_secs());
        };
        self.runtime.block_on(wait)
    }
}

/// Returns a client by an admin's kubeconfig.
pub(crate) async fn client(kubeconfig: &Path) -> Result<Client> {
    millpond_process::tls::install();
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn is_ready_since(node: Option<&Node>, begin: i64) -> bool {
    let status = node.and_then(|node| node.status.as_ref());
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| {
        let reported = condition
            .last_heartbeat_time
            .as_ref()
            .map(|time| time.0.as_second());
        condition.type_ == "Ready"
            && condition.status == "True"
            && reported.is_some_and(|reported| reported >= begin)
    })
}
