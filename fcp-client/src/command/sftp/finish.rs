//! The end of a copy: directories get their modes and times, temps of dead runs go.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use fcp_proto::packet::Outcome;
use tokio::task::JoinSet;

use super::again::again;
use super::tell::wire;
use super::tree::{Dir, Shared};
use crate::location::{Location, Reason, Result, copy};

/// Directories that are finished at a time.
const AT_ONCE: usize = 64;

/// Finishes the directories, the deepest first, and tells of them.
pub(super) async fn finish(run: &Arc<Shared>) {
    if let Some(to) = run.to.at.as_ref().filter(|_| !run.dry_run) {
        for temp in run.journal.leftovers() {
            let _ = copy::discard(to, &temp).await;
        }
    }
    let mut levels: BTreeMap<usize, Vec<Arc<Dir>>> = BTreeMap::new();
    let mut seen = HashSet::new();
    for dir in run.dirs.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        // Of several sources that are one directory the first one counts.
        if seen.insert(dir.path.clone()) {
            levels.entry(dir.path.components().count()).or_default().push(dir);
        }
    }
    drop(seen);
    for (_, level) in levels.into_iter().rev() {
        let mut tasks = JoinSet::new();
        for dir in level {
            if tasks.len() >= AT_ONCE {
                tasks.join_next().await;
            }
            let run = Arc::clone(run);
            tasks.spawn(async move { run.finish_dir(&dir).await });
        }
        while tasks.join_next().await.is_some() {}
    }
}

impl Shared {
    async fn finish_dir(&self, dir: &Dir) {
        if self.tell.is_over() {
            return;
        }
        let failed = dir.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let made = match dir.shown {
            Some(_) => dir.there.is_none(),
            None => self.to.made,
        };
        let outcome = match (failed, made, dir.differs) {
            (Some(error), ..) => Outcome::Failed(error),
            (_, true, _) => Outcome::Created,
            (_, _, true) => Outcome::Metadata,
            _ => Outcome::Same,
        };
        let outcome = match (&self.to.at, &outcome) {
            (Some(to), Outcome::Created | Outcome::Metadata | Outcome::Same) if !self.dry_run => {
                match again(|| self.set_dir(to, dir, made)).await {
                    Ok(()) => outcome,
                    Err(error) => {
                        self.tell.note_fatal(&error);
                        Outcome::Failed(wire(&error))
                    }
                }
            }
            _ => outcome,
        };
        match (&dir.shown, &dir.source) {
            (Some(shown), Some(source)) => self.tell.done(shown.clone(), source, outcome),
            _ => {
                if let Outcome::Failed(error) = outcome {
                    self.tell.problem(b".".to_vec(), error);
                }
            }
        }
    }

    async fn set_dir(&self, to: &Location, dir: &Dir, made: bool) -> Result<()> {
        let touched = dir.touched.load(Relaxed) || made;
        let widened = dir.widened.load(Relaxed);
        if let Some(source) = dir.source.filter(|_| touched || widened || dir.differs) {
            let was = dir.there.and_then(|there| there.mode).map(|mode| mode & 0o777);
            let meta = self.rules.dir_meta(&source, was.filter(|_| widened), made);
            to.set_meta(&dir.path, meta).await?;
        }
        if !(self.durable && touched) {
            return Ok(());
        }
        match to.sync_dir(&dir.path).await {
            // The files themselves are on the disk; of their names no SFTP server can say that.
            Err(error) if error.reason != Reason::Unsupported => Err(error),
            _ => Ok(()),
        }
    }
}
