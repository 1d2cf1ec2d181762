//! The authority of the data plane.
//!
//! Its key is in a Secret of the controller's namespace, made by whichever replica comes first; its certificate also in a
//! ConfigMap, which workers and drivers mount. It issues a certificate to a process that shows a ServiceAccount token of
//! its pod: the API server says whose token it is and on which node its pod runs, and nothing else is believed.

mod authority;
mod issue;
mod store;

pub(crate) use authority::Authority;
pub(crate) use issue::CertificateService;
pub(crate) use store::ensure;
