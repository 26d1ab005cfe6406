//! The table, whole; and the life of a file with crashes at every step of it.

use std::collections::{HashMap, VecDeque};

use super::*;
use crate::job::ledger::State;
use fcp_proto::path::RelPath;

const SEEN: [Seen; 3] = [Seen::Gone, Seen::Same, Seen::Other];
const AFTERS: [After; 4] = [After::Keep, After::Delete, After::Move, After::Zip];

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

fn states() -> Vec<State> {
    let (temp, to) = (path(".tmp.x"), path("x"));
    let mut states = vec![State::Claimed { temp: temp.clone() }];
    for hash in [None, Some("sha256:00".to_owned())] {
        let (temp, to) = (temp.clone(), to.clone());
        states.push(State::Verified { temp, to: to.clone(), hash: hash.clone() });
        states.push(State::Delivered { to: to.clone(), hash: hash.clone() });
        for moved in [None, Some(path("DONE/x"))] {
            states.push(State::Leaving { to: to.clone(), hash: hash.clone(), moved });
        }
    }
    states.push(State::Finished { to, hash: None, action: String::new(), gone: false });
    states
}

fn looks() -> impl Iterator<Item = Look> {
    let pairs = SEEN.iter().flat_map(|a| SEEN.iter().map(move |b| (*a, *b)));
    let all: Vec<(Seen, Seen)> = pairs.collect();
    let both = all
        .clone()
        .into_iter()
        .flat_map(move |one| all.clone().into_iter().map(move |other| (one, other)));
    both.map(|((temp, last), (source, moved))| Look { temp, last, source, moved })
}

fn hash(state: &State) -> bool {
    match state {
        State::Verified { hash, .. }
        | State::Delivered { hash, .. }
        | State::Leaving { hash, .. } => hash.is_some(),
        _ => false,
    }
}

#[test]
fn s20_no_combination_touches_what_it_must_not() {
    let mut seen = 0;
    for state in states() {
        for after in AFTERS {
            for look in looks() {
                seen += 1;
                let step = next(&state, after, look);
                let at = format!("{state:?} {after:?} {look:?} -> {step:?}");
                let is_leaving = matches!(state, State::Leaving { .. });
                match step {
                    Next::RemoveSource | Next::MoveSource | Next::WriteZip => {
                        assert!(is_leaving && hash(&state), "{at}");
                        assert!(look.source == Seen::Same && after != After::Keep, "{at}");
                        match (step, after) {
                            (Next::RemoveSource, After::Delete) => {}
                            (Next::RemoveSource, After::Zip) => {
                                assert_eq!(look.moved, Seen::Same, "{at}");
                            }
                            (Next::MoveSource, After::Move | After::Delete)
                            | (Next::WriteZip, After::Zip) => {
                                assert_eq!(look.moved, Seen::Gone, "{at}");
                            }
                            _ => panic!("{at}"),
                        }
                    }
                    Next::Leave => assert!(hash(&state) && look.source == Seen::Same, "{at}"),
                    Next::Spare => {
                        assert!(hash(&state) && look.source == Seen::Same, "{at}");
                        assert!(after == After::Delete && look.last == Seen::Gone, "{at}");
                    }
                    Next::NoteDelivered => {
                        // A source that is there goes only if the copy is to be seen.
                        let goes = look.source == Seen::Same && after == After::Delete;
                        assert!(!goes || !hash(&state) || look.last == Seen::Same, "{at}");
                    }
                    Next::Publish => {
                        assert!(matches!(state, State::Verified { .. }), "{at}");
                        assert_eq!(look.temp, Seen::Same, "{at}");
                    }
                    Next::Stage { .. } => {
                        assert_eq!(look.source, Seen::Same, "{at}");
                        let torn = matches!(state, State::Verified { .. })
                            && look.last != Seen::Same
                            && (look.temp == Seen::Other || look.last == Seen::Other);
                        assert!(torn || matches!(state, State::Claimed { .. }), "{at}");
                    }
                    Next::Forget => assert!(matches!(state, State::Claimed { .. }), "{at}"),
                    Next::Finish(Left::Away) => assert_ne!(look.source, Seen::Same, "{at}"),
                    Next::Nothing => assert!(matches!(state, State::Finished { .. }), "{at}"),
                    _ => {}
                }
            }
        }
    }
    assert_eq!(seen, 10 * 4 * 81);
}

/// All that is anywhere of one file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    after: After,
    state: Option<Mark>,
    temp: Temp,
    source: bool,
    last: bool,
    /// What the recorded way out leads to.
    moved: bool,
    /// The copy survives a power cut.
    durable: bool,
    published: u8,
    taken: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Temp {
    Gone,
    Part,
    Whole,
}

/// What the ledger says; the flags are whether there is a hash, and whether the way out leads
/// somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mark {
    Claimed,
    Verified(bool),
    Delivered(bool),
    Leaving(bool, bool),
    Finished,
}

/// What happens at once or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Effect {
    RemoveTemp,
    Begin,
    Complete,
    RecordVerified,
    Rename,
    RecordDelivered,
    Prove,
    RecordLeaving,
    RecordSpared,
    MoveSource,
    RenameZip,
    RemoveSource,
    RecordFinished,
    Drop,
}

type Table = fn(&State, After, Look) -> Next;

/// A point in the life of a file: what is there, and what the run is about to do.
type Point = (World, Vec<Effect>);

impl World {
    fn new(after: After) -> World {
        World {
            after,
            state: None,
            temp: Temp::Gone,
            source: true,
            last: false,
            moved: false,
            durable: false,
            published: 0,
            taken: 0,
        }
    }

    fn line(&self) -> Option<State> {
        let hash = |proven: bool| proven.then(|| "sha256:00".to_owned());
        let (temp, to) = (path(".tmp.x"), path("x"));
        Some(match self.state? {
            Mark::Claimed => State::Claimed { temp },
            Mark::Verified(proven) => State::Verified { temp, to, hash: hash(proven) },
            Mark::Delivered(proven) => State::Delivered { to, hash: hash(proven) },
            Mark::Leaving(proven, leads) => {
                let moved = leads.then(|| path("DONE/x"));
                State::Leaving { to, hash: hash(proven), moved }
            }
            Mark::Finished => {
                State::Finished { to, hash: None, action: String::new(), gone: false }
            }
        })
    }

    fn look(&self) -> Look {
        let seen = |there| if there { Seen::Same } else { Seen::Gone };
        let temp = match self.temp {
            Temp::Gone => Seen::Gone,
            Temp::Part => Seen::Other,
            Temp::Whole => Seen::Same,
        };
        Look { temp, last: seen(self.last), source: seen(self.source), moved: seen(self.moved) }
    }

    fn plan(&self, table: Table) -> Result<Vec<Effect>, String> {
        use Effect::*;
        let Some(line) = self.line() else { return Ok(vec![]) };
        Ok(match table(&line, self.after, self.look()) {
            Next::Stage { resume: true } => vec![Begin, Complete, RecordVerified],
            Next::Stage { resume: false } => vec![RemoveTemp, Begin, Complete, RecordVerified],
            Next::Publish => vec![Rename, RecordDelivered],
            Next::NoteDelivered => vec![RecordDelivered],
            Next::Prove => vec![Prove],
            Next::Leave => vec![RecordLeaving],
            Next::Spare => vec![RecordSpared],
            Next::MoveSource => vec![MoveSource],
            Next::WriteZip => vec![RenameZip],
            Next::RemoveSource => vec![RemoveSource],
            Next::Finish(_) => vec![RecordFinished],
            Next::Forget => vec![RemoveTemp, Drop],
            Next::Ask(why) => return Err(why.to_owned()),
            Next::Nothing => vec![],
        })
    }

    fn apply(&mut self, effect: Effect) {
        let proven = match self.state {
            Some(Mark::Verified(p) | Mark::Delivered(p) | Mark::Leaving(p, _)) => p,
            _ => false,
        };
        match effect {
            Effect::RemoveTemp => {
                self.temp = Temp::Gone;
                self.state = Some(Mark::Claimed);
            }
            Effect::Begin => {
                self.temp = Temp::Part;
                self.durable = false;
            }
            Effect::Complete => {
                self.temp = Temp::Whole;
                self.durable = self.after != After::Keep;
            }
            Effect::RecordVerified => self.state = Some(Mark::Verified(self.after != After::Keep)),
            Effect::Rename => {
                self.last = self.temp == Temp::Whole;
                self.temp = Temp::Gone;
                self.published += 1;
            }
            Effect::RecordDelivered => self.state = Some(Mark::Delivered(proven)),
            Effect::Prove if self.last => {
                self.durable = true;
                self.state = Some(Mark::Delivered(true));
            }
            Effect::Prove => {}
            Effect::RecordLeaving => {
                // A free name: what has the one that was recorded before stays.
                self.moved = false;
                let leads = matches!(self.state, Some(Mark::Leaving(_, true)));
                self.state = Some(Mark::Leaving(proven, leads || self.after != After::Delete));
            }
            Effect::RecordSpared => {
                self.moved = false;
                self.state = Some(Mark::Leaving(proven, true));
            }
            Effect::MoveSource => {
                self.moved = self.source;
                self.source = false;
            }
            Effect::RenameZip => self.moved = true,
            Effect::RemoveSource => self.source = false,
            Effect::RecordFinished => self.state = Some(Mark::Finished),
            Effect::Drop => self.state = None,
        }
    }

    /// What a crash, maybe of the power, leaves; the job may have been changed meanwhile.
    fn crashed(&self) -> Vec<World> {
        let mut left = vec![self.clone()];
        if !self.durable {
            let temp = if self.temp == Temp::Gone { Temp::Gone } else { Temp::Part };
            left.push(World { temp, last: false, ..self.clone() });
        }
        let with = |world: &World| AFTERS.map(|after| World { after, ..world.clone() });
        left.iter().flat_map(with).collect()
    }

    fn check(&self) -> Result<(), &'static str> {
        let copies = self.source || self.temp == Temp::Whole || self.last || self.moved;
        match () {
            () if !copies && self.taken == 0 => Err("no whole copy is left"),
            () if self.published > 1 || self.taken > 1 => Err("it was delivered twice"),
            () => Ok(()),
        }
    }
}

/// The points after one step of the run.
fn step((world, plan): &Point, table: Table) -> Result<Option<Point>, String> {
    let (mut world, mut plan) = (world.clone(), plan.clone());
    if world.state.is_none() {
        world.state = Some(Mark::Claimed);
        return Ok(Some((world, vec![])));
    }
    if plan.is_empty() {
        plan = world.plan(table)?;
        return Ok((!plan.is_empty()).then_some((world, plan)));
    }
    world.apply(plan.remove(0));
    Ok(Some((world, plan)))
}

/// Walks to every point that steps, crashes and a consumer can lead to; from each, the run comes
/// to an end by itself. Tells how many there are, or how one went wrong.
fn explore(table: Table) -> Result<usize, String> {
    let mut from: HashMap<Point, Option<Point>> = HashMap::new();
    let mut queue: VecDeque<Point> = AFTERS.map(|after| (World::new(after), vec![])).into();
    queue.iter().for_each(|point| drop(from.insert(point.clone(), None)));
    while let Some(point) = queue.pop_front() {
        point.0.check().map_err(|why| trace(&from, &point, why))?;
        ends(&point, table).map_err(|why| trace(&from, &point, &why))?;
        let mut after: Vec<Point> = point.0.crashed().into_iter().map(|w| (w, vec![])).collect();
        after.extend(step(&point, table).map_err(|why| trace(&from, &point, &why))?);
        if point.0.last {
            let taken = point.0.taken + 1;
            after.push((World { last: false, taken, ..point.0.clone() }, point.1.clone()));
        }
        for next in after {
            if !from.contains_key(&next) {
                from.insert(next.clone(), Some(point.clone()));
                queue.push_back(next);
            }
        }
    }
    Ok(from.len())
}

fn ends(point: &Point, table: Table) -> Result<(), String> {
    let mut point = point.clone();
    for _ in 0..40 {
        match step(&point, table)? {
            Some(next) => point = next,
            None if point.0.state != Some(Mark::Finished) => return Err("it stops".to_owned()),
            None if point.0.published != 1 => {
                return Err(format!("it was delivered {} times", point.0.published));
            }
            None => return Ok(()),
        }
    }
    Err("it goes round in circles".to_owned())
}

fn trace(from: &HashMap<Point, Option<Point>>, point: &Point, why: &str) -> String {
    let mut lines = vec![why.to_owned(), format!("{point:?}")];
    let mut at = point;
    while let Some(Some(before)) = from.get(at) {
        lines.push(format!("{before:?}"));
        at = before;
    }
    lines.join("\n  after ")
}

#[test]
fn s20_every_crash_leaves_a_whole_copy_and_one_delivery() {
    let points = explore(next).unwrap_or_else(|why| panic!("{why}"));
    assert!(points > 200, "{points}");
}

#[test]
fn s20_the_walk_finds_what_wrong_tables_do() {
    let wrong: [(Table, &str); 5] = [
        (
            |state, after, look| match next(state, after, look) {
                Next::NoteDelivered => Next::Stage { resume: false },
                step => step,
            },
            "delivered 2 times",
        ),
        (
            |state, after, look| match next(state, after, look) {
                Next::Prove | Next::Finish(Left::KeptUnproven) => Next::RemoveSource,
                step => step,
            },
            "no whole copy",
        ),
        (
            |state, after, look| match next(state, after, look) {
                Next::WriteZip => Next::RemoveSource,
                Next::Publish if after == After::Zip => Next::RemoveSource,
                step => step,
            },
            "in circles",
        ),
        (
            |state, after, look| match next(state, after, look) {
                Next::Publish => Next::NoteDelivered,
                step => step,
            },
            "delivered 0 times",
        ),
        (
            |state, after, look| match next(state, after, look) {
                Next::Stage { .. } => Next::RemoveSource,
                step => step,
            },
            "",
        ),
    ];
    for (table, text) in wrong {
        let why = explore(table).unwrap_err();
        assert!(why.contains(text), "{why}");
    }
}

#[test]
fn s20_a_temp_that_a_cleaner_took_costs_no_source() {
    let lost =
        World { state: Some(Mark::Verified(true)), durable: true, ..World::new(After::Delete) };
    let mut point = (lost, vec![]);
    while let Some(next) = step(&point, next).unwrap() {
        point = next;
    }
    assert!(point.0.moved && !point.0.source, "{point:?}");
    assert_eq!((point.0.state, point.0.published), (Some(Mark::Finished), 0));
}
