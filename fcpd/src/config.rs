//! What the command line and the environment come to.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use fcp_proto::packet::HELLO_VARIABLE;
use fcp_proto::version::Hello;

use crate::cli::{Args, LogLevel, PORT, StdioArgs, TlsArg};
use crate::tls;

/// Everything that the program needs to know to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// The user named the addresses, so that each of them must be had.
    pub listen_is_explicit: bool,
    /// Which of these addresses have TLS.
    pub tls: TlsPorts,
    /// The file with the server's key.
    pub server_key: Option<PathBuf>,
    /// How much is logged.
    pub log_level: LogLevel,
    /// Where the log can go, in the background only; the first one that is given.
    pub log_file: Option<PathBuf>,
    /// This process starts another one in the background and ends.
    pub launch_background: bool,
    /// This process is the one in the background.
    pub detached: bool,
    /// One session over stdin and stdout, instead of listening.
    pub stdio: Option<Stdio>,
    /// What the server itself needs.
    pub server: Config,
}

/// Which addresses have TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsPorts {
    /// None, and none that other hosts reach is listened on.
    None,
    /// Those that other hosts reach; loopback is for our own user.
    Remote,
    /// All.
    All,
}

/// How one session is served over stdin and stdout.
#[derive(Clone, Debug)]
pub struct Stdio {
    /// Take a further connection of another process's session, and nothing else.
    pub attach_only: bool,
    /// What the peer is restricted to.
    pub restrict: Option<PathBuf>,
    /// The peer may change nothing.
    pub read_only: bool,
    /// A direct data port may be offered.
    pub direct: bool,
    /// `SSH_CONNECTION`: the addresses and ports of both ends, as sshd has them.
    pub ssh_connection: Option<String>,
    /// What HELLO will say, as the client's command line tells ([`HELLO_VARIABLE`]).
    pub early: Option<Hello>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
}

/// What [`crate::server::serve`] needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Most connections in a session.
    pub connections: u16,
    /// What relative paths of requests are below.
    pub home: PathBuf,
    /// The directory of settings, where tokens are; without one there are none.
    pub settings_dir: Option<PathBuf>,
    /// Bits that new files do not get.
    pub umask: u16,
    /// Bounds on what peers can make the server keep or wait for.
    pub limits: Limits,
}

/// Bounds on what peers can make the server keep or wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of one identity without a complete first frame.
    pub waiting_per_uid: usize,
    /// Connections without a complete first frame.
    pub waiting: usize,
    /// How long the whole first frame may take; a deadline, not a silence.
    pub first_frame: Duration,
    /// How long the REQUEST may take.
    pub request: Duration,
    /// The same of who logged in over ssh: their client may be asking its user for the password of
    /// another host, which this one is to be copied to.
    pub request_of_login: Duration,
    /// Sessions of one identity.
    pub sessions_per_uid: usize,
    /// Sessions.
    pub sessions: usize,
    /// Directories that the sources of one pull may be in; each is held open.
    pub parents: usize,
    /// How long running sessions may go on once the server is told to end. As long as the peer may
    /// be silent: a session that still does something by then would do so for ever.
    pub drain: Duration,
    /// How long a direct data port is open; a client comes at once, or finds that it cannot.
    pub direct: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            waiting_per_uid: 64,
            waiting: 256,
            first_frame: Duration::from_secs(10),
            request: Duration::from_secs(10),
            request_of_login: Duration::from_secs(600),
            sessions_per_uid: 16,
            sessions: 256,
            parents: 1024,
            drain: Duration::from_secs(60),
            direct: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// These limits for a process that may open `files` files: most of them are for sessions.
    pub fn within(self, files: Option<u64>) -> Limits {
        let share = usize::try_from(files.unwrap_or(u64::MAX) / 4).unwrap_or(usize::MAX).max(1);
        let waiting = self.waiting.min(share);
        let (waiting_per_uid, parents) =
            (self.waiting_per_uid.min(waiting), self.parents.min(share));
        Limits { waiting, waiting_per_uid, parents, ..self }
    }
}

impl Settings {
    /// Resolves what was typed with the environment that `var` reads and the process's `umask`.
    ///
    /// # Errors
    /// One line that says what is refused, and what to do instead.
    pub fn resolve(
        args: Args,
        var: impl Fn(&str) -> Option<OsString>,
        umask: u32,
    ) -> Result<Settings, String> {
        let listen = if args.listen.is_empty() { default_addresses() } else { args.listen.clone() };
        let tls = tls_ports(args.tls, &listen)?;
        let stdio = args.stdio.stdio.then(|| stdio(&args.stdio, &var)).transpose()?;
        let background = args.background || args.detached;
        let home = absolute(var("HOME"));
        let default_level = if background { LogLevel::Info } else { LogLevel::Warn };
        Ok(Settings {
            listen_is_explicit: !args.listen.is_empty(),
            listen,
            tls,
            server_key: server_key(&var),
            log_level: args.log_level.unwrap_or(default_level),
            log_file: log_file(absolute(var("XDG_STATE_HOME")), home.clone()),
            stdio,
            launch_background: args.background && !args.detached,
            detached: args.detached,
            server: Config {
                connections: args.connections,
                settings_dir: settings_dir(&var),
                home: home.unwrap_or_else(|| PathBuf::from("/")),
                umask: (umask & 0o777) as u16,
                limits: Limits::default(),
            },
        })
    }
}

fn stdio(args: &StdioArgs, var: impl Fn(&str) -> Option<OsString>) -> Result<Stdio, String> {
    if let Some(root) = args.restrict.as_ref().filter(|root| !root.is_absolute()) {
        let root = fcp_proto::escape(root.as_os_str().as_encoded_bytes());
        return Err(format!("--restrict takes an absolute path, and '{root}' is none"));
    }
    Ok(Stdio {
        attach_only: args.attach,
        restrict: args.restrict.clone(),
        read_only: args.read_only,
        direct: !args.no_direct,
        ssh_connection: var("SSH_CONNECTION").and_then(|value| value.into_string().ok()),
        early: early_hello(var(HELLO_VARIABLE)).filter(|_| !args.attach),
        runtime_dir: absolute(var("XDG_RUNTIME_DIR")),
    })
}

/// What is no HELLO, or one that must prove something, counts for nothing: HELLO comes anyway.
fn early_hello(value: Option<OsString>) -> Option<Hello> {
    let hello = Hello::from_hex(value?.to_str()?)?;
    hello.auth.is_none().then_some(hello)
}

/// A variable counts when it is an absolute path, as the XDG specification has it.
fn absolute(value: Option<OsString>) -> Option<PathBuf> {
    value.map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Which of the addresses `listen` have TLS, when `arg` was typed.
fn tls_ports(arg: Option<TlsArg>, listen: &[SocketAddr]) -> Result<TlsPorts, String> {
    let ports = match arg {
        None => TlsPorts::None,
        Some(TlsArg::Remote) => TlsPorts::Remote,
        Some(TlsArg::All) => TlsPorts::All,
    };
    let far = listen.iter().find(|addr| tls::is_for(TlsPorts::Remote, addr));
    match (ports, far) {
        (TlsPorts::None, Some(far)) => Err(format!(
            "cannot listen on {far}, which other hosts reach, without TLS: add --tls, with a token \
             from 'fcpd token add' for each client, or listen on loopback addresses only and let \
             clients come over ssh"
        )),
        (TlsPorts::Remote, None) => Err("--tls is for addresses that other hosts reach: name one \
             with --listen, or say --tls=all to have TLS on loopback addresses, too"
            .to_owned()),
        _ => Ok(ports),
    }
}

/// Where the server's key is, from the environment that `var` reads.
pub fn server_key(var: &impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let below_home = || absolute(var("HOME")).map(|home| home.join(".local/state"));
    absolute(var("XDG_STATE_HOME")).or_else(below_home).map(|dir| dir.join("fcp/server.pem"))
}

/// Where fcp's settings are, from the environment that `var` reads.
pub fn settings_dir(var: &impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let below_home = || absolute(var("HOME")).map(|home| home.join(".config"));
    absolute(var("XDG_CONFIG_HOME")).or_else(below_home).map(|dir| dir.join("fcp"))
}

fn default_addresses() -> Vec<SocketAddr> {
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    loopback.map(|ip| SocketAddr::new(ip, PORT)).to_vec()
}

/// Never a directory that others can write to, and no look-up of the user's name.
fn log_file(state_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let dir = state_home.or_else(|| home.map(|home| home.join(".local/state")))?;
    Some(dir.join("fcp/fcpd.log"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn resolve(args: &[&str], env: &[(&str, &str)]) -> Result<Settings, String> {
        let args = Args::parse_from(["fcpd"].iter().chain(args));
        let var = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into());
        Settings::resolve(args, var, 0o022)
    }

    #[test]
    fn the_log_is_in_the_state_directory() {
        let log = |env| resolve(&["-d"], env).unwrap().log_file;
        assert_eq!(
            log(&[("HOME", "/home/a"), ("XDG_STATE_HOME", "/state")]),
            Some("/state/fcp/fcpd.log".into())
        );
        assert_eq!(log(&[("HOME", "/home/a")]), Some("/home/a/.local/state/fcp/fcpd.log".into()));
        assert_eq!(log(&[("XDG_STATE_HOME", "relative")]), None);
    }

    #[test]
    fn settings_are_where_xdg_has_them() {
        let dir = |env| resolve(&[], env).unwrap().server.settings_dir;
        assert_eq!(dir(&[("HOME", "/home/a")]), Some("/home/a/.config/fcp".into()));
        assert_eq!(dir(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/c")]), Some("/c/fcp".into()));
        assert_eq!(dir(&[("XDG_CONFIG_HOME", "relative")]), None);
    }

    #[test]
    fn without_a_home_paths_are_below_the_root() {
        assert_eq!(resolve(&[], &[]).unwrap().server.home, PathBuf::from("/"));
    }

    #[test]
    fn a01_only_loopback_is_listened_on_without_tls() {
        for far in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[::ffff:192.0.2.1]:1"] {
            let refused = resolve(&["--listen", far], &[]).unwrap_err();
            assert!(refused.contains(far.trim_end_matches(":1")), "{refused}");
            assert!(refused.contains("--tls") && refused.contains("ssh"), "{refused}");
            assert!(!refused.contains('\n'));
            assert_eq!(resolve(&["--listen", far, "--tls"], &[]).unwrap().tls, TlsPorts::Remote);
        }
        assert!(resolve(&["--listen", "127.8.9.1:1", "--listen", "[::1]:1"], &[]).is_ok());
    }

    #[test]
    fn tls_is_for_what_other_hosts_reach_unless_all_is_said() {
        let resolved = |args: &[&str]| {
            let settings = resolve(args, &[])?;
            let has = |addr| tls::is_for(settings.tls, addr);
            Ok::<_, String>(settings.listen.iter().map(has).collect::<Vec<_>>())
        };
        let mixed = ["--listen", "127.0.0.1:1", "--listen", "0.0.0.0:2", "--listen", "[::1]:3"];
        assert_eq!(resolved(&[&mixed[..], &["--tls"]].concat()), Ok(vec![false, true, false]));
        assert_eq!(resolved(&[&mixed[..], &["--tls=all"]].concat()), Ok(vec![true, true, true]));
        assert_eq!(resolved(&["--tls=all"]), Ok(vec![true, true]));
        assert!(resolved(&["--tls"]).unwrap_err().contains("--listen"));
    }

    #[test]
    fn few_files_mean_few_connections_that_wait() {
        let limits = |files| Limits::default().within(files);
        assert_eq!(limits(Some(1 << 20)), Limits::default());
        assert_eq!(limits(None), Limits::default());
        let few = limits(Some(40));
        assert_eq!((few.waiting, few.waiting_per_uid, few.parents), (10, 10, 10));
        assert_eq!(limits(Some(0)).waiting, 1);
    }

    #[test]
    fn the_background_says_more() {
        assert_eq!(resolve(&["-d"], &[]).unwrap().log_level, LogLevel::Info);
        assert_eq!(resolve(&[], &[]).unwrap().log_level, LogLevel::Warn);
        assert_eq!(resolve(&["--loglevel", "trace"], &[]).unwrap().log_level, LogLevel::Trace);
    }
}
