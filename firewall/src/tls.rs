//! TLS of the firewall's own connections: rustls with ring, trusting the roots of the system.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_native_certs::Error;

/// The roots of the system, or of `SSL_CERT_FILE` and `SSL_CERT_DIR` where these are set.
///
/// # Errors
/// If there are none: what stood in the way.
pub fn system_roots() -> Result<RootCertStore, Vec<Error>> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // One that makes no sense certifies nothing.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() { Err(found.errors) } else { Ok(roots) }
}

/// A client that trusts these roots, and has no certificate of its own.
pub fn client(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
