//! Random sequences of messages, content and answers of the disk, against each machine.

use std::collections::{BTreeMap, BTreeSet};

use fcp_proto::limits::BLOCK;
use fcp_proto::packet::{Entry, FileResult, Message, Outcome, Problem, Summary, Want, Written};
use fcp_proto::{Digest, DirId, FileId, Timestamp, Violation};
use proptest::prelude::*;

use super::hostile::{
    CONN, MTIME, NOW, Victim, below, config, dir, error, file, finish, hashes, link, sender, tell,
};
use super::random::Random;
use crate::transfer::RootRule;
use crate::transfer::{Action, Config, Event, Existing, MadeDir, Placement, Receiver};

fn size(random: &mut Random) -> u64 {
    [0, 1, 5, BLOCK - 1, BLOCK, 2 * BLOCK + 5][random.below(6) as usize]
}

fn some_entry(random: &mut Random, next: u32) -> Entry {
    let id = if random.chance(9000) { next } else { random.below(12) as u32 };
    let e = match random.below(4) {
        0 => dir(id),
        1 => link(id),
        _ => file(id, size(random)),
    };
    let parent = if random.chance(5000) { DirId::ROOT.0 } else { random.below(6) as u32 };
    below(parent, e)
}

fn some_message(random: &mut Random, next: u32) -> Message {
    let id = FileId(random.below(10) as u32);
    let range = || 0..BLOCK;
    match random.below(30) {
        0..10 => Message::Entries(vec![some_entry(random, next)]),
        10..14 => Message::DirsEnd(vec![DirId(id.0)]),
        14..16 => hashes(id.0, 0, 1 + random.below(3) as usize),
        16..19 => Message::Replaced(id, some_entry(random, next)),
        19..21 => Message::Gone(id, error()),
        21 => finish(),
        22 => Message::Want(vec![Want { file: id, ranges: vec![range()] }]),
        23 => Message::Want(vec![Want { file: id, ranges: vec![] }]),
        24 => Message::Written(vec![Written { file: id, offset: 0 }]),
        25 | 26 => Message::Results(vec![FileResult { file: id, outcome: Outcome::Same }]),
        27 => Message::DigestsWanted(vec![id]),
        28 => Message::Problem(Problem { path: vec![27], error: error() }),
        _ => Message::Close(Summary::default()),
    }
}

/// The disk as a hostile sequence meets it: each action is answered, late, early or with errors.
struct Disk {
    sizes: BTreeMap<u32, u64>,
    /// Blocks that are there and right.
    there: BTreeMap<u32, BTreeSet<u64>>,
    actions: Vec<Action<(), u32>>,
    writes: Vec<(FileId, u64, u32)>,
    wholes: Vec<FileId>,
}

impl Disk {
    fn collect(&mut self, r: &mut Receiver<(), u32>) {
        while let Some(action) = r.poll_action() {
            if let Action::Publish { file, .. } = &action {
                let size = self.sizes[&file.0];
                let there = self.there.get(&file.0).map_or(0, BTreeSet::len) as u64;
                assert_eq!(there, size.div_ceil(BLOCK), "published incomplete");
            }
            self.actions.push(action);
        }
    }

    fn write(&mut self, r: &mut Receiver<(), u32>, random: &mut Random) {
        if self.writes.is_empty() {
            return;
        }
        let at = random.below(self.writes.len() as u64) as usize;
        let (file, offset, len) = self.writes.swap_remove(at);
        let done = if random.chance(500) { Err(error()) } else { Ok(()) };
        if done.is_ok() {
            self.there.entry(file.0).or_default().insert(offset / BLOCK);
        }
        r.handle_written(file, offset, len, done);
    }

    fn act(&mut self, r: &mut Receiver<(), u32>, random: &mut Random) {
        if self.actions.is_empty() {
            return;
        }
        let action = self.actions.swap_remove(random.below(self.actions.len() as u64) as usize);
        let done = if random.chance(500) { Err(error()) } else { Ok(()) };
        match action {
            Action::OpenRoot { .. } => {}
            Action::MakeDir { dir, mode, .. } => {
                let (created, widened) = (random.chance(5000), random.chance(1000));
                let made = MadeDir { created, mode, mtime: MTIME, widened };
                r.handle_dir_made(dir, done.map(|()| ((), made)));
            }
            Action::Inspect { file, version, .. } => {
                self.sizes.insert(file.0, version.size);
                let (size, mode) = (version.size, 0o644);
                let existing = [
                    Existing::Absent,
                    Existing::File { size, mtime: MTIME, mode },
                    Existing::File { size, mtime: Timestamp::default(), mode },
                    Existing::Symlink { same: false, mtime: MTIME },
                    Existing::Special,
                    Existing::Dir,
                ];
                let existing = existing[random.below(6) as usize];
                r.handle_inspected(file, done.map(|()| (existing, file.0)));
            }
            Action::Link { file, .. } => r.handle_linked(file, done.map(|()| Outcome::Created)),
            Action::Hash { file, .. } => {
                let blocks = self.sizes[&file.0].div_ceil(BLOCK) as usize;
                r.handle_hashed(file, done.map(|()| vec![[random.below(2) as u8; 32]; blocks]));
            }
            Action::Recover { file, .. } => {
                let blocks = self.sizes[&file.0].div_ceil(BLOCK) as u32;
                let kept = (0..blocks + 1).filter(|_| random.chance(5000));
                r.handle_recovered(file, kept.map(|n| (n, Digest([0; 16]))).collect());
            }
            Action::Rehash { file, kept, .. } => {
                let (bad, good): (Vec<u32>, Vec<u32>) =
                    kept.iter().map(|(n, _)| *n).partition(|_| random.chance(3000));
                self.there.entry(file.0).or_default().extend(good.into_iter().map(u64::from));
                r.handle_rehashed(file, &kept, &bad);
            }
            Action::Publish { file, .. } => r.handle_published(file, done),
            Action::SetMeta { file, .. } => r.handle_meta_set(file, done),
            Action::FinishDir { dir, .. } => r.handle_dir_finished(dir, done),
            Action::Discard { .. } => {}
            Action::Finish { .. } => r.handle_finished(NOW),
        }
    }

    fn content(&mut self, r: &mut Receiver<(), u32>, random: &mut Random) -> Result<(), Violation> {
        let file = FileId(random.below(10) as u32);
        let size = self.sizes.get(&file.0).copied().unwrap_or(5);
        let offset = BLOCK * random.below(3);
        let fits = BLOCK.min(size.saturating_sub(offset)).max(1) as u32;
        let len = if random.chance(9500) { fits } else { 1 + random.below(BLOCK) as u32 };
        match random.below(4) {
            0 => return r.handle_mismatch(file, offset, len),
            1 => {
                let placed = r.place_whole(file, size as usize)?;
                if matches!(placed, Placement::Publish { .. }) {
                    self.wholes.push(file);
                }
            }
            _ => {
                if let Placement::Write { size: whole, .. } = r.place(file, offset, len)? {
                    assert!(offset + u64::from(len) <= whole);
                    assert!(!self.writes.contains(&(file, offset, len)), "written twice at once");
                    self.writes.push((file, offset, len));
                }
            }
        }
        if random.chance(5000)
            && let Some(file) = self.wholes.pop()
        {
            r.handle_published(file, Ok(()));
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn a_receiver_survives_everything(
        ops in prop::collection::vec(any::<u64>(), 1..120),
        recover: bool, checksum: bool, dry_run: bool,
    ) {
        let config = Config { checksum, dry_run, ..config() };
        let mut v = Victim::with_root(config, RootRule::Keep, recover);
        let mut disk = Disk {
            sizes: BTreeMap::new(),
            there: BTreeMap::new(),
            actions: Vec::new(),
            writes: Vec::new(),
            wholes: Vec::new(),
        };
        let mut next = 0;
        for op in ops {
            let random = &mut Random(op);
            match random.below(10) {
                0..4 => {
                    let message = some_message(random, next);
                    next += matches!(message, Message::Entries(_) | Message::Replaced(..)) as u32;
                    // A real shell ends here; going on finds more.
                    let _refused = v.hear(message);
                }
                4..6 => disk.act(&mut v.r, random),
                6 => disk.write(&mut v.r, random),
                7 => {
                    v.r.poll_transmit(CONN, NOW, usize::MAX, &mut Vec::new());
                    while v.r.poll_event().is_some() {}
                }
                _ => {
                    let _refused = disk.content(&mut v.r, random);
                }
            }
            disk.collect(&mut v.r);
        }
    }

    #[test]
    fn a_sender_survives_everything(ops in prop::collection::vec(any::<u64>(), 1..120)) {
        let (mut s, mut seq) = sender();
        for op in ops {
            let random = &mut Random(op);
            let id = FileId(random.below(10) as u32);
            match random.below(12) {
                0..5 => {
                    let _refused = tell(&mut s, seq, some_message(random, 20));
                    seq += 1;
                }
                5 => { s.handle_entry((), |id| file(id.0, size(random))); }
                6 => while let Some(event) = s.poll_event() {
                    if let Event::Hash { file, version, .. } = event {
                        let n = version.size.div_ceil(BLOCK) as usize;
                        s.handle_hashed(file, &vec![[0; 32]; n], NOW);
                    }
                },
                7 => s.handle_source_changed(id, |e| e.mtime.secs += 1, NOW),
                8 => s.handle_source_failed(id, error(), NOW),
                9 => s.poll_transmit(CONN, NOW, usize::MAX, &mut Vec::new()),
                10 => {
                    let _refused = s.handle_ack(random.below(30) as u32, NOW);
                }
                _ => while let Some(work) = s.poll_work(CONN, NOW) {
                    let end = work.block.offset + u64::from(work.block.len);
                    prop_assert!(end <= work.version.size && work.block.len > 0);
                },
            }
        }
    }
}
