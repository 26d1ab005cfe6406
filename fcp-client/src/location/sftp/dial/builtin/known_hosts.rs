//! Which keys belong to which hosts, as OpenSSH's `known_hosts` has it: hashed names, wildcards,
//! negations, ports, `@cert-authority` and `@revoked`. Pure but for [`KnownHosts::read`].
//!
//! A line that is not understood is skipped, as it can only make a host less known; but never one
//! that revokes, or may.

use std::io;
use std::path::{Path, PathBuf};

use fcp_common::private::{self, PrivateError, Rule, shown};
use hmac::{Hmac, KeyInit, Mac};
use russh::keys::ssh_key::known_hosts::HostPatterns;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, PublicKey};
use sha1::Sha1;

/// More than anybody's hosts. Others may read the file; groups may write it where that is the
/// habit, and OpenSSH takes no offence.
const RULE: Rule = Rule::given(0o002, 16 << 20);

/// A host as the files name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// In lower case.
    name: String,
    port: u16,
}

/// What the files say.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownHosts {
    lines: Vec<Line>,
}

/// What a line says of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// A host has it.
    Host,
    /// It signs the certificates of hosts.
    Authority,
    /// Nobody may use it.
    Revoked,
}

/// One key of some hosts.
#[derive(Clone, Debug)]
pub(super) struct Line {
    file: PathBuf,
    number: usize,
    mark: Mark,
    names: HostPatterns,
    key: PublicKey,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum KnownHostsError {
    /// One cannot be read.
    #[error("{0}")]
    File(#[from] PrivateError),
    /// The system gives no random bytes.
    #[error("{0}")]
    Random(#[from] io::Error),
    /// A line may revoke a key that we would take for good.
    #[error("line {number} of {} begins with @ and is not understood: mend or remove it", shown(.file))]
    Malformed {
        /// The file.
        file: PathBuf,
        /// From 1.
        number: usize,
    },
}

impl Host {
    pub(super) fn new(name: &str, port: u16) -> Host {
        Host { name: name.to_ascii_lowercase(), port }
    }

    /// Whether it is looked for under its name alone, too.
    pub(super) fn without_port(&self) -> Option<Host> {
        (self.port != 22).then(|| Host { name: self.name.clone(), port: 22 })
    }

    /// As it stands in a line.
    pub(super) fn spelled(&self) -> String {
        match self.port {
            22 => self.name.clone(),
            port => format!("[{}]:{port}", self.name),
        }
    }

    /// As it stands in a line, so that nobody can read it there.
    fn hashed(&self) -> Result<String, KnownHostsError> {
        let mut salt = [0; 20];
        let flags = rustix::rand::GetRandomFlags::empty();
        let filled = rustix::rand::getrandom(&mut salt, flags).map_err(io::Error::from)?;
        let mut mac =
            mac(&salt[..filled]).ok_or(io::ErrorKind::InvalidInput).map_err(io::Error::from)?;
        mac.update(self.spelled().as_bytes());
        let hash = mac.finalize().into_bytes().into();
        Ok(HostPatterns::HashedName { salt: salt[..filled].to_vec(), hash }.to_string())
    }

    /// Its name alone.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl KnownHosts {
    /// What stands in these files, of which any may be missing.
    ///
    /// # Errors
    /// One is there and cannot be read or understood: then nobody is known.
    pub(super) fn read(files: &[PathBuf]) -> Result<KnownHosts, KnownHostsError> {
        let mut all = KnownHosts::default();
        // ssh_config's way to have none.
        for file in files.iter().filter(|file| *file != Path::new("/dev/null")) {
            if let Some(found) = private::read(file, &RULE)? {
                all.add(file, &found.bytes)?;
            }
        }
        Ok(all)
    }

    /// The lines of the file with these contents, too.
    ///
    /// # Errors
    /// See [`KnownHostsError::Malformed`].
    pub(super) fn add(&mut self, file: &Path, contents: &[u8]) -> Result<(), KnownHostsError> {
        for (index, text) in contents.split(|b| *b == b'\n').enumerate() {
            let text = text.trim_ascii();
            match Line::parse(file, index + 1, text) {
                Some(line) => self.lines.push(line),
                None if text.starts_with(b"@") => {
                    return Err(KnownHostsError::Malformed {
                        file: file.to_owned(),
                        number: index + 1,
                    });
                }
                None => {}
            }
        }
        Ok(())
    }

    /// The lines about `host` with this mark, in the files' order.
    pub(super) fn about(&self, host: &Host, mark: Mark) -> Vec<&Line> {
        let spelled = host.spelled();
        let is_meant = |line: &&Line| line.mark == mark && line.is_about(&spelled);
        self.lines.iter().filter(is_meant).collect()
    }

    /// Adds a host to the first file of its owner's, unless it stands there by now.
    ///
    /// # Errors
    /// The file cannot be written, or got another key of the host meanwhile.
    pub(super) fn append(
        file: &Path,
        host: &Host,
        key: &PublicKey,
        hashed: bool,
    ) -> Result<bool, KnownHostsError> {
        let mut agrees = true;
        private::append(file, &RULE, |text| {
            let mut now = KnownHosts::default();
            now.add(file, text.as_bytes())?;
            let found = now.about(host, Mark::Host);
            if !found.is_empty() {
                agrees = found.iter().any(|line| line.has(key.key_data()));
                return Ok::<_, KnownHostsError>(String::new());
            }
            let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            let name = if hashed { host.hashed()? } else { host.spelled() };
            Ok(format!("{gap}{name} {}\n", key_text(key)))
        })?;
        Ok(agrees)
    }
}

impl Line {
    fn parse(file: &Path, number: usize, text: &[u8]) -> Option<Line> {
        let text = std::str::from_utf8(text).ok()?;
        if text.starts_with('#') {
            return None;
        }
        let mut fields = text.split_ascii_whitespace();
        let mut next = fields.next()?;
        let mark = match next {
            "@cert-authority" => Mark::Authority,
            "@revoked" => Mark::Revoked,
            other if other.starts_with('@') => return None,
            _ => Mark::Host,
        };
        if mark != Mark::Host {
            next = fields.next()?;
        }
        let names = next.parse().ok()?;
        let (kind, blob) = (fields.next()?, fields.next()?);
        let key = PublicKey::from_openssh(&format!("{kind} {blob}")).ok()?;
        Some(Line { file: file.to_owned(), number, mark, names, key })
    }

    /// Whether it holds this key.
    pub(super) fn has(&self, key: &KeyData) -> bool {
        self.key.key_data() == key
    }

    /// Its key.
    pub(super) fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Its place, for people.
    pub(super) fn place(&self) -> String {
        format!("line {} of {}", self.number, shown(&self.file))
    }

    /// The file that it stands in.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    fn is_about(&self, spelled: &str) -> bool {
        match &self.names {
            HostPatterns::HashedName { salt, hash } => {
                let Some(mut mac) = mac(salt) else { return false };
                mac.update(spelled.as_bytes());
                mac.verify_slice(hash).is_ok()
            }
            HostPatterns::Patterns(patterns) => matches_any(patterns, spelled),
        }
    }
}

/// A key of any length is a key of HMAC.
fn mac(salt: &[u8]) -> Option<Hmac<Sha1>> {
    Hmac::<Sha1>::new_from_slice(salt).ok()
}

/// Whether one of the patterns matches and no negated one does.
pub(super) fn matches_any(patterns: &[String], name: &str) -> bool {
    let mut found = false;
    for pattern in patterns {
        let pattern = pattern.to_ascii_lowercase();
        match pattern.strip_prefix('!') {
            Some(negated) if matches(negated.as_bytes(), name.as_bytes()) => return false,
            Some(_) => {}
            None => found |= matches(pattern.as_bytes(), name.as_bytes()),
        }
    }
    found
}

/// `*` is any text, `?` any one byte. Goes back to the last star only, so it takes at most the
/// product of both lengths.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(b) if *b == b'?' || *b == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, n) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// The key as it stands in a line, without a comment.
pub(super) fn key_text(key: &PublicKey) -> String {
    PublicKey::new(key.key_data().clone(), "").to_openssh().unwrap_or_default()
}

/// The algorithms by which a host may prove that it has such a key. RSA never with SHA-1.
pub(super) fn algorithms(key: &Algorithm) -> Vec<Algorithm> {
    use russh::keys::HashAlg;
    match key {
        Algorithm::Rsa { .. } => [HashAlg::Sha512, HashAlg::Sha256]
            .map(|hash| Algorithm::Rsa { hash: Some(hash) })
            .to_vec(),
        other => vec![other.clone()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB9dG4kjRhQTtWTVzd2t27+t0DEHBPW7iOD23TUiYLio";
    const B: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2pr+Bfus1hvPof4Wb/plZCzSbqadHH0u+/f4ODtKnE";

    fn known(text: &str) -> KnownHosts {
        let mut known = KnownHosts::default();
        known.add(Path::new("k"), text.as_bytes()).unwrap();
        known
    }

    fn is_known(text: &str, name: &str, port: u16) -> bool {
        !known(text).about(&Host::new(name, port), Mark::Host).is_empty()
    }

    #[test]
    fn names_ports_wildcards_and_negations_are_understood() {
        for (names, name, port, expected) in [
            ("h", "h", 22, true),
            ("H", "h", 22, true),
            ("h", "H", 22, true),
            ("h", "h", 23, false),
            ("[h]:23", "h", 23, true),
            ("[h]:23", "h", 22, false),
            ("a,h,b", "h", 22, true),
            ("*.example.org", "x.example.org", 22, true),
            ("*.example.org", "example.org", 22, false),
            ("*.example.org,!bad.example.org", "bad.example.org", 22, false),
            ("!bad.example.org,*.example.org", "bad.example.org", 22, false),
            ("!bad", "good", 22, false),
            ("h?", "h1", 22, true),
            ("h?", "h", 22, false),
            ("[*.org]:2?", "a.org", 23, true),
            ("a*b*c", "aXbYbZc", 22, true),
            ("10.0.0.*", "10.0.0.7", 22, true),
        ] {
            let got = is_known(&format!("{names} {A}\n"), name, port);
            assert_eq!(got, expected, "{names} for {name}:{port}");
        }
    }

    #[test]
    fn a_hashed_name_is_found() {
        // ssh-keygen -H made it of "example.org".
        let mut mac = Hmac::<Sha1>::new_from_slice(&[7; 20]).unwrap();
        mac.update(b"[example.org]:2222");
        let hash = mac.finalize().into_bytes();
        let names = HostPatterns::HashedName { salt: vec![7; 20], hash: hash.into() };
        let text = format!("{} {A}\n", names.to_string());
        assert!(text.starts_with("|1|"));
        assert!(is_known(&text, "Example.org", 2222));
        assert!(!is_known(&text, "example.org", 22));
    }

    #[test]
    fn what_is_no_line_is_skipped_but_never_one_that_may_revoke() {
        let text = format!("# c\n\n\r\nh 1024 35 123\nh ssh-foo xx\n\x01\nh {A} a comment\r\n");
        assert!(is_known(&text, "h", 22));
        let mut known = KnownHosts::default();
        for bad in ["@revoked h ssh-ed25519 AAAA", "@other h x", "@revoked", "@revoked h"] {
            let error = known.add(Path::new("k"), format!("\n{bad}\n").as_bytes()).unwrap_err();
            assert!(error.to_string().contains("line 2 of 'k'"), "{error}");
        }
        assert!(known.add(Path::new("k"), b"@\xff h ssh-ed25519 AAAA").is_err());
    }

    #[test]
    fn marks_are_kept_apart() {
        let text = format!("@revoked * {A}\n@cert-authority *.org {B}\n");
        let known = known(&text);
        let host = Host::new("h.org", 22);
        assert!(known.about(&host, Mark::Host).is_empty());
        assert_eq!(known.about(&host, Mark::Revoked).len(), 1);
        assert_eq!(known.about(&host, Mark::Authority)[0].place(), "line 2 of 'k'");
    }

    #[test]
    fn a_new_host_is_added_once_and_never_beside_another_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".ssh/known_hosts");
        let (a, b) = (PublicKey::from_openssh(A).unwrap(), PublicKey::from_openssh(B).unwrap());
        let host = Host::new("h", 2222);
        assert!(KnownHosts::append(&file, &host, &a, false).unwrap());
        assert!(KnownHosts::append(&file, &host, &a, false).unwrap());
        assert!(!KnownHosts::append(&file, &host, &b, false).unwrap());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("[h]:2222 {A}\n"));
        std::fs::write(&file, "# no newline").unwrap();
        assert!(KnownHosts::append(&file, &host, &a, false).unwrap());
        assert_eq!(
            std::fs::read_to_string(&file).unwrap(),
            format!("# no newline\n[h]:2222 {A}\n")
        );
    }

    #[test]
    fn a_new_host_may_be_added_with_its_name_hashed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("known_hosts");
        let (host, key) = (Host::new("h", 2222), PublicKey::from_openssh(A).unwrap());
        for _ in 0..2 {
            assert!(KnownHosts::append(&file, &host, &key, true).unwrap());
        }
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("|1|") && text.lines().count() == 1, "{text}");
        assert!(is_known(&text, "h", 2222) && !is_known(&text, "h", 22));
    }
}
