//! The one TLS implementation of a process.

use rustls::crypto::CryptoProvider;

/// Makes *ring* the process's TLS implementation. To be called before the first client is made; calling it again does
/// nothing.
///
/// Only one is linked, but no library may choose it for the process: without this, the first connection panics.
pub fn install() {
    if CryptoProvider::get_default().is_none() {
        // Somebody else was faster, with the only one there is.
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
