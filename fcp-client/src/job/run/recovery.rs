//! What earlier runs left is brought to its end before anything is listed.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::file::File;
use super::work::{self, Workers};
use super::{Halt, Run, Trouble, timestamp};
use crate::job::ledger::{Claim, Entity, Ledger, LedgerError, Record, State};
use crate::job::plan::{self, Candidate, Expect, Planner, Take};
use crate::location::Meta;
use fcp_common::fs::Kind;
use fcp_proto::path::RelPath;

/// Files that are looked at together.
const LOOKS: usize = 64;

/// Walks every open line of the ledger to its end; tells which files are dealt with, well or badly,
/// so that the plan leaves them alone.
pub(super) async fn recover<L: Ledger + 'static>(
    run: &Arc<Run<L>>,
) -> Result<HashSet<Entity>, LedgerError> {
    let open = run.ledger.open(&run.spec().key).await?;
    let workers = Workers::new(run.spec().max_workers);
    let (mut handled, mut tasks) = (HashSet::new(), JoinSet::new());
    for record in not_left_to_plan(run, open).await {
        let size = record.entity.size;
        let Some(share) = work::claim_share(run, &workers, size, &mut tasks).await else { break };
        handled.insert(record.entity.clone());
        let run = Arc::clone(run);
        work::spawn(&mut tasks, run.order.large.clone(), size, async move {
            if let Err(error) = one(&run, record, share.worker).await {
                run.stop.halt(Halt::Broken(error.to_string()));
            }
        });
    }
    work::bury(run, &mut tasks).await;
    Ok(handled)
}

/// The lines of this run's source that the plan will not come to. Many are looked at together: a run
/// that was killed may leave some hundred that it had claimed ahead. What goes wrong is told, and
/// ends the looking.
async fn not_left_to_plan<L: Ledger + 'static>(
    run: &Arc<Run<L>>,
    open: Vec<Record>,
) -> Vec<Record> {
    let (mut looks, mut ours) = (JoinSet::new(), Vec::new());
    let mut rest = open.into_iter().filter(|record| record.entity.place == run.order.place);
    loop {
        while looks.len() < LOOKS
            && let Some(record) = rest.next()
        {
            let run = Arc::clone(run);
            looks.spawn(async move {
                let left = left_to_plan(&run, &record).await;
                (record, left)
            });
        }
        match looks.join_next().await {
            Some(Ok((_, Ok(true)))) => {}
            Some(Ok((record, Ok(false)))) => ours.push(record),
            Some(Ok((_, Err(trouble)))) => {
                run.end_for(trouble);
                break;
            }
            Some(Err(why)) => {
                run.stop.halt(Halt::Broken(format!("a look broke off, a bug: {why}")));
                break;
            }
            None => break,
        }
    }
    ours.sort_by_key(|record| record.id);
    ours
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
    let now = stat_patiently(run, path).await?;
    Ok(now.is_some_and(|now| run.entity(path, &now) == record.entity))
}

/// As [`Run::patiently`], whose closure no other task can have.
async fn stat_patiently<L: Ledger + 'static>(
    run: &Run<L>,
    path: &RelPath,
) -> Result<Option<Meta>, Trouble> {
    let mut attempt = 1;
    loop {
        match run.order.source.stat(path).await {
            _ if run.stop.is_over() => return Err(Trouble::Halted),
            Err(error) if error.is_transient() && attempt < run.spec().transfer.attempts => {
                run.wait(path, attempt, &error).await;
                attempt += 1;
            }
            done => return Ok(done?),
        }
    }
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
) -> Option<(Take, RelPath)> {
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
