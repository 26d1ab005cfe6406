//! What a run would do, and why; nothing is touched at either end, nor in the ledger.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use fcp_proto::path::RelPath;

use super::survey::{self, OURS};
use super::tell::Teller;
use super::{Listener, Order, Stop, Trouble};
use crate::job::ledger::{Record, State};
use crate::job::plan::{self, Candidate, Decision, Expect, Now, Planner, Skip};
use crate::job::report::JobSummary;
use crate::job::spec::{Action, ClockRule};
use crate::location::Location;

/// Plans a run as [`super::run_job`] would, and tells it. `records` is all that the ledger has of the
/// job; `there`: whether the destination's base is there, or will be made.
pub async fn dry_run(
    order: Order,
    there: bool,
    records: Vec<Record>,
    listener: Listener,
    stop: &Stop,
) -> JobSummary {
    let began = Instant::now();
    let dry = Dry {
        tell: Arc::new(Teller::new(&order.spec.key, true, listener)),
        order,
        there,
        stop: stop.child(),
    };
    let went = tokio::select! {
        went = dry.go(&records) => went,
        () = dry.stop.over() => Ok(()),
    };
    if let Err(trouble) = went {
        match trouble {
            Trouble::Location(error) if error.is_transient() => {
                dry.stop.halt(super::Halt::Dead(error.to_string()));
            }
            Trouble::Location(error) => dry.stop.halt(super::Halt::Broken(error.to_string())),
            _ => {}
        }
    }
    super::summary(&dry.tell, &dry.stop, began)
}

struct Dry {
    order: Order,
    there: bool,
    tell: Arc<Teller>,
    stop: Stop,
}

impl Dry {
    async fn go(&self, records: &[Record]) -> Result<(), Trouble> {
        self.clock_note();
        if !self.there {
            let shown = self.order.spec.destination.shown();
            self.tell.note(format!("the destination {shown} is not there; a run makes it"));
        }
        let records = || records.iter().filter(|one| one.entity.place == self.order.place);
        let known: HashMap<_, _> = records().map(|one| (&one.entity, &one.state)).collect();
        records().for_each(|record| self.recovery(record));
        let mut planner = Planner::new(&self.order.spec);
        planner.owned(records().filter_map(|record| match &record.state {
            State::Claimed { .. } | State::Verified { .. } => None,
            State::Delivered { to, .. }
            | State::Leaving { to, .. }
            | State::Finished { to, .. } => Some((to.clone(), record.entity.path.clone())),
        }));
        for folder in &self.order.folders {
            if self.stop.is_over() {
                return Err(Trouble::Halted);
            }
            let listed = self.order.source.list(folder).await.map_err(Trouble::from);
            let Some(mut listing) = survey::folder_listing(&self.tell, folder, listed)? else {
                continue;
            };
            survey::take_probes(folder, &mut listing);
            let (candidates, skipped) = plan::sift(&self.order.spec, folder, &listing);
            let others = skipped.iter().filter(|(_, why)| !why.is_foreign()).count();
            self.tell.count(|totals| totals.found += (candidates.len() + others) as u64);
            skipped.iter().for_each(|(path, why)| self.tell.skipped(path, why));
            self.folder(folder, candidates, &known, &mut planner).await?;
        }
        Ok(())
    }

    async fn folder(
        &self,
        folder: &RelPath,
        candidates: Vec<Candidate>,
        known: &HashMap<&crate::job::ledger::Entity, &State>,
        planner: &mut Planner<'_>,
    ) -> Result<(), Trouble> {
        let there = Planner::folder(&self.order.spec, folder);
        let there = match candidates.is_empty() || !self.there {
            true => HashMap::new(),
            false => survey::there(&self.order.destination, &there, &candidates).await?,
        };
        let now = Now { ours: survey::now(), clock: OURS };
        let entities = survey::entities(&self.order, &candidates);
        for (candidate, entity) in candidates.into_iter().zip(entities) {
            let state = known.get(&entity).copied();
            // What an earlier run left is told already.
            if !matches!(state, None | Some(State::Finished { .. } | State::Claimed { .. })) {
                continue;
            }
            let done = state.is_some_and(|known| plan::is_settled(&self.order.spec, known));
            match plan::ripe(&candidate.meta, now, self.order.spec.min_age, None) {
                Some(why) if !done => self.tell.skipped(&candidate.path, &why),
                _ => self.decided(planner.decide(candidate, state, &there)),
            }
        }
        Ok(())
    }

    fn clock_note(&self) {
        let near = matches!(self.order.source, Location::Local(_));
        let spec = &self.order.spec;
        if !near && !spec.min_age.is_zero() && spec.clock == ClockRule::Server {
            self.tell.note(
                "a dry run makes no probe file, so ages are by this machine's clock, not the \
                 server's"
                    .to_owned(),
            );
        }
        if !spec.stable.is_zero() {
            self.tell.note("a dry run takes no second look (stable_seconds)".to_owned());
        }
    }

    fn decided(&self, decision: Decision) {
        match decision {
            Decision::Skip { path, why } => self.tell.skipped(&path, &why),
            Decision::Take(take) => {
                let mut steps = vec![match take.expect {
                    Expect::Absent => "copy".to_owned(),
                    Expect::Replace(old) => format!("copy, replacing one of {} bytes", old.size),
                }];
                steps.extend(self.after());
                let candidate = &take.candidate;
                self.tell.planned(&candidate.path, &take.to, candidate.meta.size, steps);
            }
            Decision::There { candidate, to } => {
                let proving = self.order.spec.transfer.verify_integrity
                    || self.order.spec.done.action != Action::Keep;
                if !proving {
                    return self.tell.skipped(&candidate.path, &Skip::SameThere);
                }
                let mut steps = vec!["compare with the file of this size that is there".to_owned()];
                steps.extend(self.after());
                self.tell.planned(&candidate.path, &to, 0, steps);
            }
        }
    }

    fn after(&self) -> Option<String> {
        let done = &self.order.spec.done;
        match (done.action, done.zip) {
            (Action::Keep, _) => None,
            (Action::Delete, _) => Some("delete the source".to_owned()),
            (Action::Move, false) => Some(format!("move the source to {}/", done.folder)),
            (Action::Move, true) => {
                Some(format!("zip the source to {}/ and delete it", done.folder))
            }
        }
    }

    /// What an earlier run has begun.
    fn recovery(&self, record: &Record) {
        let path = &record.entity.path;
        let mut steps = match &record.state {
            State::Claimed { .. } | State::Finished { .. } => return,
            State::Verified { .. } => vec!["rename the copy of an earlier run".to_owned()],
            State::Delivered { .. } | State::Leaving { .. } => {
                vec!["delivered by an earlier run".to_owned()]
            }
        };
        steps.extend(self.after());
        let to = match &record.state {
            State::Verified { to, .. }
            | State::Delivered { to, .. }
            | State::Leaving { to, .. } => to,
            _ => path,
        };
        self.tell.planned(path, to, 0, steps);
    }
}
