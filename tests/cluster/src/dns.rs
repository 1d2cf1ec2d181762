//! Names of Services and pods: CoreDNS as a process of the machine, behind the usual Service.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::Api;
use crate::cluster::Cluster;
use crate::tools::tool;

/// The address that pods have as their name server.
pub(crate) const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";
const PORT: u16 = 53;

/// Starts the server and creates its Service.
pub(crate) fn start(cluster: &Cluster, api: &Api) -> Result<()> {
    let file = cluster.state().dir().join("Corefile");
    let (address, kubeconfig) = (cluster.host_address(), cluster.kubeconfig());
    let configuration = format!(
        ".:{PORT} {{\n    bind {address}\n    errors\n    kubernetes cluster.local in-addr.arpa ip6.arpa {{\n        \
         kubeconfig {}\n        ttl 5\n    }}\n}}\n",
        kubeconfig.display()
    );
    fs::write(&file, configuration)?;
    let mut command = Command::new(tool("coredns"));
    command.arg("-conf").arg(file);
    cluster.state().process("coredns").start(command)?;
    api.apply(NAMESPACE, &service())?;
    api.apply(NAMESPACE, &endpoints(address))
}

/// Names and protocols of the ports.
const PORTS: [(&str, &str); 2] = [("dns", "UDP"), ("dns-tcp", "TCP")];

fn service() -> Service {
    let port = |(name, protocol): (&str, &str)| ServicePort {
        name: Some(name.to_owned()),
        port: PORT.into(),
        protocol: Some(protocol.to_owned()),
        ..ServicePort::default()
    };
    Service {
        metadata: metadata(None),
        spec: Some(ServiceSpec {
            cluster_ip: Some(SERVICE_ADDRESS.to_string()),
            ports: Some(PORTS.map(port).into()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn endpoints(address: Ipv4Addr) -> EndpointSlice {
    let port = |(name, protocol): (&str, &str)| EndpointPort {
        name: Some(name.to_owned()),
        port: Some(PORT.into()),
        protocol: Some(protocol.to_owned()),
        ..EndpointPort::default()
    };
    let labels = [("kubernetes.io/service-name".to_owned(), NAME.to_owned())];
    EndpointSlice {
        address_type: "IPv4".to_owned(),
        endpoints: vec![Endpoint {
            addresses: vec![address.to_string()],
            ..Endpoint::default()
        }],
        metadata: metadata(Some(labels.into())),
        ports: Some(PORTS.map(port).into()),
    }
}

fn metadata(labels: Option<BTreeMap<String, String>>) -> ObjectMeta {
    ObjectMeta {
        name: Some(NAME.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        labels,
        ..ObjectMeta::default()
    }
}
