//! `fcp config`: what the config files, the environment and the options amount to.

use std::ffi::OsString;

use crate::cli::{ConfigAspect, TransferOptions};
use crate::config::{self, Files};
use crate::error::CliError;
use crate::ui;
use crate::ui::exit::ExitStatus;

/// Tells what was asked for.
pub(super) fn run(
    what: ConfigAspect,
    host: Option<&str>,
    options: &TransferOptions,
) -> Result<ExitStatus, CliError> {
    let env = |name: &str| std::env::var_os(name);
    match what {
        ConfigAspect::Show => show(host.unwrap_or_default(), options, &env)?,
        ConfigAspect::Path => paths(options, &env),
    }
    Ok(ExitStatus::Success)
}

fn show(
    host: &str,
    options: &TransferOptions,
    env: &impl Fn(&str) -> Option<OsString>,
) -> Result<(), CliError> {
    // A user may stand there as in an operand.
    let host = host.rsplit('@').next().unwrap_or_default();
    let files = Files::load(options.reach.config.as_deref(), env)?;
    let resolved = config::resolve(options, host, env, &files)?;
    if options.json {
        ui::line(&config::as_json(&resolved));
    } else {
        config::as_text(&resolved).iter().for_each(|line| ui::line(line));
    }
    Ok(())
}

/// One file a line, there or not, the one that goes before the other first.
fn paths(options: &TransferOptions, env: &impl Fn(&str) -> Option<OsString>) {
    let paths = config::candidates(options.reach.config.as_deref(), env);
    let paths: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
    if options.json {
        ui::line(&serde_json::json!({ "paths": paths }).to_string());
    } else {
        paths.iter().for_each(|path| ui::line(&fcp_proto::escape_text(path)));
    }
}
