//! The CRDs: that those in `deploy/crds` are the types', and what their rules refuse.

mod crds;
mod rules;
