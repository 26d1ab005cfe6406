//! TLS 1.3 between ends that know each other by the fingerprints of their certificates.
//!
//! No authorities, names or dates: a certificate is a key in an envelope, pinned by its SHA-256.
//! Sessions are never resumed, so every connection has proven its keys itself.
//!
//! `identity` is who this end is, `pin` whom it accepts, `handshake` brings both together on
//! a connection, `stream` makes a [`Duplex`](crate::engine::Duplex) of it, [`tune()`] prepares its
//! socket for long paths.

mod handshake;
mod identity;
mod pin;
mod stream;
#[cfg(test)]
mod tests;
mod tune;

use std::io;
use std::sync::Arc;

use fcp_proto::auth::Fingerprint;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite as suite};
use rustls::pki_types::CertificateDer;
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, CommonState, ConnectionCommon, ServerConfig};
use sha2::{Digest, Sha256};

pub use handshake::{accept, connect};
pub use identity::Identity;
pub use pin::{ClientPin, ServerPin};
pub use tune::tune;

/// What both ends say they speak, so that another protocol's server or client is told apart.
pub const ALPN: &[u8] = b"fcp/2";
/// The label of RFC 9266.
const BINDING: &[u8] = b"EXPORTER-Channel-Binding";

/// What a client that is `identity` and accepts `pin` connects with.
///
/// # Errors
/// The key cannot be used.
pub fn client_config(identity: &Identity, pin: ServerPin) -> io::Result<Arc<ClientConfig>> {
    let provider = provider();
    let verifier = Arc::new(pin::ServerVerifier::new(pin, &provider));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(tls_error)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(identity.resolver());
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    // There are no names, and this one would travel in the clear.
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// What a server that is `identity` and accepts `pin` takes connections with.
///
/// # Errors
/// The key cannot be used.
pub fn server_config(identity: &Identity, pin: ClientPin) -> io::Result<Arc<ServerConfig>> {
    let provider = provider();
    let verifier = Arc::new(pin::ClientVerifier::new(pin, &provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(tls_error)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identity.resolver());
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The fingerprint of the certificate that the peer has shown, and proven to have the key of.
pub fn peer_fingerprint(conn: &CommonState) -> Option<Fingerprint> {
    // Known before the handshake is over, but not proven before.
    let shown = conn.peer_certificates().filter(|_| !conn.is_handshaking())?;
    shown.first().map(fingerprint)
}

/// 32 bytes that only the two ends of this connection know, whatever lies between them.
///
/// # Errors
/// The handshake is not over.
pub fn exporter<Data>(conn: &ConnectionCommon<Data>) -> io::Result<[u8; 32]> {
    conn.export_keying_material([0; 32], BINDING, None).map_err(tls_error)
}

fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    Fingerprint(Sha256::digest(certificate).into())
}

/// AES first, as processors have instructions for it; the shorter key costs a quarter less.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        suite::TLS13_AES_128_GCM_SHA256,
        suite::TLS13_AES_256_GCM_SHA384,
        suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

fn tls_error(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
