//! TLS implementation of a process.

use rustls::crypto::CryptoProvider;

/// Makes *ring* the process's TLS implementation. Call it before the first client is created; calling it again has no
/// effect.
///
/// Only one is linked, but no library may choose it for the process: without this, the first connection panics.
pub fn install() {
    if CryptoProvider::get_default().is_none() {
        // Another thread has installed it first: the same, since only one is linked.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installing_twice_is_harmless() {
        install();
        install();
        assert!(CryptoProvider::get_default().is_some());
    }
}
