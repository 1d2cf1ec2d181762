//! A certificate authority: its key, its certificate, and the certificates that it issues.

use millpond_cluster::Peer;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

/// Longer than any installation; deleting the Secret replaces the authority.
const AUTHORITY_LIFETIME: Duration = Duration::days(3_650);

/// Of the certificate of a node process, which requests another after two thirds of it.
const PEER_LIFETIME: Duration = Duration::hours(24);

/// Of the controller's own certificate, which is renewed after two thirds of it.
const SERVER_LIFETIME: Duration = Duration::hours(24 * 7);

/// How far the clocks of nodes may differ.
const CLOCK_SKEW: Duration = Duration::minutes(5);

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    /// The authority's own key or certificate, or a request, is invalid.
    #[error("failed to use a key or certificate")]
    Certificate(#[from] rcgen::Error),
    /// The node's name is too long for a DNS name.
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
    /// Creates an authority. Returns its certificate and key in PEM.
    pub(crate) fn generate() -> Result<(String, String), AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = common_name("millpond");
        valid_for(&mut params, AUTHORITY_LIFETIME);
        let certificate = params.self_signed(&key)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// Reads an authority from its certificate and key in PEM.
    pub(crate) fn from_pem(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        Ok(Self {
            issuer: Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key)?)?,
            certificate_pem: certificate.to_owned(),
        })
    }

    /// Returns its certificate.
    pub(crate) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Issues a certificate for the key of a request. Names in the request are ignored.
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
        valid_for(&mut params, PEER_LIFETIME);
        request.params = params;
        Ok(request.signed_by(&self.issuer)?.pem())
    }

    /// Issues a certificate for a server of these names. Returns it with its key.
    pub(crate) fn serve_as(&self, names: Vec<String>) -> Result<(String, String), AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = common_name("millpond controller");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        valid_for(&mut params, SERVER_LIFETIME);
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn valid_for(params: &mut CertificateParams, lifetime: Duration) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + lifetime;
}

#[cfg(test)]
mod tests {
    use millpond_cluster::{ClientCertPolicy, Identity, Role};

    use super::*;

    #[test]
    fn an_issued_certificate_is_valid_and_names_the_peer() {
        millpond_process::tls::install();
        let (certificate, key) = Authority::generate().unwrap();
        let authority = Authority::from_pem(&certificate, &key).unwrap();
        let peer = Peer {
            role: Role::Worker,
            node: "gpu-1".to_owned(),
        };
        let own = KeyPair::generate().unwrap();
        // The names that a request claims are ignored.
        let claim =
            CertificateParams::new(vec!["millpond-controller.millpond-system.svc".to_owned()]).unwrap();
        let csr = claim.serialize_request(&own).unwrap().pem().unwrap();
        let issued = authority.issue(&csr, &peer).unwrap();
        assert!(!issued.contains("millpond-system"));
        let identity =
            Identity::from_pem(&issued, &own.serialize_pem(), authority.certificate_pem()).unwrap();
        identity.client_config().unwrap();
        identity.server_config(ClientCertPolicy::Required).unwrap();
        let (served, key) = authority.serve_as(vec!["a.b.svc".to_owned()]).unwrap();
        Identity::from_pem(&served, &key, authority.certificate_pem()).unwrap();
    }
}
