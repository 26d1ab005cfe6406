//! Options about the way to another host.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args, ValueEnum};

/// How the other end is to be reached, with only what was typed.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Reaching the other end")]
pub struct ReachOptions {
    /// Way to a host behind ssh [default: auto]
    #[arg(long, value_enum, value_name = "WAY")]
    pub via: Option<Via>,
    /// Whether content may go beside ssh, over TLS connections of its own [default: auto]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub direct: Option<Direct>,
    /// What starts fcpd on the host, as a command of its shell [default: fcpd]
    #[arg(long, value_name = "COMMAND")]
    pub remote_fcpd: Option<String>,
    /// File with the token for an fcp:// server
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// ssh's config file
    #[arg(short = 'F', value_name = "FILE")]
    pub ssh_config: Option<PathBuf>,
    /// Private key for ssh; may be given several times
    #[arg(short = 'i', long = "identity", value_name = "FILE")]
    pub identity: Vec<PathBuf>,
    /// Host to jump over with ssh, or several with commas between
    #[arg(short = 'J', value_name = "HOST")]
    pub jump: Option<String>,
    /// Option for ssh, as in its config file; may be given several times
    #[arg(short = 'o', value_name = "OPTION")]
    pub ssh_option: Vec<String>,
    /// Port of sshd; one in ssh://HOST:PORT goes before it
    #[arg(short = 'P', value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Use IPv4 only
    #[arg(short = '4', long, overrides_with = "ipv6")]
    pub ipv4: bool,
    /// Use IPv6 only
    #[arg(short = '6', long, overrides_with = "ipv4")]
    pub ipv6: bool,
    /// Let ssh compress what it carries
    #[arg(short = 'z', visible_short_alias = 'C', long, action = ArgAction::SetTrue)]
    pub compress: bool,
    /// Program in ssh's place, with its arguments
    #[arg(short = 'e', long, value_name = "COMMAND", value_parser = OsStringValueParser::new().try_map(|text| CommandLine::parse(&text)))]
    pub rsh: Option<CommandLine>,
    /// fcp's config file instead of those of the user and the system
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ReachOptions {
    /// The only address family to use.
    pub fn family(&self) -> Option<Family> {
        match (self.ipv4, self.ipv6) {
            (true, _) => Some(Family::Ipv4),
            (_, true) => Some(Family::Ipv6),
            _ => None,
        }
    }
}

/// `-4` or `-6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `-4`.
    Ipv4,
    /// `-6`.
    Ipv6,
}

/// `--via`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// What the host offers, best first
    #[default]
    Auto,
    /// An fcpd that ssh starts
    Stdio,
    /// An fcpd that runs there already, through ssh
    Tunnel,
    /// An fcpd that ssh starts, with content beside ssh or not at all
    Direct,
    /// ssh's own SFTP server
    Sftp,
}

/// `--direct`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Direct {
    /// Where the network lets it through
    #[default]
    Auto,
    /// Everything through ssh
    Never,
}

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// What is started.
    pub program: OsString,
    /// What it is given first.
    pub arguments: Vec<OsString>,
}

impl CommandLine {
    /// Splits a line as rsync splits its `--rsh`: at white space, but for what stands in quotes of
    /// either kind; a doubled quote within quotes is one quote. No shell, no backslashes.
    ///
    /// # Errors
    /// A line without a word, or with a quote that is not closed.
    pub fn parse(line: &OsStr) -> Result<CommandLine, &'static str> {
        let mut words = Vec::new();
        let mut rest = line.as_bytes();
        while let Some(start) = rest.iter().position(|b| !b.is_ascii_whitespace()) {
            let (word, after) = word(&rest[start..]).ok_or("a quote is not closed")?;
            words.push(OsString::from_vec(word));
            rest = after;
        }
        let mut words = words.into_iter();
        let program = words.next().filter(|program| !program.is_empty());
        let program = program.ok_or("a command is needed, such as ssh")?;
        Ok(CommandLine { program, arguments: words.collect() })
    }
}

/// The first word of a text that begins with one, and what follows; `None` for an open quote.
fn word(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (mut out, mut quote) = (Vec::new(), None);
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match (quote, *byte) {
            (None, b'"' | b'\'') => quote = Some(*byte),
            (None, space) if space.is_ascii_whitespace() => return Some((out, rest)),
            (Some(open), close) if close == open => match tail {
                [again, after @ ..] if *again == open => {
                    out.push(open);
                    rest = after;
                }
                _ => quote = None,
            },
            (_, byte) => out.push(byte),
        }
    }
    quote.is_none().then_some((out, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Result<Vec<String>, &'static str> {
        let CommandLine { program, arguments } = CommandLine::parse(OsStr::new(line))?;
        let text = |word: OsString| word.into_string().expect("UTF-8");
        Ok(std::iter::once(program).chain(arguments).map(text).collect())
    }

    #[test]
    fn commands_are_split_as_rsync_splits_them() {
        for (line, words) in [
            ("ssh", &["ssh"][..]),
            ("  ssh  -p\t22 ", &["ssh", "-p", "22"]),
            ("ssh -o 'ProxyCommand nc %h'", &["ssh", "-o", "ProxyCommand nc %h"]),
            ("a \"b 'c' d\"e", &["a", "b 'c' de"]),
            ("a \"say \"\"x\"\"\"", &["a", "say \"x\""]),
            ("a '' b\\ c", &["a", "", "b\\", "c"]),
            ("a $(b) ; c", &["a", "$(b)", ";", "c"]),
        ] {
            assert_eq!(split(line).expect(line), words, "{line}");
        }
        assert!(split("ssh 'x").is_err());
        assert!(split(" ").is_err());
        assert!(split("'' x").is_err());
    }
}
