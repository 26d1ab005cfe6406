//! How a file comes to its claim: to be copied, or as it is there already.

use std::sync::Arc;

use fcp_proto::path::RelPath;

use super::file::{End, File};
use super::{Halt, Run, Trouble};
use crate::job::ledger::{Claim, Ledger, LedgerError, Record, State};
use crate::job::plan::{self, Candidate, Expect, Skip, Stays, Take};
use crate::location::copy::Proof;

/// Copies a file that the plan takes, claimed or to be claimed.
pub(super) async fn take<L: Ledger + 'static>(
    run: &Arc<Run<L>>,
    take: Take,
    claim: Option<Claim>,
    worker: usize,
) -> End {
    let Some(temp) = plan::temp_path(&take.to, None) else {
        return End::Skipped(Skip::NoName("too long".to_owned()));
    };
    let claim = match claim {
        Some(claim) => Ok(claim),
        None => {
            let entity = run.entity(&take.candidate.path, &take.candidate.meta);
            run.ledger.claim(entity, temp.clone(), run.hold()).await
        }
    };
    match claim {
        Ok(Claim::New(id)) => File::new(run, id, take, temp, worker).live().await,
        Ok(Claim::Resumed(record, ranges)) => {
            File::new(run, record.id, take, temp, worker).resumed(record, ranges).live().await
        }
        Ok(Claim::Done(record)) => End::Skipped(delivered(&record)),
        Ok(Claim::Taken { owner }) => End::Skipped(Skip::Elsewhere(owner)),
        Err(error) => broken(run, &error),
    }
}

/// Settles a file of which one with its name and size is there.
pub(super) async fn there<L: Ledger + 'static>(
    run: &Arc<Run<L>>,
    candidate: Candidate,
    to: RelPath,
    worker: usize,
) -> End {
    let Some(temp) = plan::temp_path(&to, None) else {
        return End::Skipped(Skip::NoName("too long".to_owned()));
    };
    let entity = run.entity(&candidate.path, &candidate.meta);
    let take = Take { candidate, to: to.clone(), expect: Expect::Absent };
    let mut file = match run.ledger.claim(entity, temp.clone(), run.hold()).await {
        Ok(Claim::New(id)) => File::new(run, id, take, temp, worker),
        Ok(Claim::Resumed(record, ranges)) => {
            File::new(run, record.id, take, temp, worker).resumed(record, ranges)
        }
        Ok(Claim::Done(record)) => return End::Skipped(delivered(&record)),
        Ok(Claim::Taken { owner }) => return End::Skipped(Skip::Elsewhere(owner)),
        Err(error) => return broken(run, &error),
    };
    if !matches!(file.state, State::Claimed { .. }) {
        return file.live().await;
    }
    match file.adopt(&to).await {
        Ok(Some(end)) => end,
        Ok(None) => file.live().await,
        Err(trouble) => {
            let trouble = file.judge(trouble);
            file.give_up(trouble).await
        }
    }
}

impl<L: Ledger + 'static> File<'_, L> {
    /// Takes what is there for the copy, once that is proven as far as the job asks; tells the end
    /// if there is nothing left to do.
    async fn adopt(&mut self, to: &RelPath) -> Result<Option<End>, Trouble> {
        let proving = self.proof() == Proof::Content;
        let hash = match proving {
            false => None,
            true => match self.is_proven_there(to).await? {
                Some(hash) => Some(hash),
                None => {
                    let why = plan::stays(self.run.spec().done.action, Stays::OtherContent);
                    return Err(Trouble::Skip(why));
                }
            },
        };
        // Of a copy that an earlier run began; what may be somebody else's stays.
        if self.own_temp || self.tried {
            self.clear_temp(self.temp().clone()).await?;
        }
        if self.run.sources_go() {
            self.record(State::Delivered { to: to.clone(), hash }).await?;
            return Ok(None);
        }
        let action = "kept; it was there already".to_owned();
        self.record(State::Finished { to: to.clone(), hash, action, gone: false }).await?;
        Ok(Some(End::Skipped(Skip::SameThere)))
    }
}

fn delivered(record: &Record) -> Skip {
    match &record.state {
        State::Finished { to, .. } | State::Delivered { to, .. } => Skip::Delivered(to.to_string()),
        _ => Skip::Delivered("another name".to_owned()),
    }
}

fn broken<L>(run: &Run<L>, error: &LedgerError) -> End {
    run.stop.halt(Halt::Broken(error.to_string()));
    End::Halted
}
