//! A certificate authority: its key, its certificate, and what it signs.

use millpond_cluster::Peer;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

/// Longer than any installation; it can be replaced by deleting the Secret.
const AUTHORITY_LIFE: Duration = Duration::days(3_650);

/// What a node process gets; it asks anew at two thirds of it.
const PEER_LIFE: Duration = Duration::hours(24);

/// The controller's own; it signs another at two thirds of it.
const SERVER_LIFE: Duration = Duration::hours(24 * 7);

/// Clocks of nodes differ.
const SKEW: Duration = Duration::minutes(5);

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    /// The authority's own parts or a request cannot be used.
    #[error("failed to use a key or certificate")]
    Certificate(#[from] rcgen::Error),
    /// A node's name makes no name for TLS.
    #[error("node {node} has a name that is too long for a certificate")]
    Name { node: String },
}

/// See the module's documentation.
pub(crate) struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes an authority; its certificate and key in PEM.
    pub(crate) fn generate() -> Result<(String, String), AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = common_name("millpond");
        valid_for(&mut params, AUTHORITY_LIFE);
        let certificate = params.self_signed(&key)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// Takes one up from its parts in PEM.
    pub(crate) fn from_pem(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        Ok(Self {
            issuer: Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key)?)?,
            certificate_pem: certificate.to_owned(),
        })
    }

    /// Its certificate, for who trusts it.
    pub(crate) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A certificate for the key of a request; what else the request asks for is ignored.
    pub(crate) fn issue(&self, csr_pem: &str, peer: &Peer) -> Result<String, AuthorityError> {
        let too_long = || AuthorityError::Name {
            node: peer.node.clone(),
        };
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem)?;
        let mut params = CertificateParams::default();
        let (uri, name) = (peer.to_string(), peer.server_name());
        if name.len() > 253 {
            return Err(too_long());
        }
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?), SanType::DnsName(name.try_into()?)];
        params.distinguished_name = common_name("millpond node process");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        valid_for(&mut params, PEER_LIFE);
        request.params = params;
        Ok(request.signed_by(&self.issuer)?.pem())
    }

    /// A certificate for a server of these names, and its key.
    pub(crate) fn serve_as(&self, names: Vec<String>) -> Result<(String, String), AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = common_name("millpond controller");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        valid_for(&mut params, SERVER_LIFE);
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn valid_for(params: &mut CertificateParams, life: Duration) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - SKEW;
    params.not_after = now + life;
}

#[cfg(test)]
mod tests {
    use millpond_cluster::{ClientCertPolicy, Identity, Role};

    use super::*;

    #[test]
    fn what_it_issues_can_be_used_and_names_the_peer() {
        millpond_process::tls::install();
        let (certificate, key) = Authority::generate().unwrap();
        let authority = Authority::from_pem(&certificate, &key).unwrap();
        let peer = Peer {
            role: Role::Worker,
            node: "gpu-1".to_owned(),
        };
        let own = KeyPair::generate().unwrap();
        // A request that claims to be somebody is given its own name all the same.
        let claim =
            CertificateParams::new(vec!["millpond-controller.millpond-system.svc".to_owned()]).unwrap();
        let csr = claim.serialize_request(&own).unwrap().pem().unwrap();
        let issued = authority.issue(&csr, &peer).unwrap();
        assert!(!issued.contains("millpond-system"));
        let identity =
            Identity::from_pem(&issued, &own.serialize_pem(), authority.certificate_pem()).unwrap();
        identity.client_config().unwrap();
        identity.server_config(ClientCertPolicy::MustShow).unwrap();
        let (served, key) = authority.serve_as(vec!["a.b.svc".to_owned()]).unwrap();
        Identity::from_pem(&served, &key, authority.certificate_pem()).unwrap();
    }
}
