//! Which transfers go over SFTP, and the two ends of one that does.

use std::sync::Arc;

use fcp_common::fs::umask;
use fcp_proto::packet::Summary;

use super::dial;
use super::host::Host;
use super::tell::Tell;
use super::{Copy, limits};
use crate::cli::Via;
use crate::command::transfer::{Job, one_server};
use crate::connect;
use crate::error::CliError;
use crate::interrupt;
use crate::target::{Server, Target};
use crate::ui;

/// Threads of the runtime: what they do is wait.
const THREADS: usize = 2;

/// The ends of a transfer; `None` is this machine.
#[derive(Debug)]
pub(in crate::command) struct Ends {
    from: Option<Server>,
    to: Option<Server>,
}

impl Ends {
    fn of(sources: &[Target], destination: &Target) -> Result<Ends, CliError> {
        let from = match sources.iter().all(Target::is_local) {
            true => None,
            false => Some(one_server(sources)?.0),
        };
        Ok(Ends { from, to: destination.remote().map(|(server, _)| server) })
    }

    fn servers(&self) -> impl Iterator<Item = &Server> {
        self.from.iter().chain(&self.to)
    }
}

impl Job<'_> {
    /// The ends of a transfer that is to go over SFTP, as options or config say; `None` for others.
    ///
    /// # Errors
    /// The other end has no SFTP.
    pub(in crate::command) fn ends_over_sftp(
        &self,
        sources: &[Target],
        destination: &Target,
    ) -> Result<Option<Ends>, CliError> {
        let ends = Ends::of(sources, destination)?;
        let mut any = false;
        for server in ends.servers().filter(|server| matches!(server, Server::Ssh { .. })) {
            any |= self.config_for(server)?.via.value == Via::Sftp;
        }
        if any { only_ssh(ends).map(Some) } else { Ok(None) }
    }

    /// The ends of a transfer whose host turned out to have no fcpd, where SFTP may do in its place.
    ///
    /// # Errors
    /// It may not: `without`, or what was asked for that SFTP cannot do.
    pub(in crate::command) fn ends_without_fcpd(
        &self,
        sources: &[Target],
        destination: &Target,
        without: CliError,
    ) -> Result<Ends, CliError> {
        let CliError::NoFcpd { server, reason } = without else { return Err(without) };
        let ends = Ends::of(sources, destination)?;
        for end in ends.servers() {
            let config = self.config_for(end)?;
            let refused = match limits::check(&config) {
                _ if config.via.value != Via::Auto => {
                    return Err(CliError::NoFcpd { server, reason });
                }
                Ok(_) => continue,
                Err(refused) => refused,
            };
            return Err(CliError::NoFcpd { server, reason: format!("{reason}; {refused}") });
        }
        let ends = only_ssh(ends)?;
        if !self.options.quiet {
            ui::error(&format!(
                "{server} has no fcpd: over SFTP instead; with fcpd there it is faster"
            ));
        }
        Ok(ends)
    }

    /// Copies over SFTP.
    ///
    /// # Errors
    /// A host cannot be logged in at or has no SFTP, the destination cannot be used, or nothing can
    /// go on.
    pub(in crate::command) fn over_sftp(
        &self,
        ends: Ends,
        sources: &[Target],
        destination: &Target,
    ) -> Result<Summary, CliError> {
        for server in ends.servers() {
            let notice = limits::check(&self.config_for(server)?).map_err(CliError::Usage)?;
            if let Some(notice) = notice.filter(|_| !self.options.quiet) {
                ui::error(&format!("{server}: {notice}"));
            }
        }
        // Asked before there are threads.
        umask();
        let work = || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(THREADS)
                .enable_all()
                .build()
                .map_err(|error| CliError::Internal(format!("cannot start: {error}")))?;
            let done = runtime.block_on(self.copy_over_sftp(&ends, sources, destination));
            // What still waits for a disk or a host is not waited for.
            runtime.shutdown_background();
            connect::end_all();
            done
        };
        interrupt::during(work, || self.abandon())?
    }

    async fn copy_over_sftp(
        &self,
        ends: &Ends,
        sources: &[Target],
        destination: &Target,
    ) -> Result<Summary, CliError> {
        // One after the other, as each may ask the user.
        let from = self.host(ends.from.as_ref()).await?;
        let to = match (&ends.from, &ends.to, &from) {
            (Some(one), Some(other), Host::There(_)) if one == other => from.clone(),
            _ => self.host(ends.to.as_ref()).await?,
        };
        let path = |target: &Target| match target {
            Target::Local(path) => path.clone(),
            remote => remote.remote().map(|(_, path)| path.to_vec()).unwrap_or_default(),
        };
        let copy = Copy {
            options: self.options,
            filters: self.rules.clone(),
            from,
            sources: sources.iter().map(path).collect(),
            to,
            destination: &path(destination),
        };
        copy.run(Tell::new(self.reporter.clone(), Arc::clone(&self.counters))).await
    }

    async fn host(&self, server: Option<&Server>) -> Result<Host, CliError> {
        let Some(server) = server else { return Ok(Host::Here) };
        let config = self.config_for(server)?;
        dial::login(server, &config, (self.options.verbose, &self.counters)).await
    }
}

/// Both ends are here or behind ssh.
fn only_ssh(ends: Ends) -> Result<Ends, CliError> {
    if let Some(server) = ends.servers().find(|server| matches!(server, Server::Fcp { .. })) {
        return Err(CliError::Unsupported(format!(
            "{server} is no SFTP server; copy to here first, and from here then"
        )));
    }
    Ok(ends)
}
