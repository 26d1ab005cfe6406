//! Whether a server is whom we mean, by the key that it showed. Fails closed.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::{Certificate, Fingerprint};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey, PublicKeyOrCertificate};

use super::known_hosts::{Host, KnownHosts, Mark, algorithms, key_text, matches_any};
use crate::location::sftp::dial::HostKeyRule;

/// What decides about a server's key.
#[derive(Debug)]
pub(super) struct Judge {
    rule: Rule,
    host: Host,
    known: KnownHosts,
    /// The first one is where a new host is added.
    files: Vec<PathBuf>,
    /// Whether its name is hashed there.
    hashed: bool,
    /// How a user would log in by hand.
    by_hand: String,
}

#[derive(Debug)]
enum Rule {
    Known,
    AcceptNew,
    Fingerprint(Fingerprint),
    Key(Box<PublicKey>),
}

impl Judge {
    /// One that knows what the files say.
    ///
    /// # Errors
    /// A file or the pin is not understood; why, in words.
    pub(super) fn new(
        rule: &HostKeyRule,
        host: Host,
        files: Vec<PathBuf>,
        by_hand: String,
    ) -> Result<Judge, String> {
        let rule = Rule::new(rule)?;
        let reading = if rule.is_pin() { &[][..] } else { &files[..] };
        let known = KnownHosts::read(reading);
        let known = known.map_err(|error| format!("it is not known whom to trust: {error}"))?;
        Ok(Judge { rule, host, known, files, hashed: false, by_hand })
    }

    /// One that hashes the names of new hosts, or not.
    pub(super) fn hashing(self, hashed: bool) -> Judge {
        Judge { hashed, ..self }
    }

    /// What to ask the server to prove itself with, one list after the other until one is good:
    /// only kinds of keys that are recorded for it, where any are.
    pub(super) fn offers(&self) -> Vec<Vec<Algorithm>> {
        match &self.rule {
            Rule::Key(key) => vec![algorithms(&key.algorithm())],
            // The pin does not tell the kind of its key.
            Rule::Fingerprint(_) => kinds(),
            Rule::Known | Rule::AcceptNew => {
                let recorded = self.recorded();
                let mut all = kinds().concat();
                if !recorded.is_empty() {
                    all.retain(|kind| recorded.contains(kind));
                }
                vec![all]
            }
        }
    }

    /// The kinds of keys for which a certificate is worth asking for.
    pub(super) fn certificates(&self) -> Vec<Algorithm> {
        match self.authorities().is_empty() {
            true => Vec::new(),
            false => kinds().concat(),
        }
    }

    /// Whether the kinds of keys offered were those of the files.
    pub(super) fn has_recorded(&self) -> bool {
        !self.recorded().is_empty() || matches!(self.rule, Rule::Key(_))
    }

    /// Whether the server is whom we mean.
    ///
    /// # Errors
    /// It is not, or nobody knows; why and what to do, in words.
    pub(super) fn judge(&self, shown: &PublicKeyOrCertificate) -> Result<(), String> {
        let key = shown.public_key();
        if let Some(line) = self.lines(Mark::Revoked).iter().find(|line| line.has(key.key_data())) {
            return Err(format!(
                "its key {} is revoked by {}; nothing was sent to it",
                described(&key),
                line.place()
            ));
        }
        match shown.certificate().filter(|cert| self.is_by_authority(cert)) {
            Some(certificate) => self.check_certificate(certificate),
            None => self.check_key(&key),
        }
    }

    fn check_key(&self, key: &PublicKey) -> Result<(), String> {
        match &self.rule {
            Rule::Key(pinned) if pinned.key_data() == key.key_data() => return Ok(()),
            Rule::Fingerprint(pinned) if key.fingerprint(pinned.algorithm()) == *pinned => {
                return Ok(());
            }
            Rule::Key(pinned) => return Err(self.not_pinned(key, &described(pinned))),
            Rule::Fingerprint(pinned) => return Err(self.not_pinned(key, &pinned.to_string())),
            Rule::Known | Rule::AcceptNew => {}
        }
        let recorded = self.known.about(&self.host, Mark::Host);
        if recorded.iter().any(|line| line.has(key.key_data())) {
            return Ok(());
        }
        if let Some(line) = recorded.first() {
            return Err(self.changed(key, line));
        }
        // As OpenSSH does: a line without the port is good enough, but proves no change.
        let elsewhere = self.host.without_port();
        let elsewhere = elsewhere.map(|host| self.known.about(&host, Mark::Host));
        if elsewhere.is_some_and(|lines| lines.iter().any(|line| line.has(key.key_data()))) {
            return Ok(());
        }
        match self.rule {
            Rule::AcceptNew => self.accept(key),
            _ => Err(self.unknown(key)),
        }
    }

    fn accept(&self, key: &PublicKey) -> Result<(), String> {
        let file = self.files.first().ok_or("there is no file of known hosts to add it to")?;
        match KnownHosts::append(file, &self.host, key, self.hashed) {
            Ok(true) => {
                tracing::warn!(
                    "{} is new: its key {} is added to {}",
                    self.host.spelled(),
                    described(key),
                    fcp_common::private::shown(file)
                );
                Ok(())
            }
            Ok(false) => Err("another key of it was recorded just now; try again".to_owned()),
            Err(error) => Err(format!("its key cannot be recorded: {error}")),
        }
    }

    fn check_certificate(&self, certificate: &Certificate) -> Result<(), String> {
        let refused = |why: &str| Err(format!("its host certificate is refused: {why}"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let authority = certificate.signature_key().fingerprint(HashAlg::Sha256);
        let revoked = self.lines(Mark::Revoked);
        if revoked.iter().any(|line| line.has(certificate.signature_key())) {
            return refused("the key of its authority is revoked");
        }
        if certificate.cert_type() != CertType::Host {
            return refused("it is a user's");
        }
        if certificate.signature().algorithm() == (Algorithm::Rsa { hash: None }) {
            return refused("it is signed with SHA-1");
        }
        if certificate.validate_at(now, [&authority]).is_err() {
            return refused("it has expired, is not yet valid, or its signature is bad");
        }
        if certificate.critical_options().iter().next().is_some() {
            return refused("it has critical options, which no host's has");
        }
        if !matches_any(certificate.valid_principals(), self.host.name()) {
            return refused(&format!("it is not for {}", self.host.name()));
        }
        Ok(())
    }

    fn is_by_authority(&self, certificate: &Certificate) -> bool {
        self.authorities().iter().any(|line| line.has(certificate.signature_key()))
    }

    fn authorities(&self) -> Vec<&super::known_hosts::Line> {
        if self.rule.is_pin() { Vec::new() } else { self.lines(Mark::Authority) }
    }

    /// The lines about the host, with and without its port.
    fn lines(&self, mark: Mark) -> Vec<&super::known_hosts::Line> {
        let mut lines = self.known.about(&self.host, mark);
        if let Some(host) = self.host.without_port() {
            lines.extend(self.known.about(&host, mark));
        }
        lines
    }

    fn recorded(&self) -> Vec<Algorithm> {
        let kinds = |host: &Host| -> Vec<Algorithm> {
            let lines = self.known.about(host, Mark::Host);
            lines.iter().flat_map(|line| algorithms(&line.key().algorithm())).collect()
        };
        let recorded = kinds(&self.host);
        match (recorded.is_empty(), self.host.without_port()) {
            (true, Some(host)) => kinds(&host),
            _ => recorded,
        }
    }

    fn not_pinned(&self, key: &PublicKey, pinned: &str) -> String {
        format!(
            "IT IS NOT THE SERVER THAT `host_key` PINS: it showed {}, pinned is {pinned}. Either \
             somebody is listening in, or the server has a new key: ask its operator. Nothing was \
             sent to it",
            described(key)
        )
    }

    fn changed(&self, key: &PublicKey, line: &super::known_hosts::Line) -> String {
        format!(
            "ITS KEY HAS CHANGED: it showed {}, but {} has {}. Either somebody is listening in, or \
             the server has a new key: ask its operator. Nothing was sent to it. If the new key is \
             right, forget the old one with: ssh-keygen -f {} -R '{}'",
            described(key),
            line.place(),
            described(line.key()),
            fcp_common::private::shown(line.file()),
            self.host.spelled(),
        )
    }

    fn unknown(&self, key: &PublicKey) -> String {
        let files: Vec<_> = self.files.iter().map(|f| fcp_common::private::shown(f)).collect();
        format!(
            "its key is not known: it showed {}, and {} stands in none of {}. Nothing was sent to \
             it. If its operator confirms that key, write host_key: \"{}\" into the job, or log in \
             once with `{}`, or add the line: {} {}",
            described(key),
            self.host.spelled(),
            files.join(", "),
            key.fingerprint(HashAlg::Sha256),
            self.by_hand,
            self.host.spelled(),
            key_text(key),
        )
    }
}

impl Rule {
    fn new(rule: &HostKeyRule) -> Result<Rule, String> {
        match rule {
            HostKeyRule::Known => Ok(Rule::Known),
            HostKeyRule::AcceptNew => Ok(Rule::AcceptNew),
            HostKeyRule::Pinned(pin) => Rule::pinned(pin.trim()),
        }
    }

    fn pinned(pin: &str) -> Result<Rule, String> {
        let bad = || {
            format!(
                "host_key {:?} is neither SHA256:... nor the text of a public key",
                fcp_proto::escape_text(pin)
            )
        };
        if pin.starts_with("SHA256:") || pin.starts_with("SHA512:") {
            let pin = pin.trim_end_matches('=');
            return pin.parse().map(Rule::Fingerprint).map_err(|_| bad());
        }
        // A line as known_hosts has it begins with names, which a pin does not need.
        let from = |text: &str| PublicKey::from_openssh(text).ok();
        let key = from(pin).or_else(|| from(pin.split_once([' ', '\t'])?.1.trim()));
        key.map(|key| Rule::Key(Box::new(key))).ok_or_else(bad)
    }

    fn is_pin(&self) -> bool {
        matches!(self, Rule::Fingerprint(_) | Rule::Key(_))
    }
}

/// A key for people.
fn described(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}

/// What we can check, the kinds of keys apart, best first.
fn kinds() -> Vec<Vec<Algorithm>> {
    let curves = [EcdsaCurve::NistP256, EcdsaCurve::NistP384, EcdsaCurve::NistP521];
    vec![
        vec![Algorithm::Ed25519],
        curves.map(|curve| Algorithm::Ecdsa { curve }).to_vec(),
        algorithms(&Algorithm::Rsa { hash: None }),
    ]
}
