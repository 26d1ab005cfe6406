//! One session: a sender and a receiver, and a clock that only this file moves.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use fcp_proto::packet::{Outcome, RootMeta, Summary, WireError};
use fcp_proto::version::{Agreed, Hello, negotiate};
use fcp_proto::{DirId, ErrorCode, FileId, SourceVersion, Timestamp};

use super::disk::Handle;
use super::jobs::Job;
use super::net::Conn;
use super::pair::Pair;
use super::plan::Side;
use super::random::Random;
use super::shells::{Broken, Item, block_frames};
use super::source::{Body, Step};
use crate::transfer::{Action, Config, Event, Help, ReceiveEvent, Receiver, Sender, Work};

/// No session takes longer, faults included.
const DEADLINE: Duration = Duration::from_secs(1200);
pub(super) const ROOT_META: (u16, Timestamp) = (0o750, Timestamp { secs: 77, nanos: 7 });

#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Dead,
}

pub(super) struct Session<'a> {
    pub(super) p: &'a mut Pair,
    pub(super) sender: Sender<usize>,
    pub(super) receiver: Receiver<Vec<u8>, Handle>,
    pub(super) conns: Vec<Conn>,
    pub(super) jobs: BTreeMap<(Duration, u64), Job>,
    pub(super) walk: Vec<Step>,
    pub(super) walked: bool,
    pub(super) ids: HashMap<usize, DirId>,
    pub(super) next_job: u64,
    pub(super) next_conn: u32,
    pub(super) events: Summary,
}

impl<'a> Session<'a> {
    pub(super) fn new(p: &'a mut Pair) -> Session<'a> {
        let mut hello = Hello::ours(8);
        (hello.max_frame, hello.open_entries) = (p.plan.max_frame, p.plan.open_entries);
        let agreed: Agreed = negotiate(&hello, &hello).unwrap();
        let config = Config {
            checksum: p.plan.checksum,
            dry_run: false,
            perms: true,
            times: true,
            links: true,
            umask: 0o022,
            one_thing: false,
            report: true,
            admits: None,
            root_meta: crate::transfer::RootMetaRule::Take,
        };
        let mut walk = p.source.walk();
        walk.reverse();
        let mut session = Session {
            sender: Sender::new(agreed.clone()),
            receiver: Receiver::new(agreed, config),
            conns: Vec::new(),
            jobs: BTreeMap::new(),
            walk,
            walked: false,
            ids: HashMap::new(),
            next_job: 0,
            next_conn: 0,
            events: Summary::default(),
            p,
        };
        session.join();
        session
    }

    fn join(&mut self) {
        let (conns, join_at) = (self.p.plan.conns, self.p.plan.join_at);
        for conn in 0..conns {
            match conn > 0 && !join_at.is_zero() {
                true => self.at(self.p.now + join_at, Job::Open),
                false => self.open(),
            }
        }
        if let Some(hold) = self.p.plan.spare {
            let help = [Help::Never, Help::Alone, Help::BesideYoung][self.p.plan.help];
            self.sender.handle_spare(self.conns[0].id, self.p.now + hold, help);
        }
    }

    pub(super) fn run(mut self) -> End {
        let deadline = self.p.now + DEADLINE;
        loop {
            self.p.stats.steps += 1;
            let step = self.p.stats.steps;
            if let Some((side, at)) = self.p.plan.crash
                && step >= at
            {
                self.p.log(format_args!("crash of {side:?}"));
                if side == Side::Sender {
                    self.drain_disk();
                }
                return End::Dead;
            }
            if self.p.plan.lose_all_at.is_some_and(|at| step >= at) {
                self.p.plan.lose_all_at = None;
                (0..self.conns.len()).for_each(|c| self.cut(c));
            }
            self.pump();
            if self.sender.closed().is_some() {
                return self.close();
            }
            let opening = self.jobs.values().any(|job| matches!(job, Job::Open));
            if !opening && !self.conns.iter().any(Conn::is_known) {
                self.p.log(format_args!("every connection is lost"));
                self.drain_disk();
                return End::Dead;
            }
            let Some(at) = self.next_at() else { panic!("nothing will ever happen") };
            self.p.now = self.p.now.max(at);
            assert!(self.p.now < deadline, "too late: {}", self.state());
            assert!(step < 3_000_000, "too many steps: {}", self.state());
            self.advance();
        }
    }

    pub(super) fn state(&self) -> String {
        let (s, r) = (&self.sender, &self.receiver);
        format!("sender {:?} {:?}, receiver {:?}", s.load(), s.poll_timeout(self.p.now), r.load())
    }

    fn close(mut self) -> End {
        let summary = self.sender.closed().cloned().unwrap();
        self.p.log(format_args!("closed {summary:?}"));
        while let Some(event) = self.sender.poll_event() {
            self.handle_event(event);
        }
        assert_eq!(self.sender.load(), (0, 0), "the sender ends empty");
        assert_eq!(self.receiver.load(), (0, 0), "the receiver ends empty");
        assert_eq!(&summary, self.receiver.summary());
        let told = &self.events;
        assert_eq!(
            (told.changed, told.same, told.failed),
            (summary.changed, summary.same, summary.failed),
            "the events say what the summary says"
        );
        self.p.stats.summary = summary;
        End::Closed
    }

    fn next_at(&self) -> Option<Duration> {
        let now = self.p.now;
        let nets = self.conns.iter().filter_map(Conn::next_at);
        let jobs = self.jobs.keys().next().map(|(at, _)| *at);
        let timers = [self.sender.poll_timeout(now), self.receiver.poll_timeout(now)];
        let timers = timers.into_iter().flatten();
        let timers = timers.inspect(|at| assert!(*at > now, "a shell would spin on this timer"));
        nets.chain(jobs).chain(timers).min()
    }

    fn advance(&mut self) {
        let now = self.p.now;
        while let Some(job) = self.jobs.first_entry().filter(|e| e.key().0 <= now) {
            let job = job.remove();
            self.run_job(job);
        }
        for c in 0..self.conns.len() {
            self.deliver(c);
        }
        self.sender.handle_timeout(now);
        self.receiver.handle_timeout(now);
    }

    /// Everything that both ends can do now.
    fn pump(&mut self) {
        self.walk_on();
        while let Some(event) = self.sender.poll_event() {
            self.handle_event(event);
        }
        while let Some(action) = self.receiver.poll_action() {
            match action {
                // Unanswered, so the shell does it at once.
                Action::Discard { handle } => self.p.disk.discard(&handle),
                action => self.later(Job::Act(action)),
            }
        }
        while let Some(event) = self.receiver.poll_event() {
            let ReceiveEvent::Finished { outcome, .. } = event else { continue };
            match outcome {
                Outcome::Same => self.events.same += 1,
                Outcome::Failed(_) => self.events.failed += 1,
                _ => self.events.changed += 1,
            }
        }
        (0..self.conns.len()).for_each(|c| self.send_messages(c));
        let mut sent = true;
        while std::mem::take(&mut sent) {
            (0..self.conns.len()).for_each(|c| sent |= self.send_block(c));
        }
        let (files, metadata) = self.receiver.load();
        assert!(files <= self.p.plan.open_entries as usize + 4096);
        assert!(metadata <= fcp_proto::limits::MAX_OPEN_METADATA);
    }

    fn walk_on(&mut self) {
        for _ in 0..1 + self.p.random.below(20) {
            if self.sender.is_full() {
                return;
            }
            match self.walk.pop() {
                Some(Step::Announce(node)) => self.announce(node),
                Some(Step::End(node)) => self.sender.handle_dir_end(self.ids[&node]),
                None if !self.walked => {
                    self.walked = true;
                    self.sender.handle_walked(RootMeta(Some(ROOT_META)));
                }
                None => {}
            }
        }
    }

    fn announce(&mut self, node: usize) {
        let source = &self.p.source;
        if matches!(source.nodes[node].body, Body::Vanished) {
            return;
        }
        let parent = source.nodes[node].parent.map_or(DirId::ROOT, |parent| self.ids[&parent]);
        let id = self.sender.handle_entry(node, |id| source.entry(node, id, parent));
        self.ids.insert(node, id.into());
    }

    fn handle_event(&mut self, event: Event<usize>) {
        match event {
            Event::Finished { source, entry, outcome } => {
                self.p.log(format_args!("finished {:?} {source} {outcome:?}", entry.id));
                self.p.stats.finished.push((source, entry.version(), outcome));
            }
            Event::Hash { file, version, source } => {
                self.later(Job::Hashed { file, node: source, version });
            }
        }
    }

    fn send_messages(&mut self, c: usize) {
        let (now, conn) = (self.p.now, &mut self.conns[c]);
        if conn.sender_knows && conn.to_receiver.room() > 0 {
            let mut out = Vec::new();
            self.sender.poll_transmit(conn.id, now, conn.to_receiver.room(), &mut out);
            self.put(c, Side::Receiver, out);
        }
        let conn = &mut self.conns[c];
        if conn.receiver_knows && conn.to_sender.room() > 0 {
            let mut out = Vec::new();
            self.receiver.poll_transmit(conn.id, now, conn.to_sender.room(), &mut out);
            self.put(c, Side::Sender, out);
        }
    }

    fn send_block(&mut self, c: usize) -> bool {
        let known = &self.conns[c];
        let conn = known.id;
        if !known.sender_knows || known.to_receiver.room() == 0 {
            return false;
        }
        let Some(work) = self.sender.poll_work(conn, self.p.now) else { return false };
        let Work { block, whole, version, source: node } = work;
        self.p.log(format_args!("send {block:?} over {c}"));
        if self.p.random.chance(self.p.plan.change) {
            self.p.source.change(&mut self.p.random, node);
        }
        if self.p.random.chance(self.p.plan.vanish) {
            self.p.source.nodes[node].body = Body::Vanished;
        }
        if self.source_is_other(block.file, node, version) {
            return true;
        }
        let content = self.p.source.versions[&version.token].clone();
        let bytes = &content[block.offset as usize..][..block.len as usize];
        self.p.stats.sent += u64::from(block.len);
        *self.p.stats.sent_over.entry(conn.0).or_default() += u64::from(block.len);
        let mut flip = None;
        if self.p.random.chance(self.p.plan.flip_content) {
            let flips = self.p.stats.flips.entry(block.file).or_default();
            *flips += 1;
            flip = Some(self.p.random.below(block.len.into()) as usize);
        }
        let mut out = Vec::new();
        block_frames(block, whole, bytes, self.p.plan.max_frame.into(), flip, &mut out);
        self.put(c, Side::Receiver, out);
        true
    }

    /// Tells the sender when a file is not what was announced.
    pub(super) fn source_is_other(
        &mut self,
        file: FileId,
        node: usize,
        version: SourceVersion,
    ) -> bool {
        let (now, source) = (self.p.now, &self.p.source);
        match source.current(node) {
            Some(current) if current == version => return false,
            Some(_) => {
                self.p.stats.taken_back += 1;
                self.sender.handle_source_changed(
                    file,
                    |e| *e = source.entry(node, e.id, e.parent),
                    now,
                );
            }
            None => {
                self.p.stats.taken_back += 1;
                let error = WireError::new(ErrorCode::VANISHED, "gone");
                self.sender.handle_source_failed(file, error, now);
            }
        }
        self.p.log(format_args!("{file:?} is another"));
        true
    }

    fn put(&mut self, c: usize, to: Side, mut bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        if self.p.random.chance(self.p.plan.flip_frame) && !self.conns[c].immune {
            flip_payload(&mut bytes, &mut self.p.random);
        }
        let conn = &mut self.conns[c];
        let pipe = if to == Side::Receiver { &mut conn.to_receiver } else { &mut conn.to_sender };
        pipe.send(self.p.now, bytes);
    }

    fn deliver(&mut self, c: usize) {
        let now = self.p.now;
        for to in [Side::Receiver, Side::Sender] {
            let conn = &mut self.conns[c];
            if !conn.moves {
                return;
            }
            let pipe =
                if to == Side::Receiver { &mut conn.to_receiver } else { &mut conn.to_sender };
            let Some(bytes) = pipe.take(now) else { continue };
            let immune = conn.immune;
            self.p.log(format_args!("{} bytes to {to:?} over {c}", bytes.len()));
            if !immune && self.p.random.chance(self.p.plan.stall) {
                self.stall(c);
            } else if !immune && self.p.random.chance(self.p.plan.lose) {
                let some = self.p.random.below(bytes.len() as u64 + 1) as usize;
                self.feed(c, to, &bytes[..some]);
                self.cut(c);
            } else {
                self.feed(c, to, &bytes);
            }
        }
    }

    fn feed(&mut self, c: usize, to: Side, bytes: &[u8]) {
        for bytes in bytes.chunks(self.p.plan.read) {
            let conn = &mut self.conns[c];
            let (knows, inbound) = match to {
                Side::Receiver => (conn.receiver_knows, &mut conn.at_receiver),
                Side::Sender => (conn.sender_knows, &mut conn.at_sender),
            };
            if !knows {
                return;
            }
            let mut items = Vec::new();
            let fed = inbound.feed(bytes, &mut items);
            items.into_iter().for_each(|item| self.handle_item(to, item));
            match fed {
                Ok(()) => {}
                Err(Broken::Checksum) => return self.cut(c),
                Err(Broken::Violation(v)) => panic!("{to:?} blames an honest peer: {v}"),
            }
        }
    }

    fn handle_item(&mut self, to: Side, item: Item) {
        let now = self.p.now;
        let done = match (to, item) {
            (Side::Receiver, Item::Ack(next)) => self.receiver.handle_ack(next, now),
            (Side::Sender, Item::Ack(next)) => self.sender.handle_ack(next, now),
            (Side::Receiver, Item::Message(m, len)) => {
                self.p.log(format_args!("-> {m:?}"));
                self.receiver.handle_message(m, len, now)
            }
            (Side::Sender, Item::Message(m, len)) => {
                self.p.log(format_args!("<- {m:?}"));
                self.sender.handle_message(m, len, now)
            }
            (Side::Sender, Item::Content { .. }) => panic!("content for the sender"),
            (Side::Receiver, Item::Content { block, digest, whole, bytes, matches }) => {
                self.handle_content(block, digest, whole, bytes, matches)
            }
        };
        if let Err(v) = done {
            panic!("{to:?} blames an honest peer: {v}; {}", self.state());
        }
    }
}

/// Damages a byte of the first frame's payload or checksum. Its flag and length have no checksum
/// of their own: that is the published frame.
fn flip_payload(bytes: &mut [u8], random: &mut Random) {
    let len = usize::from(u16::from_be_bytes([bytes[5], bytes[6]]));
    let at = match random.below(2) {
        0 if len > 0 => 7 + random.below(len as u64) as usize,
        _ => 1 + random.below(4) as usize,
    };
    bytes[at] ^= 1 << random.below(8);
}
