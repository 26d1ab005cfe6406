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
mod request;
pub mod scope;
pub mod server;
mod sessions;
pub mod shutdown;
mod stdio;
pub mod transport;
mod version1;
mod waiting;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use config::Settings;
use shutdown::Shutdown;

/// What the program `fcpd` does, from its arguments to its exit code.
pub fn main_impl() -> ExitCode {
    // Read while there is one thread, as it can only be read by setting it.
    let umask = fcp_common::fs::umask();
    let args = match cli::parse(std::env::args_os()) {
        Ok(args) => args,
        Err(exit) => return exit,
    };
    let outcome = Settings::resolve(args, |name| std::env::var_os(name), umask).and_then(start);
    match outcome {
        Ok(code) => code,
        Err(text) => {
            // Whoever would read it may be gone, such as an ssh connection.
            let _ = writeln!(std::io::stderr(), "fcpd: {text}");
            ExitCode::FAILURE
        }
    }
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
    let listeners = server::bind_all(&settings)?;
    logging::init(&settings)?;
    run(settings, listeners)
}

fn run(settings: Settings, listeners: Vec<TcpListener>) -> Result<ExitCode, String> {
    let runtime = server::runtime().map_err(|e| format!("cannot start: {e}"))?;
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        // Before anybody is told that we listen: from then on a signal may come.
        shutdown.on_signals(settings.detached).map_err(|e| format!("cannot start: {e}"))?;
        let addresses: Vec<SocketAddr> =
            listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
        daemon::announce(&addresses, settings.detached)?;
        server::serve(listeners, settings.server, shutdown)
            .await
            .map_err(|e| format!("cannot serve: {e}"))?;
        Ok(ExitCode::SUCCESS)
    })
}
