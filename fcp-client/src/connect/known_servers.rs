//! Which key belongs to which `fcp://` server: pinned on first use, in a text file that its owner
//! may edit, like ssh's known_hosts.
//!
//! It stands beside the configuration, as trusting a server is a decision that people copy to
//! their other machines. A line is `host:port SHA256:<hex>`; a host may have several lines, of
//! which any is good. Whatever else a line says is an error, so that no pin is overlooked. The file
//! may be a symbolic link; only its owner, who is the user or root, may be able to write it.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use fcp_common::private::{self, PrivateError, Rule};
use fcp_proto::auth::Fingerprint;

/// Others may read it: it has no secrets. The size is more than anybody's pins.
const RULE: Rule = Rule::given(0o022, 1 << 20);
/// What a new file begins with.
const HEADER: &str =
    "# The keys of fcp:// servers, each pinned on first use: host:port SHA256:hex\n";
/// Longest name of DNS.
const MAX_HOST: usize = 253;

/// A server as the file names it: `host:port`, `[v6]:port`.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerName(String);

/// The file of pins.
#[derive(Clone, Debug)]
pub struct KnownServers {
    path: PathBuf,
}

/// What the file says of a server that showed a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has this key.
    Known,
    /// Nothing: whether it is the right one must be proved before its key is pinned.
    New,
}

/// Why a server is not spoken to.
#[derive(Debug, thiserror::Error)]
pub enum KnownServersError {
    /// It has another key.
    #[error("{0}")]
    Changed(Box<Changed>),
    /// The file cannot be understood.
    #[error(
        "line {line} of {path}, the file of known servers, is not understood: write \
         host:port SHA256:hex, or remove it"
    )]
    Malformed {
        /// The file.
        path: String,
        /// From 1.
        line: usize,
    },
    /// The file cannot be used.
    #[error("the file of known servers {0}")]
    File(#[from] PrivateError),
}

/// A server with another key than before.
#[derive(Debug, PartialEq, Eq)]
pub struct Changed {
    server: String,
    path: String,
    pinned: Vec<Pin>,
    shown: Fingerprint,
}

/// A key and the line that pins it, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pin {
    line: usize,
    fingerprint: Fingerprint,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "THE KEY OF {} HAS CHANGED", self.server)?;
        writeln!(f, "Somebody may pretend to be it, or it was set up anew. It was told nothing.")?;
        for pin in &self.pinned {
            writeln!(f, "  pinned: {} (line {} of {})", pin.fingerprint, pin.line, self.path)?;
        }
        writeln!(f, "  shown:  {}", self.shown)?;
        write!(f, "If its operator confirms the new key, remove ")?;
        let lines: Vec<String> = self.pinned.iter().map(|pin| format!("{}d", pin.line)).collect();
        let path = self.path.replace('\'', r"'\''");
        write!(f, "the old one: sed -i --follow-symlinks '{}' '{path}'", lines.join(";"))
    }
}

impl ServerName {
    /// The name of the server at `host`, a name or an address without brackets. `None` for what
    /// cannot be either.
    pub fn new(host: &str, port: u16) -> Option<ServerName> {
        if let Ok(v6) = host.parse::<Ipv6Addr>() {
            return Some(ServerName(format!("[{v6}]:{port}")));
        }
        // An address of one link, with the name of its interface.
        if let Some((v6, zone)) = host.split_once('%')
            && let Ok(v6) = v6.parse::<Ipv6Addr>()
            && is_name(zone)
        {
            return Some(ServerName(format!("[{v6}%{zone}]:{port}")));
        }
        // DNS does not tell cases apart, nor a name with the root's dot from one without.
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        is_name(&host).then(|| ServerName(format!("{host}:{port}")))
    }

    /// How errors call it, whatever it is.
    pub fn shown(host: &str, port: u16) -> String {
        let host = fcp_proto::escape_text(host);
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    fn parse(text: &str) -> Option<ServerName> {
        let (host, port) = text.rsplit_once(':')?;
        let host = match host.strip_prefix('[') {
            Some(v6) => v6.strip_suffix(']').filter(|v6| v6.contains(':'))?,
            None => Some(host).filter(|host| !host.contains(':'))?,
        };
        ServerName::new(host, port.parse().ok()?)
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_name(host: &str) -> bool {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    !host.is_empty() && host.len() <= MAX_HOST && host.chars().all(fits)
}

impl KnownServers {
    /// The user's file: `fcp/known_servers` in `$XDG_CONFIG_HOME`, which is `~/.config` by
    /// default. `None` where there is no home.
    pub fn of_user() -> Option<KnownServers> {
        let absolute = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        let config =
            absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
        Some(KnownServers::at(config.join("fcp/known_servers")))
    }

    /// The file at `path`, which need not exist.
    pub fn at(path: impl Into<PathBuf>) -> KnownServers {
        KnownServers { path: path.into() }
    }

    /// Whether `server` may be the one that showed `shown`.
    ///
    /// # Errors
    /// It has another key, or the file cannot be read or understood.
    pub fn check(
        &self,
        server: &ServerName,
        shown: Fingerprint,
    ) -> Result<Verdict, KnownServersError> {
        let text = private::read_text(&self.path, &RULE)?.unwrap_or_default();
        self.check_text(&text, server, shown)
    }

    /// Pins `shown` to `server`, which has proved itself.
    ///
    /// # Errors
    /// Somebody has pinned another key meanwhile, or the file cannot be written.
    pub fn pin(&self, server: &ServerName, shown: Fingerprint) -> Result<(), KnownServersError> {
        private::append(&self.path, &RULE, |text| {
            if self.check_text(text, server, shown)? == Verdict::Known {
                return Ok(String::new());
            }
            let before = match text {
                "" => HEADER,
                // An editor may have left the last line open.
                open if !open.ends_with('\n') => "\n",
                _ => "",
            };
            Ok(format!("{before}{server} {shown}\n"))
        })
    }

    fn check_text(
        &self,
        text: &str,
        server: &ServerName,
        shown: Fingerprint,
    ) -> Result<Verdict, KnownServersError> {
        let mut pinned = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let malformed = || KnownServersError::Malformed { path: self.shown_path(), line };
            let Some((name, fingerprint)) = parse_line(text).map_err(|_| malformed())? else {
                continue;
            };
            if name == *server {
                pinned.push(Pin { line, fingerprint });
            }
        }
        if pinned.is_empty() {
            return Ok(Verdict::New);
        }
        if pinned.iter().any(|pin| pin.fingerprint == shown) {
            return Ok(Verdict::Known);
        }
        let (server, path) = (server.to_string(), self.shown_path());
        Err(KnownServersError::Changed(Box::new(Changed { server, path, pinned, shown })))
    }

    fn shown_path(&self) -> String {
        fcp_proto::escape(self.path.as_os_str().as_encoded_bytes())
    }
}

/// A line that is neither empty, nor a comment, nor a pin.
struct BadLine;

fn parse_line(line: &str) -> Result<Option<(ServerName, Fingerprint)>, BadLine> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let mut words = line.split_ascii_whitespace();
    let name = words.next().and_then(ServerName::parse).ok_or(BadLine)?;
    let fingerprint = words.next().and_then(|word| word.parse().ok()).ok_or(BadLine)?;
    match words.next() {
        None => Ok(Some((name, fingerprint))),
        Some(comment) if comment.starts_with('#') => Ok(Some((name, fingerprint))),
        Some(_) => Err(BadLine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    const OLD: Fingerprint = Fingerprint([1; 32]);
    const NEW: Fingerprint = Fingerprint([2; 32]);

    fn nas() -> ServerName {
        ServerName::new("nas.example", 7523).unwrap()
    }

    fn file(text: &str) -> (tempfile::TempDir, KnownServers) {
        let dir = tempfile::tempdir().unwrap();
        let known = KnownServers::at(dir.path().join("known_servers"));
        std::fs::write(&known.path, text).unwrap();
        chmod(&known, 0o600);
        (dir, known)
    }

    fn chmod(known: &KnownServers, mode: u32) {
        std::fs::set_permissions(&known.path, PermissionsExt::from_mode(mode)).unwrap();
    }

    fn text(known: &KnownServers) -> String {
        std::fs::read_to_string(&known.path).unwrap()
    }

    #[test]
    fn a_server_is_pinned_once_in_a_file_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let known = KnownServers::at(dir.path().join("config/fcp/known_servers"));
        assert_eq!(known.check(&nas(), OLD).unwrap(), Verdict::New);
        assert!(!known.path.exists(), "looking makes nothing");
        known.pin(&nas(), OLD).unwrap();
        known.pin(&nas(), OLD).unwrap();
        assert_eq!(text(&known), format!("{HEADER}nas.example:7523 {OLD}\n"));
        assert_eq!(known.check(&nas(), OLD).unwrap(), Verdict::Known);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&known.path), 0o600);
        assert_eq!(mode(known.path.parent().unwrap()), 0o700);
    }

    #[test]
    fn a02_a_changed_key_names_the_line_that_pins_the_old_one() {
        let (_dir, known) = file(&format!("# mine\n\nother:1 {NEW}\nnas.example:7523 {OLD}\n"));
        let error = known.check(&nas(), NEW).unwrap_err().to_string();
        assert!(error.contains(&format!("pinned: {OLD} (line 4 of ")), "{error}");
        assert!(error.contains(&format!("shown:  {NEW}")), "{error}");
        assert!(error.contains("sed -i --follow-symlinks '4d'"), "{error}");
        known.pin(&nas(), NEW).unwrap_err();
        let remove = error.rsplit_once(": ").unwrap().1;
        assert!(std::process::Command::new("sh").args(["-c", remove]).status().unwrap().success());
        assert_eq!(known.check(&nas(), NEW).unwrap(), Verdict::New);
        assert_eq!(text(&known), format!("# mine\n\nother:1 {NEW}\n"));
    }

    #[test]
    fn a_server_between_two_keys_may_have_both() {
        let (_dir, known) = file(&format!("nas.example:7523 {OLD} # old\nnas.example:7523 {NEW}"));
        assert_eq!(known.check(&nas(), OLD).unwrap(), Verdict::Known);
        assert_eq!(known.check(&nas(), NEW).unwrap(), Verdict::Known);
        let error = known.check(&nas(), Fingerprint([3; 32])).unwrap_err().to_string();
        assert!(error.contains("'1d;2d'"), "{error}");
    }

    #[test]
    fn a_line_that_is_not_understood_is_an_error_wherever_it_stands() {
        for bad in [
            "nas.example:7523".to_owned(),
            format!("nas.example {OLD}"),
            format!("nas.example:x {OLD}"),
            format!("::1:7523 {OLD}"),
            format!("[::1:7523 {OLD}"),
            format!("[nas]:7523 {OLD}"),
            format!("a/b:7523 {OLD}"),
            format!("nas.example:7523 {OLD} more"),
            "nas.example:7523 SHA256:00".to_owned(),
        ] {
            let (_dir, known) = file(&format!("nas.example:7523 {OLD}\n{bad}\n"));
            let error = known.check(&nas(), OLD).unwrap_err().to_string();
            assert!(error.starts_with("line 2 of "), "{bad}: {error}");
            known.pin(&nas(), OLD).unwrap_err();
        }
    }

    #[test]
    fn names_are_the_same_however_they_are_written() {
        let name = |host| ServerName::new(host, 7523).unwrap().to_string();
        assert_eq!(name("NAS.Example."), "nas.example:7523");
        assert_eq!(name("0:0::1"), "[::1]:7523");
        assert_eq!(name("fe80::1%eth0"), "[fe80::1%eth0]:7523");
        for host in ["nas.example", "10.0.0.1", "::1", "fe80::1%eth0", "bücher"] {
            let name = ServerName::new(host, 7523).unwrap();
            assert!(ServerName::parse(&name.to_string()) == Some(name), "{host}");
        }
        for bad in ["", ".", "a b", "a\nb:1", "#a", "a:b", "[::1]", &"a".repeat(254)] {
            assert!(ServerName::new(bad, 1).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_file_that_others_may_write_counts_for_nothing() {
        let (_dir, known) = file("");
        for mode in [0o620, 0o602] {
            chmod(&known, mode);
            let error = known.check(&nas(), OLD).unwrap_err().to_string();
            assert!(error.contains("others can write it"), "{error}");
        }
        chmod(&known, 0o644);
        assert_eq!(known.check(&nas(), OLD).unwrap(), Verdict::New);
    }

    #[test]
    fn what_is_no_text_of_a_reasonable_size_is_refused() {
        let (dir, known) = file(&"#".repeat((1 << 20) + 1));
        assert!(known.check(&nas(), OLD).unwrap_err().to_string().contains("1 MiB"));
        std::fs::write(&known.path, [0xff, 0xfe]).unwrap();
        known.check(&nas(), OLD).unwrap_err();
        let directory = KnownServers::at(dir.path());
        assert!(
            directory.check(&nas(), OLD).unwrap_err().to_string().contains("is not a regular file")
        );
    }

    #[test]
    fn a_symbolic_link_is_followed_as_with_other_files_of_the_user() {
        let (dir, known) = file("# dotfiles\n");
        let link = KnownServers::at(dir.path().join("link"));
        symlink(&known.path, &link.path).unwrap();
        link.pin(&nas(), OLD).unwrap();
        assert!(link.path.is_symlink());
        assert_eq!(text(&known), format!("# dotfiles\nnas.example:7523 {OLD}\n"));
    }

    #[test]
    fn a_last_line_without_its_end_stays_a_line() {
        let (_dir, known) = file(&format!("other:1 {NEW}"));
        known.pin(&nas(), OLD).unwrap();
        assert_eq!(text(&known), format!("other:1 {NEW}\nnas.example:7523 {OLD}\n"));
    }

    #[test]
    fn many_at_once_write_one_line_each() {
        let (_dir, known) = file("");
        std::thread::scope(|scope| {
            for port in 0..32 {
                let known = &known;
                // Each server twice.
                let name = ServerName::new("nas", port / 2).unwrap();
                scope.spawn(move || known.pin(&name, OLD).unwrap());
            }
        });
        assert_eq!(text(&known).lines().count(), 1 + 16);
        (0..16).for_each(|port| {
            let name = ServerName::new("nas", port).unwrap();
            assert_eq!(known.check(&name, OLD).unwrap(), Verdict::Known);
        });
    }
}
