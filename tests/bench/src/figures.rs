//! How each figure is measured.

pub(crate) mod cpu;
pub(crate) mod epochs;
pub(crate) mod first_pass;
pub(crate) mod first_read;
pub(crate) mod half;
pub(crate) mod kept;
pub(crate) mod large;
pub(crate) mod million;
pub(crate) mod peak;
pub(crate) mod start;
pub(crate) mod walk;
