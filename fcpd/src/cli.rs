//! The command line as typed.

#![allow(rustdoc::broken_intra_doc_links, reason = "doc comments are help texts: [::1] is no link")]

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use fcp_proto::limits::MAX_CONNECTIONS;

use crate::token::command::TokenCommand;

/// The port that clients try when none is named.
pub const PORT: u16 = 7523;

/// The fcp server. It serves the user that runs it and, with --tls, holders of tokens.
#[derive(Clone, Debug, Parser)]
#[command(name = "fcpd", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Something other than to serve.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Go to the background; prints the process id once it is listening
    #[arg(short = 'd', long = "daemon")]
    pub background: bool,

    /// Most connections in a session
    #[arg(short = 'c', long = "connections", value_name = "NUM", default_value_t = MAX_CONNECTIONS)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_CONNECTIONS)))]
    pub connections: u16,

    /// What is logged [default: info in the background, warn in the foreground]
    #[arg(long = "loglevel", value_name = "LEVEL", ignore_case = true)]
    pub log_level: Option<LogLevel>,

    /// Address to listen on, may be given several times [default: 127.0.0.1:7523 and [::1]:7523]
    #[arg(long = "listen", value_name = "ADDR", value_parser = address)]
    pub listen: Vec<SocketAddr>,

    /// Let holders of tokens connect with TLS on addresses that other hosts reach; with =all on
    /// loopback addresses, too, which are for your own user only otherwise
    #[arg(long, value_name = "PORTS", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "remote")]
    pub tls: Option<TlsArg>,

    /// Serving one connection over stdin and stdout.
    #[command(flatten)]
    pub stdio: StdioArgs,

    /// This process is the one in the background
    #[arg(long = "detached", hide = true)]
    pub detached: bool,
}

/// What fcpd can do besides serving.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Tokens that clients come with over TLS
    #[command(subcommand)]
    Token(TokenCommand),
    /// Show by what clients know this server's key
    Fingerprint,
}

/// Which ports have TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TlsArg {
    /// Those that other hosts reach.
    Remote,
    /// All.
    All,
}

/// Serving one connection over stdin and stdout.
#[derive(Clone, Debug, clap::Args)]
pub struct StdioArgs {
    /// Serve one session over stdin and stdout, as fcp starts it over ssh, and listen nowhere
    #[arg(long, conflicts_with_all = ["background", "listen", "tls", "detached"])]
    pub stdio: bool,

    /// Take only a further connection of a session that runs on this host
    #[arg(long, requires = "stdio")]
    pub attach: bool,

    /// Let the peer touch nothing but what is below PATH, an absolute directory
    #[arg(long, value_name = "PATH", requires = "stdio", conflicts_with = "attach")]
    pub restrict: Option<PathBuf>,

    /// Let the peer change nothing
    #[arg(long, requires = "stdio", conflicts_with = "attach")]
    pub read_only: bool,

    /// Never offer a direct data port beside the ssh connection
    #[arg(long, requires = "stdio", conflicts_with = "attach")]
    pub no_direct: bool,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What the operator must look at.
    Error,
    /// Refusals and what went wrong.
    #[value(alias = "warning")]
    Warn,
    /// Sessions, too.
    Info,
    /// Connections, too.
    Debug,
    /// Everything.
    Trace,
}

/// Reads the command line; help, version and mistakes are printed here.
///
/// # Errors
/// The exit code to end with.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Args, ExitCode> {
    Args::try_parse_from(args).map_err(|error| {
        if !error.use_stderr() {
            // Help or the version; whoever closed the pipe has seen enough.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        eprintln!("fcpd: {}; try 'fcpd --help'", one_line(&error));
        ExitCode::FAILURE
    })
}

/// The first paragraph of clap's message, without its "error: ".
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let first: Vec<&str> =
        text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let first = first.join(" ");
    first.strip_prefix("error: ").unwrap_or(&first).to_owned()
}

/// `127.0.0.1:7523`, `[::1]:7523`, or an address alone with the usual port.
fn address(text: &str) -> Result<SocketAddr, String> {
    let alone = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
    text.parse()
        .or_else(|_| alone())
        .map_err(|_| "write an address and a port, such as 127.0.0.1:7523 or [::1]:7523".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_from(args: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(["fcpd"].iter().chain(args))
    }

    #[test]
    fn levels_have_the_names_that_people_type() {
        for (typed, level) in [("warn", LogLevel::Warn), ("warning", LogLevel::Warn)] {
            assert_eq!(parse_from(&["--loglevel", typed]).unwrap().log_level, Some(level));
        }
        assert!(parse_from(&["--loglevel", "loud"]).is_err());
    }

    #[test]
    fn connections_are_within_what_the_protocol_allows() {
        assert_eq!(parse_from(&[]).unwrap().connections, 128);
        assert_eq!(parse_from(&["-c", "3"]).unwrap().connections, 3);
        for bad in ["0", "129", "-1", "many"] {
            assert!(parse_from(&["-c", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_may_leave_the_port_out() {
        assert_eq!(address("::1"), Ok("[::1]:7523".parse().unwrap()));
        assert_eq!(address("127.0.0.1:80"), Ok("127.0.0.1:80".parse().unwrap()));
        assert!(address("localhost").is_err());
    }

    #[test]
    fn a_command_takes_none_of_the_servers_options() {
        let typed = parse_from(&["token", "add", "a", "--root", "/srv", "--expires", "30d"]);
        assert!(matches!(typed.unwrap().command, Some(Command::Token(TokenCommand::Add { .. }))));
        for bad in [
            &["token", "add", "a"][..],
            &["token", "add", "-a", "--root", "/"],
            &["token", "add", "a b", "--root", "/"],
            &["token", "add", "a", "--root", "/", "--expires", "soon"],
            &["token", "add", "a", "--root", "/", "--expires", "0d"],
            &["-d", "token", "list"],
        ] {
            assert!(parse_from(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_mistake_is_one_line() {
        for args in [&["--nonsense"][..], &["-c", "0"], &["--listen", "x"], &["a\nb"]] {
            let line = one_line(&parse_from(args).unwrap_err());
            assert!(!line.contains('\n') && !line.starts_with("error"), "{line}");
        }
    }
}
