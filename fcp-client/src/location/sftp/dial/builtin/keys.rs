//! Private keys from files, and the certificates beside them.

use std::path::Path;
use std::sync::Arc;

use fcp_common::private::{self, Rule, shown};
use russh::keys::{Certificate, PrivateKey, PublicKey, decode_secret_key};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// As OpenSSH has it: nobody else may read a private key.
const PRIVATE: Rule = Rule::given(0o077, 64 << 10);
const PUBLIC: Rule = Rule::given(0o002, 64 << 10);

/// A key that can sign.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) private: Arc<PrivateKey>,
    pub(super) certificate: Option<Certificate>,
}

/// The key in a file; `None` where there is no file.
///
/// # Errors
/// It cannot be used; why and what to do, in words.
pub(super) fn load(path: &Path, passphrase: Option<&Secret>) -> Result<Option<Key>, String> {
    let found = private::read(path, &PRIVATE).map_err(|error| error.to_string())?;
    let Some(found) = found else { return Ok(None) };
    let bytes = Zeroizing::new(found.bytes);
    let text = std::str::from_utf8(&bytes).map_err(|_| not_understood(path))?;
    let decoded = decode_secret_key(text, passphrase.map(Secret::reveal));
    let private = decoded.map_err(|error| match (error, passphrase) {
        (russh::keys::Error::KeyIsEncrypted, None) => {
            format!("{}: it needs its passphrase, or an agent that has it", shown(path))
        }
        (_, Some(_)) => {
            format!("{}: the passphrase is wrong, or it is no private key", shown(path))
        }
        (_, None) => not_understood(path),
    })?;
    if private.algorithm().as_str().starts_with("sk-") {
        return Err(format!("{}: its other half is in a token, which takes ssh", shown(path)));
    }
    let private = Arc::new(private);
    Ok(Some(Key { certificate: certificate(path, private.public_key())?, private }))
}

/// The public key in the file beside a private one, which may be in an agent or a token.
pub(super) fn public(path: &Path) -> Option<PublicKey> {
    let text = private::read_text(&beside(path, ".pub"), &PUBLIC).ok()??;
    PublicKey::from_openssh(text.trim()).ok()
}

fn certificate(path: &Path, key: &PublicKey) -> Result<Option<Certificate>, String> {
    let path = beside(path, "-cert.pub");
    let text = private::read_text(&path, &PUBLIC).map_err(|error| error.to_string())?;
    let Some(text) = text else { return Ok(None) };
    let certificate = Certificate::from_openssh(text.trim()).map_err(|_| not_understood(&path))?;
    // One that belongs to an earlier key is no reason to stop.
    Ok(Some(certificate).filter(|it| it.public_key() == key.key_data()))
}

fn beside(path: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn not_understood(path: &Path) -> String {
    format!("{}: it is not a key that is understood here (OpenSSH's or PEM)", shown(path))
}
