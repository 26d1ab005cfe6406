//! How a file ends: done, left alone, failed, or with the run.

use std::time::Instant;

use super::file::{BEFORE, End, File};
use super::{Halt, Side, Trouble, tell};
use crate::job::ledger::{Ledger, State};
use crate::job::plan::Skip;
use crate::job::recover::{After, Left, Next};
use crate::job::report::FileRecord;
use crate::location::{LocationError, Reason};

/// Why a source is moved that was to be deleted.
pub(super) const UNSEEN: &str = "its copy is not to be seen any more";

impl<L: Ledger + 'static> File<'_, L> {
    /// The end of a file about which nothing is left to do.
    pub(super) async fn finish(&mut self, left: Left) -> Result<String, Trouble> {
        let moved = match &self.state {
            State::Leaving { moved, .. } => Some(moved.clone()),
            _ => None,
        };
        let action = match (left, moved) {
            (Left::Kept, _) => "kept".to_owned(),
            (Left::KeptUnproven, _) => "kept: its copy is not there to be proven".to_owned(),
            (Left::Away, _) if self.changed => "kept: it changed after it was copied".to_owned(),
            (Left::Away, Some(Some(moved))) if self.run.spec().done.zip => {
                format!("zipped to {moved}")
            }
            (Left::Away, Some(Some(moved))) if self.run.after() == After::Delete => {
                format!("{UNSEEN}; moved to {moved} instead of deleted")
            }
            (Left::Away, Some(Some(moved))) => format!("moved to {moved}"),
            (Left::Away, Some(None)) => "deleted".to_owned(),
            (Left::Away, None) => "gone before it was put away".to_owned(),
        };
        let gone = left == Left::Away && self.run.sources_go();
        if gone {
            self.sync_source().await?;
        }
        let (to, hash) = (self.final_name().clone(), self.hash());
        let state = State::Finished { to, hash, action: action.clone(), gone };
        match self.state {
            // A look at both ends would find nothing to do, or what was there already.
            State::Claimed { .. } => self.record(state).await?,
            // Lost in a crash, the next run comes here again: a temp that is gone was delivered,
            // and a source that is gone or is to stay is left alone.
            _ => {
                self.run.ledger.finish(self.id, state.clone());
                self.state = state;
            }
        }
        Ok(action)
    }

    /// A source that comes back is sent again, so it is to stay where it went. The new name first.
    async fn sync_source(&self) -> Result<(), Trouble> {
        if let State::Leaving { moved: Some(moved), .. } = &self.state {
            self.run.sync_name(Side::Source, moved).await?;
        }
        Ok(self.run.sync_name(Side::Source, &self.candidate.path).await?)
    }

    /// What a location's failure means for this file.
    pub(super) fn judge(&self, trouble: Trouble) -> Trouble {
        let Trouble::Location(error) = trouble else { return trouble };
        let at_source = error.place == self.run.order.source.name();
        let before = matches!(self.state, State::Claimed { .. });
        match error.reason {
            Reason::Cancelled => Trouble::Halted,
            Reason::NotFound if at_source && before => Trouble::Skip(Skip::Vanished),
            Reason::Changed if at_source && before => Trouble::Skip(Skip::Unstable),
            Reason::NotFile if at_source && before => Trouble::Skip(Skip::Unstable),
            _ => Trouble::Location(error),
        }
    }

    /// Whether a permanent failure may be none: a folder that was removed under us, a copy that
    /// reads back differently.
    pub(super) async fn is_worth_a_try(&self, error: &LocationError) -> bool {
        let there = error.place == self.run.order.destination.name();
        if there
            && error.reason == Reason::NotFound
            && let Some((dir, _)) = self.final_name().split_last()
        {
            self.run.unmade(Side::Destination, &dir).await;
        }
        there && matches!(error.reason, Reason::NotFound | Reason::Changed)
    }

    pub(super) fn done(self, action: String) -> End {
        self.run.breaker.succeeded(Instant::now());
        let staged = self.staged.as_ref();
        End::Done(Box::new(FileRecord {
            when: jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string(),
            job: self.run.spec().key.clone(),
            file: self.candidate.path.to_string(),
            source: format!("{}: {}", self.run.order.source.name(), self.candidate.path),
            destination: format!("{}: {}", self.run.order.destination.name(), self.final_name()),
            size: self.candidate.meta.size,
            hash: self.hash(),
            proven_by: staged.map_or(BEFORE, |staged| staged.proven_by).to_owned(),
            attempts: self.attempts,
            seconds: self.began.elapsed().as_secs_f64(),
            action,
            resumed: staged.map_or(0, |staged| staged.resumed),
        }))
    }

    /// Gives the claim back, and what is told of it.
    pub(super) async fn give_up(mut self, trouble: Trouble) -> End {
        let unstaged = matches!(self.state, State::Claimed { .. });
        let delivered = matches!(self.state, State::Delivered { .. } | State::Leaving { .. });
        if delivered && self.staged.is_some() {
            self.run.tell.left(self.candidate.meta.size);
        }
        match trouble {
            Trouble::Ledger(error) => {
                self.run.stop.halt(Halt::Broken(error.to_string()));
                End::Halted
            }
            Trouble::Halted => {
                self.release(None).await;
                End::Halted
            }
            Trouble::Skip(why @ (Skip::Vanished | Skip::Unstable)) if unstaged => {
                let cleared = self.let_temp_go().await;
                let forgotten = cleared && self.run.ledger.forget(self.id).await.is_ok();
                if !forgotten {
                    self.release(Some(why.to_string())).await;
                }
                End::Skipped(why)
            }
            Trouble::Skip(why) => {
                self.release(Some(why.to_string())).await;
                End::Skipped(why)
            }
            Trouble::Failed(text) => {
                self.release(Some(text.clone())).await;
                self.end(text)
            }
            Trouble::Location(error) => self.failed(error, unstaged).await,
        }
    }

    /// Removes the temp of a source that went away; whether there is nothing left to try.
    async fn let_temp_go(&self) -> bool {
        let owned = match !self.own_temp && !self.tried {
            true => return true,
            false => self.owns_temp().await,
        };
        match owned {
            Ok(true) => self.discard(self.temp()).await.is_ok(),
            Ok(false) => self.told_of_temp().await,
            Err(Trouble::Location(error)) if error.reason == Reason::NotFound => {
                self.told_of_temp().await
            }
            Err(_) => false,
        }
    }

    /// Without the source nobody can tell whose a temp is.
    async fn told_of_temp(&self) -> bool {
        let (temp, place) = (self.temp(), &self.run.order.destination);
        match place.stat(temp).await {
            Ok(None) => true,
            Ok(Some(_)) => {
                self.run.tell.note(format!(
                    "{}: {temp} may be of a run that was killed; it stays, as it may be somebody \
                     else's. Remove it if nobody writes it",
                    place.name()
                ));
                true
            }
            Err(_) => false,
        }
    }

    pub(super) async fn failed(&mut self, error: LocationError, unstaged: bool) -> End {
        if unstaged && !error.is_transient() && self.own_temp {
            // What cannot be gone on with does not stay.
            let _ = self.clear_temp(self.temp().clone()).await;
        }
        let mut text = error.to_string();
        if !unstaged && !matches!(self.state, State::Verified { .. }) {
            text = format!("delivered as {}, but the source stays: {text}", self.final_name());
        }
        self.release(Some(text.clone())).await;
        // The run's own end is told once, not for every file that was on its way.
        if self.run.stop.is_over() && error.is_transient() { End::Halted } else { self.end(text) }
    }

    /// What is done with it now, where that takes long enough to be seen.
    pub(super) fn tell_phase(&self, next: &Next) {
        let phase = match next {
            Next::Prove => "proving",
            Next::MoveSource => "moving",
            Next::WriteZip => "zipping",
            Next::RemoveSource => "removing",
            _ => return,
        };
        if self.candidate.meta.size >= tell::STEP {
            self.run.tell.phase(&self.candidate.path, phase);
        }
    }

    pub(super) fn end(&self, error: String) -> End {
        End::Failed { attempts: self.attempts, error }
    }

    pub(super) async fn release(&self, error: Option<String>) {
        if let Err(error) = self.run.ledger.release(self.id, error).await {
            self.run.stop.halt(Halt::Broken(error.to_string()));
        }
    }
}
