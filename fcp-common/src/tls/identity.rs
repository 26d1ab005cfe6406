//! Who this end is: a private key with its self-signed certificate.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fcp_proto::auth::Fingerprint;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::{fingerprint, tls_error};

/// Longest file that is read; ours have about 900 bytes.
const MAX_FILE: u64 = 64 << 10;
/// Whoever reads the key is us.
const MODE: u32 = 0o600;
/// For a directory that is made for it.
const DIR_MODE: u32 = 0o700;

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
        match load(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            loaded => return named(path, loaded),
        }
        match create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => named(path, load(path)),
            created => named(path, created),
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

fn named<T>(path: &Path, done: io::Result<T>) -> io::Result<T> {
    done.map_err(|error| {
        let text = format!("the key file {} cannot be used: {error}", path.display());
        io::Error::new(error.kind(), text)
    })
}

/// A new identity and its file.
fn generate() -> io::Result<(Identity, String)> {
    let made = rcgen::generate_simple_self_signed([]).map_err(io::Error::other)?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let cert = made.cert.der().clone();
    let pem = pem("PRIVATE KEY", key.secret_der()) + &pem("CERTIFICATE", &cert);
    Ok((Identity::new(cert, &key)?, pem))
}

fn load(path: &Path) -> io::Result<Identity> {
    // Non-blocking, or a FIFO would keep us here.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::LOOP) => return Err(unsafe_file("it is a symlink")),
        opened => File::from(opened?),
    };
    check_safe(&file)?;
    let mut pem = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut pem)?;
    let invalid = |what| move |_| io::Error::new(io::ErrorKind::InvalidData, what);
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(invalid("it has no private key"))?;
    let cert = CertificateDer::from_pem_slice(&pem).map_err(invalid("it has no certificate"))?;
    Identity::new(cert, &key)
}

fn check_safe(file: &File) -> io::Result<()> {
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(unsafe_file("it is not a regular file"));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(unsafe_file("it belongs to somebody else"));
    }
    if found.mode() & 0o077 != 0 {
        return Err(unsafe_file("others may open it; chmod it to 0600"));
    }
    Ok(())
}

fn unsafe_file(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

/// Writes a new identity; `AlreadyExists` when somebody else was faster.
fn create(path: &Path) -> io::Result<Identity> {
    let (identity, pem) = generate()?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)?;
    let temp = temp_beside(path);
    let done = write_new(&temp, pem.as_bytes()).and_then(|()| publish(&temp, path));
    if done.is_err() {
        // What is left would be a key that nobody uses.
        let _ = std::fs::remove_file(&temp);
    }
    done?;
    File::open(dir)?.sync_all()?;
    Ok(identity)
}

fn temp_beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().as_bytes().to_vec();
    name.extend_from_slice(format!(".{}.tmp", uuid::Uuid::new_v4().simple()).as_bytes());
    PathBuf::from(std::ffi::OsStr::from_bytes(&name))
}

fn write_new(temp: &Path, content: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(temp, flags, Mode::from_raw_mode(MODE))?);
    file.write_all(content)?;
    file.sync_all()
}

fn publish(temp: &Path, path: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, temp, CWD, path, RenameFlags::NOREPLACE) {
        // The file system cannot: a link fails as well when the name is taken.
        Err(Errno::INVAL | Errno::NOSYS) => {
            std::fs::hard_link(temp, path)?;
            std::fs::remove_file(temp)
        }
        done => Ok(done?),
    }
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
