//! `source` and `destination`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::fields::{Section, choice, shown_key, truth, whole};
use super::secrets::{CredentialSpec, LoginSpec, SecretSource};
use super::{End, JobSpec};
use crate::location::sftp::dial::{Dialer, HostKeyRule};
use crate::secret::Secret;
use crate::target::{check_host, check_user};

const MAX_PATH: usize = 4096;
const DIALERS: &[(&str, Dialer)] =
    &[("auto", Dialer::Auto), ("builtin", Dialer::Builtin), ("system", Dialer::System)];
const TYPES: &[(&str, bool)] = &[("LOCAL", false), ("SFTP", true)];
/// Where a secret may be, by what its key ends in.
const PASSWORD: [&str; 4] = ["password", "password_env", "password_file", "password_command"];
const PASSPHRASE: [&str; 4] =
    ["passphrase", "passphrase_env", "passphrase_file", "passphrase_command"];

/// What names of files in a job file count from.
pub(super) struct Base {
    /// The directory that the job file is in.
    pub(super) dir: PathBuf,
    /// `HOME`.
    pub(super) home: Option<PathBuf>,
}

impl Base {
    /// The file that `text` names.
    pub(super) fn file(&self, text: &str) -> Result<PathBuf, String> {
        if text.is_empty() || text.contains('\0') {
            return Err("a path is needed".to_owned());
        }
        match (text.strip_prefix("~/"), &self.home) {
            (Some(rest), Some(home)) => Ok(home.join(rest)),
            (Some(_), None) => Err("there is no HOME that ~/ could stand for".to_owned()),
            (None, _) => Ok(self.dir.join(text)),
        }
    }
}

/// Reads the end `key` of a job; what is wrong was told when there is none.
pub(super) fn read(top: &Section<'_>, key: &'static str, base: &Base) -> Option<End> {
    let Some(section) = top.section(key) else {
        top.missing(key);
        return None;
    };
    if !section.has("type") {
        section.missing("type");
    }
    let is_sftp = section.read("type", choice(TYPES));
    let end = match is_sftp? {
        true => sftp(&section, key, base),
        false => local(&section),
    };
    let foreign = |key: &str| {
        let of_sftp = ["host", "port", "user", "agent", "host_key", "dialer", "key_file"];
        let of_sftp = of_sftp.iter().chain(&PASSWORD).chain(&PASSPHRASE).any(|k| *k == key);
        of_sftp.then(|| "it belongs to an end with `type: SFTP`".to_owned())
    };
    section.finish(foreign);
    end
}

/// `path` and `base_path` are the same thing; people mix them up.
fn one_path<T>(
    section: &Section<'_>,
    usual: &'static str,
    other: &'static str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    match (section.has(usual), section.has(other)) {
        (true, true) => {
            section.error(other, format!("{usual} says it already: keep one"));
            None
        }
        (false, true) => section.read(other, parse),
        (true, false) => section.read(usual, parse),
        (false, false) => {
            section.missing(usual);
            None
        }
    }
}

fn local(section: &Section<'_>) -> Option<End> {
    let path = one_path(section, "path", "base_path", |text| {
        let path = PathBuf::from(text);
        match text {
            _ if text.len() > MAX_PATH || text.contains('\0') => Err("a path is needed".to_owned()),
            _ if !path.is_absolute() => {
                Err("an absolute path is needed, as in /data/in".to_owned())
            }
            _ if text.split('/').any(|part| part == "..") => Err(no_dots()),
            // Without doubled and trailing slashes and dots.
            _ => Ok(path.components().collect()),
        }
    });
    path.map(|path| End::Local { path })
}

fn no_dots() -> String {
    "a path without .. is needed".to_owned()
}

fn sftp(section: &Section<'_>, place: &'static str, base: &Base) -> Option<End> {
    if !section.has("host") {
        section.missing("host");
    }
    let host = section.read("host", |text| check_host(text).map_err(|why| why.to_string()));
    let port = section.read("port", whole(1..=65535)).map(|port| port as u16);
    let user = section.read("user", |text| check_user(text).map_err(|why| why.to_string()));
    let base_path = one_path(section, "base_path", "path", remote_path);
    let credentials = credentials(section, base);
    let host_key = section.read("host_key", host_key).unwrap_or_default();
    let dialer = section.read("dialer", choice(DIALERS)).unwrap_or_default();
    let of = (section.job.file.to_owned(), section.job.name.clone(), place);
    let login = Box::new(LoginSpec { host: host?, port, user, credentials, host_key, dialer, of });
    Some(End::Sftp { login, base_path: base_path? })
}

/// A path as an SFTP server wants it: `\` is `/`, and a drive stands behind one.
fn remote_path(text: &str) -> Result<Vec<u8>, String> {
    let text = text.trim_end().replace('\\', "/");
    let mut path = String::new();
    if text.starts_with('/') || drive(&text) {
        path.push('/');
    }
    for part in text.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." {
            return Err(no_dots());
        }
        if !path.is_empty() && !path.ends_with('/') {
            path.push('/');
        }
        path.push_str(part);
    }
    match path.as_str() {
        _ if text.is_empty() => {
            Err("a path is needed; the directory of the login is \".\"".to_owned())
        }
        _ if path.len() > MAX_PATH || path.chars().any(char::is_control) => {
            Err("a path of visible characters is needed, at most 4096 bytes".to_owned())
        }
        "" => Ok(b".".to_vec()),
        // The root of a drive is no directory without its slash.
        _ if drive(path.trim_start_matches('/')) && path.len() == 3 => {
            Ok((path + "/").into_bytes())
        }
        _ => Ok(path.into_bytes()),
    }
}

/// `F:` or `F:/...`.
fn drive(path: &str) -> bool {
    match path.as_bytes() {
        [letter, b':', rest @ ..] => {
            letter.is_ascii_alphabetic() && matches!(rest, [] | [b'/', ..])
        }
        _ => false,
    }
}

/// A key first, as servers count the passwords that fail.
fn credentials(section: &Section<'_>, base: &Base) -> Vec<CredentialSpec> {
    let mut credentials = Vec::new();
    let key_file = section.read("key_file", |text| base.file(text));
    let passphrase = secret(section, PASSPHRASE, base);
    if passphrase.is_some() && !section.has("key_file") {
        section.error("key_file", "it is missing, and there is a passphrase for it");
    }
    credentials.extend(key_file.map(|path| CredentialSpec::KeyFile { path, passphrase }));
    if section.read("agent", truth) == Some(true) {
        credentials.push(CredentialSpec::Agent);
    }
    credentials.extend(secret(section, PASSWORD, base).map(CredentialSpec::Password));
    credentials
}

/// The one of the four keys that is there.
fn secret(section: &Section<'_>, keys: [&'static str; 4], base: &Base) -> Option<SecretSource> {
    let [text, env, file, command] = keys;
    let mut there = keys.into_iter().filter(|key| section.has(key));
    let (one, other) = (there.next()?, there.next());
    if let Some(other) = other {
        section.error(other, format!("{one} says it already: keep one"));
    }
    let needed = |what: &str| format!("{what} is needed");
    section.read(one, |value| match one {
        _ if value.is_empty() => Err(needed("a value")),
        _ if value.contains(['\0', '\n']) && one != command => Err(needed("a single line")),
        one if one == text => Ok(SecretSource::Text(Secret::new(value.to_owned()))),
        one if one == env && value.contains(['=', ' ']) => Err(needed("a variable's name")),
        one if one == env => Ok(SecretSource::Env(value.to_owned())),
        one if one == file => base.file(value).map(SecretSource::File),
        _ => Ok(SecretSource::Command(Secret::new(value.to_owned()))),
    })
}

/// `accept-new`, a fingerprint, or a public key as known_hosts has it.
fn host_key(text: &str) -> Result<HostKeyRule, String> {
    let base64 = |text: &str| {
        text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))
    };
    let text = text.trim();
    if text.eq_ignore_ascii_case("accept-new") || text.eq_ignore_ascii_case("accept_new") {
        return Ok(HostKeyRule::AcceptNew);
    }
    let fingerprint = text.strip_prefix("SHA256:").is_some_and(|hash| {
        let hash = hash.trim_end_matches('=');
        hash.len() == 43 && base64(hash)
    });
    let mut words = text.split_ascii_whitespace();
    let key = words.next().is_some_and(|kind| kind.contains('-') && shown_key(kind) == kind)
        && words.next().is_some_and(|key| key.starts_with("AAAA") && base64(key));
    match fingerprint || key {
        true => Ok(HostKeyRule::Pinned(text.to_owned())),
        false => Err("accept-new, SHA256:... or a key as in ssh-ed25519 AAAA... is needed".into()),
    }
}

/// The path above this one, as a server wants it.
fn above(path: &[u8]) -> Option<Vec<u8>> {
    match path.iter().rposition(|byte| *byte == b'/') {
        _ if path == b"." || path == b"/" || path.ends_with(b":/") => None,
        None => Some(b".".to_vec()),
        // The slash of a root stays.
        Some(at) if at == 0 || path[..at].ends_with(b":") => Some(path[..=at].to_vec()),
        Some(at) => Some(path[..at].to_vec()),
    }
}

/// Why files from `source` would come back to it from `destination`.
pub(super) fn overlap(source: &End, destination: &End) -> Option<&'static str> {
    let inside = match (source, destination) {
        (End::Local { path: from }, End::Local { path: to }) => to.starts_with(from),
        (
            End::Sftp { login: from, base_path: from_path },
            End::Sftp { login: to, base_path: to_path },
        ) => from.is_same_account(to) && remote_starts_with(to_path, from_path),
        _ => false,
    };
    inside.then_some("it is the source, or inside of it: files would be picked up again")
}

fn remote_starts_with(path: &[u8], start: &[u8]) -> bool {
    // Windows servers take either case.
    let windows = start.first() == Some(&b'/') && drive(&String::from_utf8_lossy(&start[1..]));
    let fold = |path: &[u8]| if windows { path.to_ascii_lowercase() } else { path.to_vec() };
    let (path, start) = (fold(path), fold(start));
    let absolute = |path: &[u8]| path.first() == Some(&b'/');
    match start.as_slice() {
        b"." => !absolute(&path),
        start => {
            let (path, start) = (PathBuf::from(os(&path)), PathBuf::from(os(start)));
            path.starts_with(start)
        }
    }
}

fn os(bytes: &[u8]) -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec())
}

impl End {
    /// The directory that its base is in; `None` where nothing is above it.
    pub fn parent(&self) -> Option<End> {
        match self {
            End::Local { path } => path.parent().map(|path| End::Local { path: path.to_owned() }),
            End::Sftp { login, base_path } => {
                let base_path = above(base_path)?;
                Some(End::Sftp { login: login.clone(), base_path })
            }
        }
    }

    /// The end for people, without secrets: a path, or `sftp://user@host:port/path`; escaped.
    pub fn shown(&self) -> String {
        match self {
            End::Local { path } => fcp_proto::escape(path.as_os_str().as_encoded_bytes()),
            End::Sftp { login, base_path } => {
                let slash = if base_path.first() == Some(&b'/') { "" } else { "/./" };
                format!("sftp://{}{slash}{}", login.shown(), fcp_proto::escape(base_path))
            }
        }
    }
}

impl JobSpec {
    /// Source and destination.
    pub fn ends(&self) -> [(&'static str, &End); 2] {
        [("source", &self.source), ("destination", &self.destination)]
    }
}

/// The directory that a path is in.
pub(super) fn dir_of(path: &Path) -> PathBuf {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    dir.unwrap_or(Path::new(".")).to_owned()
}
