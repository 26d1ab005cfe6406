//! The command line exactly as typed. Nothing here looks at the environment or the disk.

mod job;
mod reach;
mod transfer;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub(crate) use job::SEE as SEE_JOB_HELP;
pub use job::{CheckArgs, JobArgs, JobCommand, JobOptions, RunArgs, StatusArgs, parse_year};
pub use reach::{CommandLine, Direct, Family, ReachOptions, Via};
pub use transfer::{FilterArg, FsyncArg, TransferOptions};

/// What was typed.
#[derive(Debug)]
pub struct Cli {
    /// The command and its operands.
    pub command: Command,
    /// Options of a transfer.
    pub options: TransferOptions,
}

/// A command and its operands; the last operand is the destination.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Local sources to a server.
    Push(Vec<OsString>),
    /// A server's sources to here.
    Pull(Vec<OsString>),
    /// Whatever direction the operands have.
    Copy(Vec<OsString>),
    /// What is done with jobs.
    Job(JobArgs),
    /// What fcp's config says.
    Config {
        /// Which of it.
        what: ConfigAspect,
        /// For which host; none means any that no section names.
        host: Option<String>,
    },
}

/// What of the config is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConfigAspect {
    /// Every setting, with what set it
    Show,
    /// Where the config files are
    Path,
}

const ABOUT: &str = "Copies files and directories, fast, and goes on where it was interrupted";
const EXAMPLES: &str = "\
Examples:
  fcp push src user@host:backup           a directory into ~/backup of the host, over ssh
  fcp pull 'host:log/*.gz' .              files that the host finds
  fcp a:photos b:                         from host to host, through here
  fcp push src fcp://127.0.0.1/backup     into /backup of an fcpd that runs here
  fcp -n --stats photos/ /mnt/photos/     what a local copy would do

A trailing slash on a source means its contents, as in rsync. Exit codes are rsync's:
0 done, 1 usage, 10 cannot connect, 12 connection lost, 20 interrupted, 23 some files failed.";

#[derive(Parser)]
#[command(name = "fcp", version, about = ABOUT, after_help = EXAMPLES, disable_help_subcommand = true)]
#[command(
    override_usage = "fcp [OPTIONS] SRC... DST\n       fcp push [OPTIONS] SRC... [USER@]HOST:DST\n       fcp pull [OPTIONS] [USER@]HOST:SRC... DST\n       fcp job run|list|check|status ...\n       fcp config [OPTIONS] show [HOST] | path"
)]
struct CopyCli {
    #[command(flatten)]
    operands: Operands,
}

#[derive(Parser)]
#[command(name = "fcp", version, about = ABOUT, after_help = EXAMPLES, disable_help_subcommand = true)]
struct CommandCli {
    #[command(subcommand)]
    command: CommandArgs,
}

#[derive(Subcommand)]
enum CommandArgs {
    /// Send local files to a server
    Push(Operands),
    /// Fetch files from a server
    Pull(Operands),
    /// Tell what the config files, the environment and these options amount to
    Config(ConfigArgs),
}

#[derive(clap::Args)]
struct ConfigArgs {
    /// What to tell
    #[arg(value_enum, hide_possible_values = true, value_name = "show|path")]
    what: ConfigAspect,
    /// For which host
    host: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Say more of what is done
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// As for a transfer
    #[arg(short = 'j', long, value_name = "NUM", value_parser = clap::value_parser!(u16).range(1..=128))]
    connections: Option<u16>,
    /// As for a transfer
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u16).range(1..=2))]
    protocol: Option<u16>,
    #[command(flatten)]
    reach: ReachOptions,
}

#[derive(clap::Args)]
struct Operands {
    /// Sources, then the destination
    #[arg(required = true, num_args = 1.., value_name = "SRC... DST")]
    paths: Vec<OsString>,
    #[command(flatten)]
    options: TransferOptions,
}

/// Reads the arguments, the program's name first.
///
/// # Errors
/// What clap says, help and version included.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    if let Some(at) = job::position(&args) {
        return job::parse(args, at).map(Cli::from);
    }
    let found = position_of_command(&args);
    let Some(at) = found else {
        let matches = CopyCli::command().try_get_matches_from(args)?;
        let Operands { paths, mut options } = CopyCli::from_arg_matches(&matches)?.operands;
        options.order_filters(&matches);
        return Ok(Cli { command: Command::Copy(paths), options });
    };
    // Options may stand before the command as well: `fcp -v push a b`.
    let command = args.remove(at);
    args.insert(1, command);
    let matches = CommandCli::command().try_get_matches_from(args)?;
    let typed = CommandCli::from_arg_matches(&matches)?.command;
    let (make, Operands { paths, mut options }): (fn(_) -> _, _) = match typed {
        CommandArgs::Push(operands) => (Command::Push, operands),
        CommandArgs::Pull(operands) => (Command::Pull, operands),
        CommandArgs::Config(args) => return Ok(args.into()),
    };
    if let Some((_, matches)) = matches.subcommand() {
        options.order_filters(matches);
    }
    Ok(Cli { command: make(paths), options })
}

impl From<JobArgs> for Cli {
    fn from(args: JobArgs) -> Cli {
        let JobOptions { json, verbose, quiet, .. } = args.options;
        let options = TransferOptions { json, verbose, quiet, ..TransferOptions::default() };
        Cli { command: Command::Job(args), options }
    }
}

impl From<ConfigArgs> for Cli {
    fn from(args: ConfigArgs) -> Cli {
        let ConfigArgs { what, host, json, verbose, connections, protocol, reach } = args;
        let options = TransferOptions {
            json,
            verbose,
            connections,
            protocol,
            reach,
            ..TransferOptions::default()
        };
        Cli { command: Command::Config { what, host }, options }
    }
}

/// Where the command stands: the first argument that is neither an option nor an option's value,
/// if it is the name of one. A file of that name is written `./push`.
fn position_of_command(args: &[OsString]) -> Option<usize> {
    let copy = CopyCli::command();
    let mut rest = args.iter().enumerate().skip(1);
    while let Some((at, arg)) = rest.next() {
        let arg = arg.to_string_lossy();
        if arg == "--" {
            return None;
        }
        if !arg.starts_with('-') || arg == "-" {
            return matches!(&*arg, "push" | "pull" | "config").then_some(at);
        }
        if takes_next_argument(&copy, &arg) {
            rest.next();
        }
    }
    None
}

fn takes_next_argument(command: &clap::Command, option: &str) -> bool {
    let takes_value = |a: &clap::Arg| a.get_action().takes_values();
    if let Some(long) = option.strip_prefix("--") {
        return command.get_arguments().any(|a| a.get_long() == Some(long) && takes_value(a));
    }
    // Of a cluster such as `-vj`, the first letter that takes a value ends it; it takes the next
    // argument only as the last letter.
    let mut letters = option.chars().skip(1).peekable();
    while let Some(letter) = letters.next() {
        if command.get_arguments().any(|a| a.get_short() == Some(letter) && takes_value(a)) {
            return letters.peek().is_none();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Cli {
        parse(line.split(' ').map(OsString::from)).unwrap_or_else(|e| panic!("{line}: {e}"))
    }

    fn paths(list: &[&str]) -> Vec<OsString> {
        list.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_command_may_stand_behind_options() {
        assert_eq!(parsed("fcp push a b").command, Command::Push(paths(&["a", "b"])));
        assert_eq!(
            parsed("fcp -v -j 4 pull a b c").command,
            Command::Pull(paths(&["a", "b", "c"]))
        );
        assert_eq!(parsed("fcp -vj 4 push a b").options.connections, Some(4));
        assert_eq!(parsed("fcp a push").command, Command::Copy(paths(&["a", "push"])));
        assert_eq!(parsed("fcp push a -v b -j 2").command, Command::Push(paths(&["a", "b"])));
        assert_eq!(parsed("fcp a b -n c").command, Command::Copy(paths(&["a", "b", "c"])));
        assert_eq!(parsed("fcp --exclude push a b").command, Command::Copy(paths(&["a", "b"])));
        assert_eq!(parsed("fcp -- push b").command, Command::Copy(paths(&["push", "b"])));
    }

    #[test]
    fn options_of_ssh_are_those_of_scp() {
        let line = "fcp -F f -i a -ib -J j -o K=v -oL=w -P 22 -46C -e ssh push x y";
        let reach = parsed(line).options.reach;
        assert_eq!(reach.ssh_config.as_deref(), Some("f".as_ref()));
        assert_eq!(reach.identity, ["a", "b"].map(std::path::PathBuf::from));
        assert_eq!(reach.ssh_option, ["K=v", "L=w"]);
        assert_eq!((reach.jump.as_deref(), reach.port), (Some("j"), Some(22)));
        assert_eq!(reach.family(), Some(Family::Ipv6), "the last one wins");
        assert!(reach.compress && parsed("fcp -z a b").options.reach.compress);
        assert_eq!(reach.rsh, CommandLine::parse("ssh".as_ref()).ok());
        let reach = parsed("fcp --via tunnel --direct never a b").options.reach;
        assert_eq!((reach.via, reach.direct), (Some(Via::Tunnel), Some(Direct::Never)));
        assert_eq!(parsed("fcp a b").options.reach.via, None);
    }

    #[test]
    fn the_config_may_be_asked_for() {
        let cli = parsed("fcp --via stdio config show h --json");
        let show = Command::Config { what: ConfigAspect::Show, host: Some("h".to_owned()) };
        assert_eq!(cli.command, show);
        assert!(cli.options.json && cli.options.reach.via == Some(Via::Stdio));
        let path = Command::Config { what: ConfigAspect::Path, host: None };
        assert_eq!(parsed("fcp config path").command, path);
    }

    #[test]
    fn filters_keep_the_order_in_which_they_were_typed() {
        let cli = parsed("fcp --exclude x --include y --exclude z a b");
        let order: Vec<_> =
            cli.options.filters.iter().map(|f| (f.include, f.pattern.clone())).collect();
        assert_eq!(order, [(false, "x".into()), (true, "y".into()), (false, "z".into())]);
    }

    #[test]
    fn the_definitions_are_consistent() {
        CopyCli::command().debug_assert();
        CommandCli::command().debug_assert();
    }
}
