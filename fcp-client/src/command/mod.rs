//! What each command does: from operands and options to a session and its exit code.

mod config;
#[cfg(feature = "job")]
mod job;
mod relay;
mod sftp;
mod transfer;
mod version1;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use crate::cli::{Cli, Command};
use crate::error::CliError;
use crate::target::{Target, TargetError};
use crate::ui::exit::ExitStatus;

/// Runs what was typed.
pub fn run(cli: Cli) -> Result<ExitStatus, CliError> {
    let (operands, must_be) = match cli.command {
        Command::Push(operands) => (operands, Some(Direction::Push)),
        Command::Pull(operands) => (operands, Some(Direction::Pull)),
        Command::Copy(operands) => (operands, None),
        #[cfg(feature = "job")]
        Command::Job(args) => return job::run(&args),
        #[cfg(not(feature = "job"))]
        Command::Job(_) => {
            return Err(CliError::Unsupported("this fcp was built without jobs".to_owned()));
        }
        Command::Config { what, host } => {
            return config::run(what, host.as_deref(), &cli.options);
        }
    };
    let (sources, destination) = understand(&operands)?;
    let direction = Direction::of(&sources, &destination)?;
    direction.check(must_be)?;
    transfer::run(direction, &sources, &destination, &cli.options)
}

/// Which way content goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To a server.
    Push,
    /// From a server.
    Pull,
    /// Within this machine's file systems.
    Local,
    /// From a server to a server, through here.
    Relay,
}

impl Direction {
    fn of(sources: &[Target], destination: &Target) -> Result<Direction, CliError> {
        let local = sources.iter().filter(|s| s.is_local()).count();
        match (local == sources.len(), destination.is_local()) {
            (true, true) => Ok(Direction::Local),
            (true, false) => Ok(Direction::Push),
            (false, true) if local == 0 => Ok(Direction::Pull),
            (false, false) if local == 0 => Ok(Direction::Relay),
            (false, _) => {
                Err(CliError::Usage("sources must be all local or all on one server".to_owned()))
            }
        }
    }

    fn check(self, must_be: Option<Direction>) -> Result<(), CliError> {
        let usage = |text: &str| Err(CliError::Usage(text.to_owned()));
        match (must_be, self) {
            // `fcp push a b` with a local destination: an embedded session does the same.
            (None, _) | (Some(_), Direction::Local) => Ok(()),
            (Some(wanted), is) if wanted == is => Ok(()),
            (Some(Direction::Push), _) => {
                usage("push sends local files; type: fcp push SRC... HOST:DST")
            }
            _ => usage("pull fetches from a server; type: fcp pull HOST:SRC... DST"),
        }
    }
}

fn understand(operands: &[OsString]) -> Result<(Vec<Target>, Target), CliError> {
    let mut targets =
        operands.iter().map(|o| understand_one(o.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let destination = targets.pop();
    match destination {
        Some(destination) if !targets.is_empty() => Ok((targets, destination)),
        _ => Err(CliError::Usage(
            "a source and a destination are needed; type: fcp [OPTIONS] SRC... DST (see fcp --help)"
                .to_owned(),
        )),
    }
}

fn understand_one(operand: &[u8]) -> Result<Target, CliError> {
    let target = Target::parse(operand).map_err(|error| match error {
        TargetError::Module(_) | TargetError::Scheme(..) => {
            CliError::Unsupported(error.to_string())
        }
        _ => CliError::Usage(error.to_string()),
    })?;
    if let (Target::Local(path), [letter, b':', ..]) = (&target, operand)
        && letter.is_ascii_alphabetic()
    {
        let (shown, host) = (fcp_proto::escape(path), char::from(*letter));
        crate::ui::error(&format!(
            "{shown} is taken for a local path, with a drive's letter; a host of that name is \
             ssh://{host}/..."
        ));
    }
    Ok(target)
}
