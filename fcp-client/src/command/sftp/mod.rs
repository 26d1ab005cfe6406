//! push, pull and copies over SFTP, for hosts that have sshd and no fcpd.
//!
//! [`sources`] and `destination` say what operands name, [`tree`] walks both sides, `plan` decides
//! about each entry, [`work`] copies, `ramp` asks for more connections, `finish` ends; `journal` is what a cut run leaves for the
//! next one. What a user sees is what our own sessions show.

mod again;
mod destination;
mod dial;
mod ends;
mod finish;
mod host;
mod journal;
mod limits;
mod plan;
mod ramp;
mod sources;
mod tell;
#[cfg(test)]
mod tests;
mod tree;
mod work;

use std::sync::{Arc, Mutex};

use fcp_common::fs::umask;
use fcp_common::select::RuleSet;
use fcp_common::select::operand::has_magic;
use fcp_proto::packet::Summary;
use tokio::sync::{Semaphore, mpsc};

use self::destination::Wanted;
use self::host::Host;
use self::journal::Journal;
use self::plan::Rules;
use self::sources::Root;
use self::tell::Tell;
use self::tree::Shared;
use crate::cli::{FsyncArg, TransferOptions};
use crate::error::CliError;
use crate::location::{Capabilities, Location, LocationError};

/// Files that are known and not begun.
const WAITING: usize = 1024;

/// What is to be copied, and how.
struct Copy<'a> {
    options: &'a TransferOptions,
    filters: RuleSet,
    from: Host,
    sources: Vec<Vec<u8>>,
    to: Host,
    destination: &'a [u8],
}

impl Copy<'_> {
    /// Copies; what fails of single files is told, and counted in the summary.
    ///
    /// # Errors
    /// The destination cannot be used, or nothing can go on.
    async fn run(self, tell: Tell) -> Result<Summary, CliError> {
        let roots = sources::find(&self.from, &self.sources, &tell).await;
        let roots = roots.map_err(CliError::Place)?;
        if roots.is_empty() {
            return Ok(tell.summary());
        }
        let run = Arc::new(self.prepare(&roots, tell).await?);
        let (works, todo) = mpsc::channel(WAITING);
        let places = Arc::new(Semaphore::new(work::FILES));
        let copying = async {
            tokio::join!(tree::walk(&run, roots, works), work::work(&run, todo, &places));
        };
        let ramping = async {
            ramp::ramp(&run.tell.counters, [&self.from, &self.to], &places).await;
            std::future::pending().await
        };
        tokio::select! {
            () = copying => {}
            () = ramping => {}
        }
        run.tell.counters.walked.store(1, std::sync::atomic::Ordering::Relaxed);
        if !run.tell.is_over() {
            finish::finish(&run).await;
        }
        let (summary, fatal) = (run.tell.summary(), run.tell.fatal());
        if let Some(error) = fatal {
            return Err(CliError::Place(error));
        }
        // Whatever holds it still is not going to write.
        if let Some(run) = Arc::into_inner(run) {
            run.journal.finish();
        }
        Ok(summary)
    }

    async fn prepare(&self, roots: &[Root], tell: Tell) -> Result<Shared, CliError> {
        let o = self.options;
        // A pattern stands for many things, even where it finds one.
        let one = self.sources.len() == 1
            && (matches!(self.from, Host::Here) || !self.sources.iter().any(|s| has_magic(s)));
        let single = one && roots.iter().all(Root::is_single);
        let wanted = Wanted { single, mkpath: o.mkpath, dry_run: o.dry_run };
        let to = destination::resolve(&self.to, self.destination, wanted).await;
        let to = to.map_err(|why| why.of(self.destination))?;
        let capabilities = |at: Option<&Location>| at.map(Location::capabilities);
        let source = capabilities(roots.first().map(|root| &root.at)).unwrap_or(COARSE);
        let rules = self.rules().between(source, capabilities(to.at.as_ref()).unwrap_or(COARSE));
        let journal = match &to.at {
            Some(at) if !o.dry_run => {
                Journal::open(journal::state_dir().as_deref(), &remembered_as(at))
            }
            _ => Journal::open(None, ""),
        };
        Ok(Shared {
            to,
            rules,
            filters: self.filters.clone(),
            dry_run: o.dry_run,
            durable: o.fsync != FsyncArg::None,
            journal,
            tell,
            seen: (roots.len() > 1).then(Mutex::default),
            dirs: Mutex::default(),
        })
    }

    fn rules(&self) -> Rules {
        let o = self.options;
        Rules {
            perms: o.perms(),
            times: o.times(),
            links: o.links(),
            recursive: o.recursive(),
            checksum: o.checksum,
            umask: umask() & 0o777,
            grain: std::time::Duration::ZERO,
            narrow: false,
        }
    }
}

/// A place that is not there yet, in a dry run.
const COARSE: Capabilities = Capabilities {
    mtime_grain: std::time::Duration::from_secs(1),
    replaces: true,
    durable: false,
    symlinks: true,
    near: false,
};

/// What the journals of a place are found by.
fn remembered_as(at: &Location) -> String {
    let mut name = at.name().to_owned();
    if let (Location::Local(_), Ok(dir)) = (at, std::env::current_dir()) {
        // Its name is as it was typed.
        name.extend(["\0", &dir.to_string_lossy()]);
    }
    name
}

/// The error of a place that nothing can go on without.
fn broken(error: &LocationError) -> CliError {
    CliError::Place(error.clone())
}
