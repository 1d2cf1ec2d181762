//! The certificate authority of the data plane.
//!
//! Its key is in a Secret of the controller's namespace, created by the first replica; its certificate is also in a
//! ConfigMap, which workers and drivers mount. It issues a certificate to a process that presents a ServiceAccount token of
//! its pod. The API server returns the account of the token and the node of the pod; nothing else in the request is trusted.

mod authority;
mod issue;
mod store;

pub(crate) use authority::Authority;
pub(crate) use issue::CertificateService;
pub(crate) use store::ensure;
