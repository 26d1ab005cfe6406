//! Looks at both ends and plans: folders listed, the clock measured once, a second look, what the
//! ledger knows, what the destination has.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fcp_proto::path::{Name, RelPath};

use super::{Order, Run, Trouble, entity};
use crate::job::ledger::{Entity, Ledger, State};
use crate::job::plan::{self, Candidate, Decision, Now, Planner, Skip};
use crate::job::spec::ClockRule;
use crate::location::copy::is_probe_name;
use crate::location::{Clock, Entry, Listing, LocationError, Meta, Reason};

/// A probe file of this age is nobody's any more.
const LEFT_BEHIND: Duration = Duration::from_secs(60);

/// What of a folder is the job's.
struct Found {
    folder: RelPath,
    candidates: Vec<Candidate>,
    /// Files by which a run that was cut off asked for the time.
    probes: Vec<Candidate>,
}

/// Plans a run; `handled` are those that recovery has dealt with.
pub(super) async fn survey<L: Ledger + 'static>(
    run: &Arc<Run<L>>,
    handled: &HashSet<Entity>,
) -> Result<Vec<Decision>, Trouble> {
    let mut found = list_all(run).await?;
    for folder in &mut found {
        folder.candidates.retain(|one| !handled.contains(&run.entity(&one.path, &one.meta)));
    }
    let mut states = known(run, &found).await?;
    ripen(run, &mut found, &states).await?;
    look_again(run, &mut found).await?;
    let mut planner = Planner::new(run.spec());
    let mut decisions = Vec::new();
    for folder in found {
        let there = Planner::folder(run.spec(), &folder.folder);
        let at = there;
        let there = destination(run, &at, &folder.candidates).await?;
        planner.owned(owned(run, &at, &there, &folder.candidates).await?);
        for candidate in folder.candidates {
            let state = states.remove(&candidate.path);
            decisions.push(planner.decide(candidate, state.as_ref(), &there));
        }
    }
    Ok(decisions)
}

async fn list_all<L: Ledger + 'static>(run: &Run<L>) -> Result<Vec<Found>, Trouble> {
    let mut all = Vec::new();
    for folder in &run.order.folders {
        let listed = run.patiently(folder, async || run.order.source.list(folder).await).await;
        let Some(mut listing) = folder_listing(&run.tell, folder, listed)? else { continue };
        let probes = take_probes(folder, &mut listing);
        let (candidates, skipped) = plan::sift(run.spec(), folder, &listing);
        let others = skipped.iter().filter(|(_, why)| !why.is_foreign()).count();
        run.tell.count(|totals| totals.found += (candidates.len() + others) as u64);
        skipped.iter().for_each(|(path, why)| run.tell.skipped(path, why));
        all.push(Found { folder: folder.clone(), candidates, probes });
    }
    Ok(all)
}

/// A folder's listing; `None`, and told, where it cannot be had but others may.
pub(super) fn folder_listing(
    tell: &super::Teller,
    folder: &RelPath,
    listed: Result<Listing, Trouble>,
) -> Result<Option<Listing>, Trouble> {
    let error = match listed {
        Ok(listing) => return Ok(Some(listing)),
        Err(Trouble::Location(error)) if !error.is_transient() => error,
        Err(trouble) => return Err(trouble),
    };
    match error.reason {
        Reason::NotFound => {
            tell.count(|totals| totals.missing_folders.push(folder.to_string()));
        }
        Reason::NotDirectory => {
            tell.note(format!("{folder} is no folder, or a link to one; links are not followed"));
        }
        _ => tell.failed(folder, 1, &error.to_string()),
    }
    Ok(None)
}

/// What the ledger knows of all candidates.
async fn known<L: Ledger + 'static>(
    run: &Run<L>,
    found: &[Found],
) -> Result<HashMap<RelPath, State>, Trouble> {
    let all = || found.iter().flat_map(|folder| &folder.candidates);
    let entities = all().map(|one| run.entity(&one.path, &one.meta)).collect();
    let records = run.ledger.known(entities).await?;
    let states =
        all().zip(records).filter_map(|(one, record)| Some((one.path.clone(), record?.state)));
    Ok(states.collect())
}

/// Leaves only those that nobody writes any more. Nothing is measured for what is delivered.
async fn ripen<L: Ledger + 'static>(
    run: &Run<L>,
    found: &mut [Found],
    states: &HashMap<RelPath, State>,
) -> Result<(), Trouble> {
    let min = run.spec().min_age;
    let is_done = |one: &Candidate| {
        states.get(&one.path).is_some_and(|known| plan::is_settled(run.spec(), known))
    };
    // Where probes were left behind the time is asked for, too: else nothing tells that they are.
    let asks = |f: &&Found| !f.probes.is_empty() || f.candidates.iter().any(|one| !is_done(one));
    let Some(folder) = found.iter().find(asks) else {
        return Ok(());
    };
    if min.is_zero() {
        return Ok(());
    }
    let clock = clock(run, &folder.folder.clone()).await?;
    let now = Now { ours: now(), clock };
    remove_probes(run, now, found).await;
    for folder in found {
        let measured =
            |one: &Candidate| matches!(clock, Clock::Skew { .. }) && one.meta.mtime.is_some();
        let unmeasured = folder.candidates.iter().filter(|one| !measured(one) && !is_done(one));
        let seen = first_seen(run, unmeasured).await?;
        folder.candidates.retain(|one| {
            match plan::ripe(&one.meta, now, min, seen.get(&one.path).copied()) {
                Some(why) if !is_done(one) => run.tell.skipped(&one.path, &why),
                _ => return true,
            }
            false
        });
    }
    Ok(())
}

/// Takes our own probe files out of a listing: they are nobody's files.
pub(super) fn take_probes(folder: &RelPath, listing: &mut Listing) -> Vec<Candidate> {
    let is_probe = |entry: &mut Entry| {
        entry.meta.is_file() && entry.meta.size == 0 && is_probe_name(entry.name.as_bytes())
    };
    let probes = listing.entries.extract_if(.., is_probe);
    probes.map(|e| Candidate { path: folder.join_unbounded(&e.name), meta: e.meta }).collect()
}

/// Removes probe files that lie there for longer than any run takes for one.
async fn remove_probes<L: Ledger + 'static>(run: &Run<L>, now: Now, found: &[Found]) {
    if now.clock == Clock::Unknown {
        return;
    }
    for probe in found.iter().flat_map(|folder| &folder.probes) {
        if plan::ripe(&probe.meta, now, LEFT_BEHIND, None).is_none()
            && let Err(error) = run.order.source.remove(&probe.path).await
        {
            tracing::debug!("a probe file stays: {error}");
        }
    }
}

/// When these were first seen, which is now for those that never were. All are asked at once: each
/// answer waits for the disk.
async fn first_seen<L: Ledger + 'static>(
    run: &Run<L>,
    files: impl Iterator<Item = &Candidate>,
) -> Result<HashMap<RelPath, i64>, Trouble> {
    let mut asked = tokio::task::JoinSet::new();
    for one in files {
        let (ledger, path) = (Arc::clone(&run.ledger), one.path.clone());
        let entity = run.entity(&one.path, &one.meta);
        asked.spawn(async move { ledger.first_seen(&entity).await.map(|seen| (path, seen)) });
    }
    let mut seen = HashMap::new();
    while let Some(answer) = asked.join_next().await {
        let Ok(answer) = answer else { continue };
        seen.extend([answer?]);
    }
    Ok(seen)
}

async fn clock<L: Ledger + 'static>(run: &Run<L>, folder: &RelPath) -> Result<Clock, Trouble> {
    if run.spec().clock == ClockRule::Ours {
        return Ok(OURS);
    }
    let clock = run.patiently(folder, async || run.order.source.clock(folder).await).await?;
    if clock == Clock::Unknown {
        run.tell.note(format!(
            "the clock of {} cannot be measured: files count from when they were first seen; \
             `clock: ours` trusts this machine's",
            run.order.source.name()
        ));
    }
    Ok(clock)
}

/// A place whose clock is ours.
pub(super) const OURS: Clock = Clock::Skew { millis: 0, error: std::time::Duration::ZERO };

pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// `stable_seconds`: what changes between two looks is still being written.
async fn look_again<L: Ledger + 'static>(run: &Run<L>, found: &mut [Found]) -> Result<(), Trouble> {
    let wait = run.spec().stable;
    if wait.is_zero() || found.iter().all(|folder| folder.candidates.is_empty()) {
        return Ok(());
    }
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = run.stop.over() => return Err(Trouble::Halted),
    }
    for folder in found.iter_mut().filter(|folder| !folder.candidates.is_empty()) {
        let path = folder.folder.clone();
        let listed = run.patiently(&path, async || run.order.source.list(&path).await).await;
        let listing = folder_listing(&run.tell, &path, listed)?.unwrap_or_default();
        let now: HashMap<RelPath, Meta> =
            listing.entries.iter().map(|e| (path.join_unbounded(&e.name), e.meta)).collect();
        folder.candidates.retain(|one| {
            let why = match now.get(&one.path) {
                None => Skip::Vanished,
                now if plan::is_stable(&one.meta, now) => return true,
                Some(_) => Skip::Unstable,
            };
            run.tell.skipped(&one.path, &why);
            false
        });
    }
    Ok(())
}

/// Whose the names are that candidates would get and that something has.
async fn owned<L: Ledger + 'static>(
    run: &Run<L>,
    folder: &RelPath,
    there: &HashMap<Name, Meta>,
    candidates: &[Candidate],
) -> Result<Vec<(RelPath, RelPath)>, Trouble> {
    let names = candidates.iter().filter_map(|one| one.path.split_last());
    let taken = names.filter(|(_, name)| there.contains_key(name));
    let taken: Vec<RelPath> = taken.map(|(_, name)| folder.join_unbounded(&name)).collect();
    if taken.is_empty() {
        return Ok(Vec::new());
    }
    let owners = run.ledger.finals(taken.clone()).await?;
    Ok(taken.into_iter().zip(owners).filter_map(|(name, owner)| Some((name, owner?))).collect())
}

async fn destination<L: Ledger + 'static>(
    run: &Run<L>,
    folder: &RelPath,
    candidates: &[Candidate],
) -> Result<HashMap<Name, Meta>, Trouble> {
    if candidates.is_empty() {
        return Ok(HashMap::new());
    }
    let place = &run.order.destination;
    run.patiently(folder, async || there(place, folder, candidates).await).await
}

/// What the destination's folder has; of a folder that may not be listed, what has a candidate's
/// name.
pub(super) async fn there(
    place: &crate::location::Location,
    folder: &RelPath,
    candidates: &[Candidate],
) -> Result<HashMap<Name, Meta>, LocationError> {
    let error = match place.list(folder).await {
        Ok(listing) => {
            return Ok(listing.entries.into_iter().map(|e| (e.name, e.meta)).collect());
        }
        Err(error) => error,
    };
    match error.reason {
        Reason::NotFound => Ok(HashMap::new()),
        Reason::Denied => {
            let mut there = HashMap::new();
            for name in candidates.iter().filter_map(|one| one.path.split_last()) {
                if let Some(meta) = place.stat(&folder.join_unbounded(&name.1)).await? {
                    there.insert(name.1, meta);
                }
            }
            Ok(there)
        }
        _ => Err(error),
    }
}

/// The entity of a candidate in an order that has no run yet.
pub(super) fn entities(order: &Order, candidates: &[Candidate]) -> Vec<Entity> {
    candidates.iter().map(|one| entity(order, &one.path, &one.meta)).collect()
}
