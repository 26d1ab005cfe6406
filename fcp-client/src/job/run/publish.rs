//! A proven copy gets its final name, by the overwrite rule as things are at that moment.

use fcp_proto::path::RelPath;

use super::file::File;
use super::{Side, Trouble, content};
use crate::job::ledger::{Ledger, State};
use crate::job::plan::{self, Expect, Skip, Stays, Verdict};
use crate::location::{Meta, Reason, copy};

/// How often somebody may get in between.
const ROUNDS: u32 = 8;

impl<L: Ledger + 'static> File<'_, L> {
    /// Renames the temp; then the file is delivered.
    pub(super) async fn publish(&mut self) -> Result<(), Trouble> {
        if self.attempts > 1 || self.staged.is_none() {
            // After a crash or a lost answer: a replacing rename may have been cut short, and what
            // the plan saw may be old.
            self.run.order.destination.recover_replace(&self.final_name().clone()).await?;
            self.expect_anew().await?;
        }
        for _ in 0..ROUNDS {
            let State::Verified { temp, to, hash } = self.state.clone() else { return Ok(()) };
            let seen = match self.expect {
                Expect::Absent => None,
                Expect::Replace(meta) => Some(meta),
            };
            if self.is_replaced(&temp).await? {
                return self.stage_again(self.salted()?).await;
            }
            match copy::publish(&self.run.order.destination, &temp, &to, seen).await {
                Ok(()) => {
                    self.maybe_renamed = true;
                    if self.run.sources_go() {
                        let (place, size) = (&self.run.order.destination, self.candidate.meta.size);
                        copy::check_renamed(place, &temp, &to, Some(size)).await?;
                    }
                    self.run.sync_name(Side::Destination, &to).await?;
                    return self.delivered(State::Delivered { to, hash }).await;
                }
                Err(error) if matches!(error.reason, Reason::Exists | Reason::Changed) => {
                    self.expect_anew().await?;
                }
                // We never renamed it: somebody else removed it, and nothing was delivered.
                Err(error) if error.reason == Reason::NotFound && !self.maybe_renamed => {
                    return self.stage_again(temp).await;
                }
                Err(error) => {
                    self.maybe_renamed = true;
                    return Err(error.into());
                }
            }
        }
        Err(Trouble::Failed(format!("{} changes again and again", self.final_name())))
    }

    /// Begins anew where a temp was taken away, or another file has its name; once.
    async fn stage_again(&mut self, temp: RelPath) -> Result<(), Trouble> {
        self.restart(temp).await?;
        if std::mem::replace(&mut self.bereft, true) {
            let text =
                format!("somebody removes or replaces the temporary files beside {}", self.to);
            return Err(Trouble::Failed(text));
        }
        if let Some((dir, _)) = self.to.split_last() {
            self.run.unmade(Side::Destination, &dir).await;
        }
        Ok(())
    }

    /// Delivered; where nothing happens to the source that is all, and told to the ledger as one.
    async fn delivered(&mut self, state: State) -> Result<(), Trouble> {
        if self.run.sources_go() {
            return self.record(state).await;
        }
        // Recorded as finished by the next step.
        self.state = state;
        Ok(())
    }

    /// Holds the copy against what has its name now.
    async fn expect_anew(&mut self) -> Result<(), Trouble> {
        let now = self.run.order.destination.stat(&self.final_name().clone()).await?;
        let Some(now) = now else {
            self.expect = Expect::Absent;
            return Ok(());
        };
        if self.renames() {
            return self.other_name().await;
        }
        if !now.is_file() {
            return self.withdraw(Skip::NameTaken).await;
        }
        let to = self.final_name().clone();
        let owner = self.run.ledger.finals(vec![to]).await?.pop().flatten();
        let of_another = owner.is_some_and(|owner| owner != self.candidate.path);
        let verdict = plan::rule(self.run.spec().overwrite, &self.candidate.meta, &now);
        match plan::of_another_source(of_another, self.run.spec().done.action, verdict) {
            Verdict::Replace => self.expect = Expect::Replace(now),
            Verdict::Same => return self.same_there(now).await,
            Verdict::Stays(why) => {
                let why = plan::stays(self.run.spec().done.action, why);
                return self.withdraw(why).await;
            }
        }
        Ok(())
    }

    /// Somebody put a file of the same size there: the same one is replaced by ours, which we know
    /// to be durable; another one stays.
    async fn same_there(&mut self, now: Meta) -> Result<(), Trouble> {
        let order = &self.run.order;
        let (temp, to) = (self.temp().clone(), self.final_name().clone());
        let there = &order.destination;
        if content::agree((there, &temp), (there, &to), now.size).await?.is_some() {
            self.expect = Expect::Replace(now);
            return Ok(());
        }
        let why = plan::stays(self.run.spec().done.action, Stays::OtherContent);
        self.withdraw(why).await
    }

    /// Takes the copy back, as it may not appear.
    async fn withdraw(&mut self, why: Skip) -> Result<(), Trouble> {
        self.clear_temp(self.temp().clone()).await?;
        Err(Trouble::Skip(why))
    }

    async fn other_name(&mut self) -> Result<(), Trouble> {
        let State::Verified { temp, to, hash } = self.state.clone() else { return Ok(()) };
        let to = copy::free_name(&self.run.order.destination, &to).await?;
        self.to = to.clone();
        self.expect = Expect::Absent;
        self.record(State::Verified { temp, to, hash }).await
    }

    /// Whether the source still is the version that was copied; `None` when it is gone.
    pub(super) async fn source_is_unchanged(&self) -> Result<Option<bool>, Trouble> {
        let now = self.run.order.source.stat(&self.candidate.path).await?;
        Ok(now.map(|now| self.is_listed(&now)))
    }
}
