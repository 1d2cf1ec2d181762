//! Connection to a cluster's API server, chosen by kubectl's own flags and files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use k8s_openapi::NamespaceResourceScope;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;

#[derive(Debug, Args)]
pub(super) struct ClusterArguments {
    /// Namespace [default: that of the context].
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    /// Kubeconfig file [default: $KUBECONFIG, or ~/.kube/config].
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: the current one].
    #[arg(long, global = true)]
    context: Option<String>,
}

/// API client and the namespace of a command.
pub(super) struct Cluster {
    pub(super) client: Client,
    /// Namespace that the command works on.
    pub(super) namespace: String,
}

impl Cluster {
    pub(super) async fn connect(arguments: ClusterArguments) -> Result<Self> {
        millpond_process::tls::install();
        let options = KubeConfigOptions {
            context: arguments.context,
            ..KubeConfigOptions::default()
        };
        let config = config(arguments.kubeconfig.as_deref(), &options).await;
        let config =
            config.context("failed to find a cluster: set KUBECONFIG, or give --kubeconfig and --context")?;
        let namespace = arguments
            .namespace
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).context("failed to use the kubeconfig")?;
        Ok(Self { client, namespace })
    }

    /// Returns the API of a kind: in the namespace, or in all.
    pub(super) fn api<K>(&self, all_namespaces: bool) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        if all_namespaces {
            Api::all(self.client.clone())
        } else {
            Api::namespaced(self.client.clone(), &self.namespace)
        }
    }
}

async fn config(file: Option<&Path>, options: &KubeConfigOptions) -> Result<Config> {
    Ok(match file {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("failed to read --kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(file, options).await?
        }
        None if options.context.is_some() => Config::from_kubeconfig(options).await?,
        // A pod's own ServiceAccount, where there is no file.
        None => Config::infer().await?,
    })
}

/// Lists every object that matches; an error names the kind.
pub(super) async fn list<K>(api: &Api<K>, parameters: &ListParams) -> Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let found = api.list(parameters).await;
    Ok(found.map_err(|error| explain(error, &K::plural(&())))?.items)
}

/// Adds what the user can do to an error of the API server.
pub(super) fn explain(error: kube::Error, what: &str) -> anyhow::Error {
    let help = match &error {
        kube::Error::Api(status) if status.code == 404 => {
            format!("the cluster has no API resource {what}: is Millpond installed (helm list -A)?")
        }
        kube::Error::Api(status) if status.code == 403 => format!("no permission to read {what}"),
        _ => format!("failed to read {what}"),
    };
    anyhow::Error::new(error).context(help)
}
