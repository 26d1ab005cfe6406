//! What earlier runs left is brought to its end before anything is listed.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::file::File;
use super::work::{self, Workers};
use super::{Run, Trouble, timestamp};
use crate::job::ledger::{Claim, Entity, Ledger, LedgerError, Record, State};
use crate::job::plan::{self, Candidate, Expect, Planner, Take};
use crate::location::Meta;
use fcp_common::fs::Kind;

/// Walks every open line of the ledger to its end; tells which files are dealt with, well or badly,
/// so that the plan leaves them alone.
pub(super) async fn recover<L: Ledger + 'static>(
    run: &Arc<Run<L>>,
) -> Result<HashSet<Entity>, LedgerError> {
    let open = run.ledger.open(&run.spec().key).await?;
    let workers = Workers::new(run.spec().max_workers);
    let (mut handled, mut tasks) = (HashSet::new(), JoinSet::new());
    for record in open.into_iter().filter(|record| record.entity.place == run.order.place) {
        match left_to_plan(run, &record).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(trouble) => {
                run.end_for(trouble);
                break;
            }
        }
        let size = record.entity.size;
        let Some(share) = work::claim_share(run, &workers, size, &mut tasks).await else { break };
        handled.insert(record.entity.clone());
        let run = Arc::clone(run);
        tasks.spawn(async move {
            if let Err(error) = one(&run, record, share.worker).await {
                run.stop.halt(super::Halt::Broken(error.to_string()));
            }
        });
    }
    work::bury(run, &mut tasks).await;
    Ok(handled)
}

/// Whether a line is of a file that was only begun and that the plan will find again.
async fn left_to_plan<L: Ledger + 'static>(
    run: &Arc<Run<L>>,
    record: &Record,
) -> Result<bool, Trouble> {
    let path = &record.entity.path;
    let folder = path.split_last().map(|(folder, _)| folder).unwrap_or_default();
    if !matches!(record.state, State::Claimed { .. }) || !run.order.folders.contains(&folder) {
        return Ok(false);
    }
    let now = run.patiently(path, async || run.order.source.stat(path).await).await?;
    Ok(now.is_some_and(|now| run.entity(path, &now) == record.entity))
}

async fn one<L: Ledger + 'static>(
    run: &Arc<Run<L>>,
    record: Record,
    worker: usize,
) -> Result<(), LedgerError> {
    let Some((take, temp)) = as_take(run, &record).await else { return Ok(()) };
    match run.ledger.claim(record.entity, temp.clone(), run.hold()).await? {
        Claim::Resumed(record, ranges) => {
            let mut file = File::new(run, record.id, take, temp, worker).resumed(record, ranges);
            file.unsure = true;
            work::go_on(file).await;
        }
        // It was dropped or finished since the ledger was read.
        Claim::New(id) => run.ledger.forget(id).await?,
        Claim::Done(_) => {}
        Claim::Taken { owner } => {
            run.tell.skipped(&take.candidate.path, &plan::Skip::Elsewhere(owner));
        }
    }
    Ok(())
}

/// A line of the ledger as the plan would have made it.
async fn as_take<L: Ledger + 'static>(
    run: &Arc<Run<L>>,
    record: &Record,
) -> Option<(Take, fcp_proto::path::RelPath)> {
    let path = record.entity.path.clone();
    let (folder, name) = path.split_last()?;
    let to = Planner::folder(run.spec(), &folder).join(&name).ok()?;
    let temp = plan::temp_path(&to, None)?;
    let mode = run.order.source.stat(&path).await.ok().flatten().and_then(|now| now.mode);
    let (size, mtime) = (record.entity.size, timestamp(record.entity.mtime));
    let meta = Meta { kind: Kind::File, size, mtime, mode, id: None };
    let candidate = Candidate { path, meta };
    Some((Take { candidate, to, expect: Expect::Absent }, temp))
}
