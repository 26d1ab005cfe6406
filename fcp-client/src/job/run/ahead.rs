//! Small files are claimed many at a time and ahead of the workers, so that none of them waits for
//! the ledger before it begins.

use std::collections::VecDeque;
use std::sync::Arc;
use std::vec::IntoIter;

use tokio::task::{JoinHandle, JoinSet};

use super::work::LARGE;
use super::{Halt, Run};
use crate::job::ledger::{Claim, Ledger, LedgerError};
use crate::job::plan::{self, Decision};

/// Decisions that are claimed together, few enough that a run that is killed leaves few lines to
/// look at, and that other jobs wait for few files.
const TOGETHER: usize = 256;
/// Of these the first workers need not wait for all.
const FIRST: usize = 32;

/// A decision, and its file's claim where it has one by now.
type Claimed = (Decision, Option<Claim>);

/// Decisions in their order, with what was claimed ahead.
pub(super) struct Ahead<L> {
    run: Arc<Run<L>>,
    rest: IntoIter<Decision>,
    ready: VecDeque<Claimed>,
    coming: Option<JoinHandle<Result<Vec<Claimed>, LedgerError>>>,
}

impl<L: Ledger + 'static> Ahead<L> {
    pub(super) fn new(run: &Arc<Run<L>>, decisions: Vec<Decision>) -> Self {
        let (run, rest) = (Arc::clone(run), decisions.into_iter());
        let mut ahead = Ahead { run, rest, ready: VecDeque::new(), coming: None };
        ahead.claim_next(FIRST);
        ahead
    }

    /// The next decision; `None` at the end, or where the ledger failed, which ends the run.
    pub(super) async fn next(&mut self) -> Option<Claimed> {
        if self.ready.is_empty() {
            self.arrive().await;
            if !self.run.stop.is_over() {
                self.claim_next(TOGETHER);
            }
        }
        self.ready.pop_front()
    }

    /// A claim that [`Ahead::next`] gave and that nobody took.
    pub(super) fn unused(&mut self, claim: Option<Claim>) {
        let path = fcp_proto::path::RelPath::root();
        let decision = Decision::Skip { path, why: plan::Skip::Vanished };
        self.ready.push_back((decision, claim));
    }

    /// Takes back what was claimed and not begun, as if it had not been: the next run shall not have
    /// to look at each of them.
    pub(super) async fn give_back(mut self) {
        self.arrive().await;
        let mut tasks = JoinSet::new();
        for (_, claim) in self.ready {
            let run = Arc::clone(&self.run);
            // Whatever fails here is given back by the end of the run all the same.
            match claim {
                Some(Claim::New(id)) => tasks.spawn(async move { run.ledger.forget(id).await }),
                Some(Claim::Resumed(record, _)) => {
                    tasks.spawn(async move { run.ledger.release(record.id, None).await })
                }
                Some(Claim::Done(_) | Claim::Taken { .. }) | None => continue,
            };
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Waits for the claims that are on their way.
    async fn arrive(&mut self) {
        let Some(coming) = self.coming.take() else { return };
        match coming.await {
            Ok(Ok(claimed)) => self.ready.extend(claimed),
            Ok(Err(error)) => self.run.stop.halt(Halt::Broken(error.to_string())),
            Err(why) => self.run.stop.halt(Halt::Broken(format!("claiming broke off: {why}"))),
        }
    }

    fn claim_next(&mut self, together: usize) {
        let chunk: Vec<_> = self.rest.by_ref().take(together).collect();
        if !chunk.is_empty() {
            self.coming = Some(tokio::spawn(claim(Arc::clone(&self.run), chunk)));
        }
    }
}

/// Claims those of the decisions that are small files to be copied.
async fn claim<L: Ledger + 'static>(
    run: Arc<Run<L>>,
    chunk: Vec<Decision>,
) -> Result<Vec<Claimed>, LedgerError> {
    let wanted: Vec<_> = chunk.iter().map(|decision| wish(&run, decision)).collect();
    let wishes: Vec<_> = wanted.iter().flatten().cloned().collect();
    let claims = match wishes.is_empty() {
        true => Vec::new(),
        false => run.ledger.claim_all(wishes).await?,
    };
    let mut claims = claims.into_iter();
    let with = wanted.into_iter().map(|wish| wish.and_then(|_| claims.next()));
    Ok(chunk.into_iter().zip(with.collect::<Vec<_>>()).collect())
}

type Wish = (crate::job::ledger::Entity, fcp_proto::path::RelPath, crate::job::ledger::Hold);

fn wish<L: Ledger + 'static>(run: &Run<L>, decision: &Decision) -> Option<Wish> {
    let Decision::Take(take) = decision else { return None };
    let small = take.candidate.meta.size < LARGE;
    let temp = plan::temp_path(&take.to, None).filter(|_| small)?;
    Some((run.entity(&take.candidate.path, &take.candidate.meta), temp, run.hold()))
}
