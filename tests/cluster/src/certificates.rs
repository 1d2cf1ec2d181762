//! The cluster's certificate authority, a certificate for each component, and a kubeconfig for each client.
//!
//! Keys are elliptic: RSA ones would cost seconds of the time to bring the cluster up.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::cluster::Cluster;

/// Longer than any cluster.
const LIFE: Duration = Duration::days(3_650);

/// Names of the API server beside its addresses.
const API_SERVER_NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// The Service `kubernetes`: the first address of the range.
const API_SERVER_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// The group that may do everything.
const MASTERS: &str = "system:masters";

/// Creates all of them. The kubeconfigs of nodes are made here, too, so that a node needs no bootstrap.
pub(crate) fn create_all(cluster: &Cluster) -> Result<()> {
    let authority = Authority::create(cluster)?;
    // ServiceAccount tokens are signed by a key of their own.
    let tokens = KeyPair::generate()?;
    let state = cluster.state();
    write_private(&state.pki("service-accounts.key"), &tokens.serialize_pem())?;
    fs::write(state.pki("service-accounts.pub"), tokens.public_key_pem())?;

    let host = cluster.host_address();
    authority.server(
        "apiserver",
        "kube-apiserver",
        &[Ipv4Addr::LOCALHOST, host, API_SERVER_SERVICE],
        &API_SERVER_NAMES,
    )?;
    authority.server("s3", "s3", &[host], &[])?;
    authority.certificate(
        "kubelet-client",
        &client_params("apiserver-kubelet-client", Some(MASTERS)),
    )?;
    authority.client("admin", "admin", Some(MASTERS))?;
    for component in ["controller-manager", "scheduler"] {
        authority.client(component, &format!("system:kube-{component}"), None)?;
    }
    authority.client("proxy", "system:kube-proxy", None)?;
    for node in cluster.node_names() {
        let node = node.to_string();
        authority.client(&node, &format!("system:node:{node}"), Some("system:nodes"))?;
    }
    Ok(())
}

struct Authority<'a> {
    cluster: &'a Cluster,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl<'a> Authority<'a> {
    fn create(cluster: &'a Cluster) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = params_of(&cluster.name().mark(), None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate_pem = params.self_signed(&key)?.pem();
        write_private(&cluster.state().pki("ca.key"), &key.serialize_pem())?;
        fs::write(cluster.state().pki("ca.crt"), &certificate_pem)?;
        Ok(Self {
            cluster,
            certificate_pem,
            issuer: Issuer::new(params, key),
        })
    }

    /// Creates a certificate and its key, in files; returns both in PEM.
    fn certificate(&self, name: &str, params: &CertificateParams) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer);
        let certificate = certificate.with_context(|| format!("failed to sign the certificate {name}"))?;
        let (certificate, key) = (certificate.pem(), key.serialize_pem());
        let state = self.cluster.state();
        write_private(&state.pki(&format!("{name}.key")), &key)?;
        fs::write(state.pki(&format!("{name}.crt")), &certificate)?;
        Ok((certificate, key))
    }

    fn server(&self, name: &str, common_name: &str, addresses: &[Ipv4Addr], names: &[&str]) -> Result<()> {
        let mut params = params_of(common_name, None);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for address in addresses {
            params
                .subject_alt_names
                .push(SanType::IpAddress(IpAddr::V4(*address)));
        }
        for name in names {
            params
                .subject_alt_names
                .push(SanType::DnsName((*name).try_into()?));
        }
        self.certificate(name, &params).map(drop)
    }

    /// Creates a certificate and the kubeconfig that uses it.
    fn client(&self, name: &str, common_name: &str, group: Option<&str>) -> Result<()> {
        let (certificate, key) = self.certificate(name, &client_params(common_name, group))?;
        let mark = self.cluster.name().mark();
        let encode = |pem: &str| BASE64_STANDARD.encode(pem);
        // The data, not their paths: the file can be handed into a pod or copied away.
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": mark, "cluster": {
                "server": self.cluster.number().api_server(),
                "certificate-authority-data": encode(&self.certificate_pem),
            }}],
            "users": [{"name": name, "user": {
                "client-certificate-data": encode(&certificate),
                "client-key-data": encode(&key),
            }}],
            "contexts": [{"name": mark, "context": {"cluster": mark, "user": name}}],
            "current-context": mark,
        });
        let file = self.cluster.state().kubeconfig(name);
        write_private(&file, &serde_saphyr::to_string(&kubeconfig)?)
    }
}

fn client_params(common_name: &str, group: Option<&str>) -> CertificateParams {
    let mut params = params_of(common_name, group);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn params_of(common_name: &str, group: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::MINUTE;
    params.not_after = now + LIFE;
    params
}

fn write_private(file: &Path, text: &str) -> Result<()> {
    let mut options = fs::File::options();
    let opened = options
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(file);
    let mut opened = opened.with_context(|| format!("failed to write {}", file.display()))?;
    Ok(opened.write_all(text.as_bytes())?)
}
