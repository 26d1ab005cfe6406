//! The fcp server: accepts connections, finds out whose they are, and runs sessions.
//!
//! It decides who is served ([`access`]) and how many ([`config::Limits`]); what a session does is
//! the engine's business. Start from [`server::serve`], which takes bound listeners, a
//! [`config::Config`] and a [`shutdown::Shutdown`], so that tests run it in their own process.

pub mod access;
pub mod cli;
pub mod config;
mod daemon;
mod greet;
mod handshake;
pub mod identity;
mod logging;
mod login;
mod proof;
mod request;
pub mod scope;
pub mod server;
mod sessions;
pub mod shutdown;
mod stdio;
pub mod tls;
pub mod token;
pub mod transport;
mod version1;
mod waiting;

use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use cli::Command;
use config::Settings;
use fcp_proto::auth::Fingerprint;
use shutdown::Shutdown;
use tls::Listener;

/// What the program `fcpd` does, from its arguments to its exit code.
pub fn main_impl() -> ExitCode {
    // Read while there is one thread, as it can only be read by setting it.
    let umask = fcp_common::fs::umask();
    let args = match cli::parse(std::env::args_os()) {
        Ok(args) => args,
        Err(exit) => return exit,
    };
    let var = |name: &str| std::env::var_os(name);
    let outcome = match args.command {
        Some(command) => carry_out(command, &var),
        None => Settings::resolve(args, var, umask).and_then(start),
    };
    match outcome {
        Ok(code) => code,
        Err(text) => {
            // Whoever would read it may be gone, such as an ssh connection.
            let _ = writeln!(std::io::stderr(), "fcpd: {text}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(
    command: Command,
    var: &impl Fn(&str) -> Option<OsString>,
) -> Result<ExitCode, String> {
    let mut stdout = std::io::stdout();
    match command {
        Command::Token(command) => {
            let dir = config::settings_dir(var);
            let dir = dir.ok_or("there is no directory for settings: set HOME")?;
            token::command::run(command, &dir, &mut stdout, &mut std::io::stderr())?;
        }
        Command::Fingerprint => {
            let identity = tls::load(config::server_key(var).as_deref())?;
            writeln!(stdout, "{}", identity.fingerprint())
                .map_err(|e| format!("cannot print the fingerprint: {e}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn start(mut settings: Settings) -> Result<ExitCode, String> {
    if settings.launch_background {
        return daemon::launch();
    }
    if settings.detached {
        daemon::leave_terminal();
    }
    let files = server::raise_file_limit();
    settings.server.limits = settings.server.limits.within(files);
    if let Some(stdio) = settings.stdio.take() {
        logging::init(&settings)?;
        return stdio::run(settings.server, stdio);
    }
    let bound = server::bind_all(&settings)?;
    let (listeners, key) = tls::listeners(&settings, bound)?;
    logging::init(&settings)?;
    let has_plain = listeners.iter().any(|listener| listener.tls.is_none());
    let no_tunnels = if has_plain { local_token(&settings)? } else { None };
    run(settings, listeners, Notes { key, no_tunnels })
}

/// Makes the token for tunnels; the answer is why there is none, when the server can do without.
fn local_token(settings: &Settings) -> Result<Option<String>, String> {
    let Some(dir) = &settings.server.settings_dir else {
        return Ok(Some("HOME is not set".to_owned()));
    };
    match token::local::ensure(dir) {
        Ok(()) => Ok(None),
        Err(error) if error.is_harmless() => Ok(Some(error.to_string())),
        Err(error) => Err(error.to_string()),
    }
}

/// What is said once the server listens.
struct Notes {
    key: Option<Fingerprint>,
    no_tunnels: Option<String>,
}

fn run(settings: Settings, listeners: Vec<Listener>, notes: Notes) -> Result<ExitCode, String> {
    let runtime = server::runtime().map_err(|e| format!("cannot start: {e}"))?;
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        // Before anybody is told that we listen: from then on a signal may come.
        shutdown.on_signals(settings.detached).map_err(|e| format!("cannot start: {e}"))?;
        let addresses: Vec<SocketAddr> =
            listeners.iter().filter_map(|l| l.socket.local_addr().ok()).collect();
        daemon::announce(&addresses, notes.key, settings.detached)?;
        if let Some(why) = notes.no_tunnels {
            tracing::warn!("tunnels inside ssh are refused, as there is no token for them: {why}");
        }
        server::serve(listeners, settings.server, shutdown)
            .await
            .map_err(|e| format!("cannot serve: {e}"))?;
        Ok(ExitCode::SUCCESS)
    })
}
