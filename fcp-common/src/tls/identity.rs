//! Who this end is: a private key with its self-signed certificate.

use std::io;
use std::path::Path;
use std::sync::Arc;

use fcp_proto::auth::Fingerprint;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::{fingerprint, tls_error};
use crate::private::{self, Rule, shown};

/// Whoever reads the key is us. Its length is about 900 bytes.
const RULE: Rule = Rule { safe_dir: false, ..Rule::secret(64 << 10) };

/// A private key with its self-signed certificate, which others know by its fingerprint.
#[derive(Clone, Debug)]
pub struct Identity {
    key: Arc<CertifiedKey>,
    fingerprint: Fingerprint,
}

impl Identity {
    /// A new identity (ECDSA, P-256) that exists in memory only.
    ///
    /// # Errors
    /// No random numbers can be had.
    pub fn fresh() -> io::Result<Identity> {
        generate().map(|(identity, _)| identity)
    }

    /// The identity in the PEM file `path`; if there is none, a new one that is written there
    /// first, with mode 0600. Of several that do this at once, all get the same.
    ///
    /// # Errors
    /// The file cannot be read or written, or it is not safe: a link, not a regular file, of
    /// another owner, or open to others. The text names it.
    pub fn load_or_create(path: &Path) -> io::Result<Identity> {
        if let Some(loaded) = load(path)? {
            return Ok(loaded);
        }
        let (identity, pem) = generate()?;
        match private::create(path, pem.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                load(path)?.ok_or_else(|| io::ErrorKind::NotFound.into())
            }
            created => created.map(|()| identity).map_err(io::Error::from),
        }
    }

    /// What others know it by.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(super) fn resolver(&self) -> Arc<SingleCertAndKey> {
        Arc::new(SingleCertAndKey::from(Arc::clone(&self.key)))
    }

    #[cfg(test)]
    pub(super) fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.key.cert.clone()
    }

    #[cfg(test)]
    pub(super) fn signing_key(&self) -> Arc<dyn rustls::sign::SigningKey> {
        Arc::clone(&self.key.key)
    }

    fn new(cert: CertificateDer<'static>, key: &PrivateKeyDer<'static>) -> io::Result<Identity> {
        let fingerprint = fingerprint(&cert);
        let key = CertifiedKey::new(vec![cert], any_supported_type(key).map_err(tls_error)?);
        key.keys_match().map_err(tls_error)?;
        Ok(Identity { key: Arc::new(key), fingerprint })
    }
}

/// A new identity and its file.
fn generate() -> io::Result<(Identity, String)> {
    let made = rcgen::generate_simple_self_signed([]).map_err(io::Error::other)?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let cert = made.cert.der().clone();
    let pem = pem("PRIVATE KEY", key.secret_der()) + &pem("CERTIFICATE", &cert);
    Ok((Identity::new(cert, &key)?, pem))
}

/// `None` when there is no file.
fn load(path: &Path) -> io::Result<Option<Identity>> {
    let Some(found) = private::read(path, &RULE)? else { return Ok(None) };
    parse(&found.bytes).map(Some).map_err(|error| {
        let text = format!("the key file {} cannot be used: {error}", shown(path));
        io::Error::new(error.kind(), text)
    })
}

fn parse(pem: &[u8]) -> io::Result<Identity> {
    let invalid = |what| move |_| io::Error::new(io::ErrorKind::InvalidData, what);
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(invalid("it has no private key"))?;
    let cert = CertificateDer::from_pem_slice(pem).map_err(invalid("it has no certificate"))?;
    Identity::new(cert, &key)
}

/// `der` as RFC 7468 has it.
fn pem(label: &str, der: &[u8]) -> String {
    const LINE: usize = 48;
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(LINE) {
        line.chunks(3).for_each(|three| push_base64(three, &mut out));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}

/// Appends one to three bytes as four characters.
fn push_base64(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let byte = |i| u32::from(bytes.get(i).copied().unwrap_or(0));
    let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
    for i in 0..4 {
        let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize];
        out.push(if i <= bytes.len() { digit.into() } else { '=' });
    }
}
