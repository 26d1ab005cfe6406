//! Whom an end accepts: by the fingerprint of the certificate, with the handshake's signature
//! verified always.

use std::sync::Arc;

use fcp_proto::auth::Fingerprint;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    SignatureScheme,
};

use super::fingerprint;

/// Which server a client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerPin {
    /// The one with this certificate.
    Exactly(Fingerprint),
    /// Any; the caller looks at [`peer_fingerprint`](super::peer_fingerprint) before it trusts it.
    Any,
}

/// Which clients a server accepts. All must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientPin {
    /// The one with this certificate.
    Exactly(Fingerprint),
    /// Any; who it is shows later.
    Any,
}

#[derive(Debug)]
pub(super) struct ServerVerifier(Verifier);

#[derive(Debug)]
pub(super) struct ClientVerifier(Verifier);

impl ServerVerifier {
    pub(super) fn new(pin: ServerPin, provider: &Arc<CryptoProvider>) -> ServerVerifier {
        let pin = match pin {
            ServerPin::Exactly(fingerprint) => Some(fingerprint),
            ServerPin::Any => None,
        };
        ServerVerifier(Verifier::new(pin, provider))
    }
}

impl ClientVerifier {
    pub(super) fn new(pin: ClientPin, provider: &Arc<CryptoProvider>) -> ClientVerifier {
        let pin = match pin {
            ClientPin::Exactly(fingerprint) => Some(fingerprint),
            ClientPin::Any => None,
        };
        ClientVerifier(Verifier::new(pin, provider))
    }
}

/// How both verifiers check the handshake's signature, which rustls leaves to them: TLS 1.3 only,
/// with the provider's algorithms.
macro_rules! check_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(only_tls13())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, signed, &self.0.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0.check(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    check_signatures!();
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.check(end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    check_signatures!();
}

/// What both sides' verifiers have in common.
#[derive(Debug)]
struct Verifier {
    pin: Option<Fingerprint>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn new(pin: Option<Fingerprint>, provider: &Arc<CryptoProvider>) -> Verifier {
        Verifier { pin, algorithms: provider.signature_verification_algorithms }
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        match &self.pin {
            Some(pin) if !same(pin, &fingerprint(certificate)) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(()),
        }
    }
}

/// Compares without an early end, so that the time it takes does not tell where they differ.
fn same(a: &Fingerprint, b: &Fingerprint) -> bool {
    let differences = a.0.iter().zip(&b.0).fold(0, |seen, (a, b)| seen | (a ^ b));
    std::hint::black_box(differences) == 0
}

fn only_tls13() -> Error {
    PeerIncompatible::Tls12NotOffered.into()
}
