//! The fcp client: from what was typed to an exit code.
//!
//! [`cli`] is what was typed, [`config`] what holds besides, [`target`] what an operand means,
//! [`connect`] how a server is reached, [`location`] folders here and behind SFTP, [`job`] the copy
//! engine of `jobs.yaml`, [`secret`] what is never printed, [`command`] what each command does,
//! [`interrupt`] what a signal does meanwhile, [`ui`] every byte printed and every exit code.

pub mod cli;
pub mod command;
pub mod config;
pub mod connect;
pub mod error;
pub mod interrupt;
#[cfg(feature = "job")]
pub mod job;
pub mod location;
pub mod secret;
pub mod target;
pub mod ui;

use std::ffi::OsString;
use std::process::ExitCode;

use error::CliError;

/// Runs fcp with these arguments, the program's name first.
pub fn main_impl(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    // Its prompts must not meet the command line.
    if let Some(code) = location::sftp::dial::askpass::answer(&args) {
        return code;
    }
    // Asked once, before there are threads: the only way to read it is to set it.
    fcp_common::fs::umask();
    let cli = match cli::parse(args) {
        Ok(cli) => cli,
        Err(error) => return ui::usage(&error),
    };
    ui::init_logging(cli.options.verbose);
    match command::run(cli) {
        Ok(code) => code.into(),
        Err(error) => fail(&error),
    }
}

fn fail(error: &CliError) -> ExitCode {
    ui::error(&error.to_string());
    error.exit_code().into()
}
