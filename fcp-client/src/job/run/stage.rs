//! A file on its way to its temporary name.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use fcp_proto::path::RelPath;

use super::file::{File, Written};
use super::proven::Proven;
use super::tell::Meter;
use super::{Side, Stop, Trouble, content, retry};
use crate::job::ledger::{Ledger, State};
use crate::job::plan;
use crate::location::copy::{self, Proof, Stage, StageOptions, Staged, Watch};
use crate::location::{DigestKind, LocationError, Op, Reason, SetMeta};

/// Names that are tried for a temp before it is given up: a name with 32 random bits is free.
const TEMPS: u32 = 3;
/// A smaller file is sent sooner than its ranges are looked up.
const RESUME_FROM: u64 = 8 << 20;

impl<L: Ledger + 'static> File<'_, L> {
    pub(super) fn has_ranges(&self) -> bool {
        !self.lock_written().is_empty()
    }

    pub(super) fn lock_written(&self) -> std::sync::MutexGuard<'_, Vec<(Range<u64>, u128)>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn stage(&mut self, resume: bool) -> Result<(), Trouble> {
        let dir = self.to.split_last().map(|(dir, _)| dir).unwrap_or_default();
        self.run.make_dirs(Side::Destination, &dir).await?;
        let resume = resume && self.has_ranges();
        if !resume && (self.own_temp || self.tried) {
            self.clear_temp(self.temp().clone()).await?;
        }
        let mut temp = self.temp().clone();
        for _ in 0..TEMPS {
            let fresh = !self.own_temp;
            match self.stage_as(&temp).await {
                Ok(staged) => return self.verified(temp, staged).await,
                // Somebody else's: it stays. The other name is written down before anything has it,
                // and has a random part, so that what has it later is ours.
                Err(error) if is_taken(&error) && fresh => {
                    temp = self.salted()?;
                    self.restart(temp.clone()).await?;
                }
                // It said that it could. Where the source stays that is no reason to send nothing.
                Err(error) if error.reason == Reason::Unsupported && self.may_do_without_sync() => {
                    self.note_tried(&temp);
                }
                Err(error) => {
                    self.note_tried(&temp);
                    return Err(error.into());
                }
            }
        }
        Err(Trouble::Failed(format!("no temporary name is free beside {}", self.to)))
    }

    pub(super) fn salted(&self) -> Result<RelPath, Trouble> {
        plan::temp_path(&self.to, Some(retry::random()))
            .ok_or_else(|| Trouble::Failed("its name is too long".to_owned()))
    }

    /// Something may have the temp's name now.
    fn note_tried(&mut self, temp: &RelPath) {
        self.tried = true;
        let natural = plan::temp_path(&self.to, None);
        self.own_temp |=
            self.made.load(Ordering::Relaxed) || plan::is_salted(temp, natural.as_ref());
    }

    /// From here on nothing is synced, if that is all that was wrong.
    fn may_do_without_sync(&self) -> bool {
        let run = self.run;
        !run.sources_go() && run.is_durable() && !run.unsynced.swap(true, Ordering::Relaxed)
    }

    pub(super) async fn stage_as(&self, temp: &RelPath) -> Result<Staged, LocationError> {
        let run = self.run;
        let transfer = &run.spec().transfer;
        let options = StageOptions {
            large: transfer.large_file_threshold,
            resume_from: if transfer.resume { RESUME_FROM } else { u64::MAX },
            chunk: transfer.chunk_size,
            streams: run.spec().max_connections.max(1),
            proof: self.proof(),
            durable: run.is_durable(),
            meta: SetMeta { mode: self.candidate.meta.mode, mtime: self.candidate.meta.mtime },
        };
        let done = self.lock_written().clone();
        self.made.store(false, Ordering::Relaxed);
        let watch = Hearing {
            meter: run.tell.meter(&self.candidate.path, self.worker),
            written: transfer.resume.then(|| Arc::clone(&self.written)),
            made: Arc::clone(&self.made),
            ledger: Arc::clone(&run.ledger),
            id: self.id,
            stop: run.stop.clone(),
        };
        copy::stage(Stage {
            from: &run.order.source,
            source: &self.candidate.path,
            listed: self.candidate.meta,
            to: &run.order.destination,
            temp,
            options: &options,
            done,
            watch: Arc::new(watch),
        })
        .await
    }

    pub(super) fn proof(&self) -> Proof {
        if self.run.spec().transfer.verify_integrity || self.run.sources_go() {
            Proof::Content
        } else {
            Proof::Size
        }
    }

    pub(super) async fn verified(&mut self, temp: RelPath, staged: Staged) -> Result<(), Trouble> {
        // Where a server knows only MD5, that has done for the copy; a source goes by SHA-256.
        let sha256 = staged.digest.as_ref().filter(|digest| digest.kind == DigestKind::Sha256);
        let hash = sha256.map(|digest| content::text(&digest.bytes));
        let set = SetMeta { mode: None, mtime: self.candidate.meta.mtime };
        self.proven = staged.temp.map(|temp| Proven::held(temp, set));
        self.staged = Some(staged);
        self.own_temp = true;
        self.record(State::Verified { temp, to: self.to.clone(), hash }).await
    }
}

fn is_taken(error: &LocationError) -> bool {
    error.reason == Reason::Exists && error.op == Op::Create
}

/// Hears of a copy while it goes on.
struct Hearing<L> {
    meter: Meter,
    /// `None` where nothing is gone on with.
    written: Option<Written>,
    made: Arc<AtomicBool>,
    ledger: Arc<L>,
    id: i64,
    stop: Stop,
}

impl<L: Ledger> Watch for Hearing<L> {
    /// A range of no bytes says in the ledger that the temp is ours.
    fn made(&self) {
        self.made.store(true, Ordering::Relaxed);
        self.ledger.written(self.id, 0..0, 0);
    }

    fn moved(&self, bytes: u64) {
        self.meter.add(bytes);
    }

    fn written(&self, range: Range<u64>, digest: u128) {
        let Some(written) = &self.written else { return };
        self.ledger.written(self.id, range.clone(), digest);
        written.lock().unwrap_or_else(PoisonError::into_inner).push((range, digest));
    }

    fn is_cancelled(&self) -> bool {
        self.stop.is_over()
    }
}
