//! The simulation: one sender, one receiver, a clock that only this file moves.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use fcp_proto::packet::{Outcome, RootMeta, Summary, WireError};
use fcp_proto::version::{Agreed, Hello, negotiate};
use fcp_proto::{ConnId, Digest, DirId, ErrorCode, FileId, SourceVersion, Timestamp};

use super::disk::{Disk, Handle, joined};
use super::net::{Conn, Pipe};
use super::random::{Random, mix};
use super::shells::{Broken, Inbound, Item, block_frames};
use super::source::{Body, Source, Step};
use crate::transfer::{
    Action, Config, Event, FileMeta, Placement, ReceiveEvent, Receiver, RootRule, Sender, Work,
};

/// Silence after which a shell calls a connection dead.
const IDLE: Duration = Duration::from_secs(60);
/// No run takes longer, faults included.
const DEADLINE: Duration = Duration::from_secs(1200);
const ROOT_META: (u16, Timestamp) = (0o750, Timestamp { secs: 77, nanos: 7 });

/// What goes wrong, in 10,000ths per occasion.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) conns: u32,
    pub(super) latency: Duration,
    pub(super) rate: u64,
    pub(super) window: usize,
    pub(super) max_frame: u16,
    pub(super) open_entries: u32,
    /// Bytes that one read returns at most.
    pub(super) read: usize,
    /// Longest time that a job on the disk takes; jobs overtake each other.
    pub(super) disk: Duration,
    /// Per segment.
    pub(super) lose: u64,
    /// Per segment.
    pub(super) stall: u64,
    /// One connection lives through everything.
    pub(super) keep_one: bool,
    /// All at once, at this step.
    pub(super) lose_all_at: Option<u64>,
    /// A new connection comes when one was lost.
    pub(super) reopen: bool,
    /// Per block.
    pub(super) flip_content: u64,
    /// Per piece that is sent.
    pub(super) flip_frame: u64,
    /// Per block.
    pub(super) change: u64,
    /// Per block.
    pub(super) vanish: u64,
    /// Per job.
    pub(super) disk_error: u64,
    pub(super) crash: Option<(Side, u64)>,
    /// Per journalled block, when the receiver crashes.
    pub(super) rot: u64,
    pub(super) checksum: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Sender,
    Receiver,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            conns: 3,
            latency: Duration::from_millis(20),
            rate: 20 << 20,
            window: 2 << 20,
            max_frame: 65_535,
            open_entries: 1000,
            read: usize::MAX,
            disk: Duration::from_millis(5),
            lose: 0,
            stall: 0,
            keep_one: true,
            lose_all_at: None,
            reopen: false,
            flip_content: 0,
            flip_frame: 0,
            change: 0,
            vanish: 0,
            disk_error: 0,
            crash: None,
            rot: 0,
            checksum: false,
        }
    }
}

/// Everything that outlives a session.
pub(super) struct Pair {
    pub(super) plan: Plan,
    pub(super) random: Random,
    pub(super) now: Duration,
    pub(super) source: Source,
    pub(super) disk: Disk,
    pub(super) stats: Stats,
    pub(super) trace: bool,
}

#[derive(Default, Debug)]
pub(super) struct Stats {
    pub(super) sessions: u32,
    /// Hash of everything that happened.
    pub(super) log: u64,
    /// Content bytes put into frames, in all sessions.
    pub(super) sent: u64,
    pub(super) steps: u64,
    pub(super) flips: HashMap<FileId, u8>,
    /// Entries the sender took back in the last session.
    pub(super) taken_back: u64,
    /// What the sender heard in the last session.
    pub(super) finished: Vec<(usize, SourceVersion, Outcome)>,
    pub(super) summary: Summary,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Closed,
    Dead,
}

#[derive(Debug)]
enum Job {
    Act(Action<Vec<u8>, Handle>),
    Write {
        file: FileId,
        offset: u64,
        handle: Handle,
        bytes: Vec<u8>,
        digest: Digest,
    },
    Whole {
        file: FileId,
        handle: Handle,
        meta: FileMeta,
        bytes: Vec<u8>,
    },
    /// The source is hashed.
    Hashed {
        file: FileId,
        node: usize,
        version: SourceVersion,
    },
    /// An end finds out that a connection is dead.
    Notice(ConnId, Side),
    Open,
}

struct Session<'a> {
    p: &'a mut Pair,
    sender: Sender<usize>,
    receiver: Receiver<Vec<u8>, Handle>,
    conns: Vec<Conn>,
    jobs: BTreeMap<(Duration, u64), Job>,
    walk: Vec<Step>,
    walked: bool,
    ids: HashMap<usize, DirId>,
    next_job: u64,
    next_conn: u32,
    events: Summary,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.path))
    }
}

impl Pair {
    pub(super) fn new(seed: u64, plan: Plan, source: Source) -> Pair {
        let (random, now) = (Random(seed), Duration::ZERO);
        let (disk, stats) = (Disk::default(), Stats::default());
        let trace = std::env::var_os("FCP_SEED").is_some();
        Pair { plan, random, now, source, disk, stats, trace }
    }

    /// Runs sessions until one is closed, then checks the destination.
    pub(super) fn run(&mut self) -> Summary {
        loop {
            self.stats.sessions += 1;
            assert!(self.stats.sessions < 20, "no session ever closes");
            self.stats.finished.clear();
            self.stats.flips.clear();
            self.stats.taken_back = 0;
            let end = Session::new(self).run();
            if end == End::Closed {
                self.check();
                return self.stats.summary.clone();
            }
            self.rot();
            // Faults that end a session come once.
            (self.plan.crash, self.plan.lose_all_at) = (None, None);
            self.plan.keep_one = true;
        }
    }

    /// The power failed: some of what was journalled is not what was written.
    fn rot(&mut self) {
        for temp in &self.disk.temps {
            let mut temp = temp.borrow_mut();
            for block in temp.journal.keys().copied().collect::<Vec<_>>() {
                if self.random.chance(self.plan.rot) {
                    temp.bytes[(block as usize) << 20] ^= 1;
                }
            }
        }
    }

    pub(super) fn log(&mut self, what: std::fmt::Arguments<'_>) {
        let text = format!("{:?} {what}", self.now);
        if self.trace {
            println!("{text}");
        }
        let log = &mut self.stats.log;
        text.bytes().for_each(|b| *log = (*log ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        *log = mix(*log);
    }

    /// What was reported as done is done.
    fn check(&self) {
        for (node, version, outcome) in &self.stats.finished {
            let path = self.source.path(*node);
            let (name, n) = (String::from_utf8_lossy(&path), &self.source.nodes[*node]);
            if matches!(outcome, Outcome::Failed(_)) {
                continue;
            }
            match self.disk.nodes.get(&path) {
                Some(super::disk::Node::Dir { mtime, mode }) => {
                    assert_eq!((*mtime, *mode), (n.mtime, n.mode), "directory {name}");
                }
                Some(super::disk::Node::Link { mtime, .. }) => assert_eq!(*mtime, n.mtime),
                Some(super::disk::Node::File { content, mtime, mode, .. }) => {
                    assert!(**content == **self.source.versions[&version.token], "{name}");
                    assert_eq!((*mtime, *mode), (version.mtime, n.mode), "file {name}");
                }
                None => panic!("{name} is {outcome:?} and not there"),
            }
        }
    }
}

impl<'a> Session<'a> {
    fn new(p: &'a mut Pair) -> Session<'a> {
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
            root: RootRule::Keep,
            recover: p.stats.sessions > 1,
            report: true,
            admits: None,
        };
        let mut walk = p.source.walk();
        walk.reverse();
        let mut session = Session {
            sender: Sender::new(agreed.clone()),
            receiver: Receiver::new(agreed, config, Vec::new()),
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
        (0..session.p.plan.conns).for_each(|_| session.open());
        session
    }

    fn run(mut self) -> End {
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

    fn state(&self) -> String {
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
        let timers = [self.sender.poll_timeout(now), self.receiver.poll_timeout()];
        // A time that has passed waits for room on a connection, not for the clock.
        let timers = timers.into_iter().flatten().filter(|at| *at > now);
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
        while (0..self.conns.len()).fold(false, |any, c| self.send_block(c) || any) {}
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
        let conn = &self.conns[c];
        if !conn.sender_knows || conn.to_receiver.room() == 0 {
            return false;
        }
        let Some(work) = self.sender.poll_work(conn.id, self.p.now) else { return false };
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
    fn source_is_other(&mut self, file: FileId, node: usize, version: SourceVersion) -> bool {
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

    fn handle_content(
        &mut self,
        block: fcp_proto::packet::Block,
        digest: Digest,
        whole: bool,
        bytes: Vec<u8>,
        matches: bool,
    ) -> Result<(), fcp_proto::Violation> {
        let (file, offset) = (block.file, block.offset);
        if !matches {
            self.p.log(format_args!("mismatch {block:?}"));
            return self.receiver.handle_mismatch(file, offset, block.len);
        }
        let placed = match whole {
            true => self.receiver.place_whole(file, bytes.len())?,
            false => self.receiver.place(file, offset, block.len)?,
        };
        match placed {
            Placement::Write { handle, size } => {
                assert_eq!(size, handle.version.size);
                self.later(Job::Write { file, offset, handle, bytes, digest });
            }
            Placement::Publish { handle, meta } => {
                self.later(Job::Whole { file, handle, meta, bytes });
            }
            Placement::Discard => {}
        }
        Ok(())
    }

    fn later(&mut self, job: Job) {
        let max = self.p.plan.disk.as_nanos() as u64 + 1;
        let delay = Duration::from_nanos(self.p.random.below(max));
        self.at(self.p.now + delay, job);
    }

    fn at(&mut self, at: Duration, job: Job) {
        self.jobs.insert((at, self.next_job), job);
        self.next_job += 1;
    }

    fn run_job(&mut self, job: Job) {
        self.p.log(format_args!("{}", brief(&job)));
        let fails = self.p.random.chance(self.p.plan.disk_error);
        let done = if fails { Err(WireError::new(ErrorCode::NO_SPACE, "full")) } else { Ok(()) };
        match job {
            Job::Notice(conn, side) => self.notice(conn, side),
            Job::Open => self.open(),
            Job::Hashed { file, node, version } => self.hash_source(file, node, version),
            Job::Write { file, offset, handle, bytes, digest } => {
                self.verify(&handle, offset, &bytes);
                if !fails {
                    self.p.disk.write(&handle, offset, &bytes, digest);
                }
                self.receiver.handle_written(file, offset, bytes.len() as u32, done);
            }
            Job::Whole { file, handle, meta, bytes } => {
                self.verify(&handle, 0, &bytes);
                assert_eq!(bytes.len() as u64, handle.version.size);
                if !fails {
                    self.p.disk.publish(&handle, meta, Some(&bytes));
                }
                self.receiver.handle_published(file, done);
            }
            Job::Act(action) => self.act(action, done),
        }
    }

    /// Nothing is written that is not a part of the announced version.
    fn verify(&self, handle: &Handle, offset: u64, bytes: &[u8]) {
        let content = &self.p.source.versions[&handle.version.token];
        assert!(content[offset as usize..][..bytes.len()] == *bytes, "unverified content");
    }

    fn hash_source(&mut self, file: FileId, node: usize, version: SourceVersion) {
        if self.p.random.chance(self.p.plan.change) {
            self.p.source.change(&mut self.p.random, node);
        }
        if !self.source_is_other(file, node, version) {
            let content = self.p.source.versions[&version.token].clone();
            self.sender.handle_hashed(file, &hashes(&content), self.p.now);
        }
    }

    fn act(&mut self, action: Action<Vec<u8>, Handle>, done: Result<(), WireError>) {
        let (disk, receiver, now) = (&mut self.p.disk, &mut self.receiver, self.p.now);
        match action {
            Action::MakeDir { dir, parent, name, path, mode } => {
                let full = joined(&parent, &name);
                assert_eq!(full, path.as_bytes());
                let made = done.and_then(|()| disk.make_dir(&full, mode));
                receiver.handle_dir_made(dir, made.map(|made| (full, made)));
            }
            Action::Inspect { file, parent, name, version } => {
                let found = done.map(|()| disk.inspect(&joined(&parent, &name), version));
                receiver.handle_inspected(file, found);
            }
            Action::Link { file, parent, name, target, mtime } => {
                let path = joined(&parent, &name);
                let linked = done.map(|()| disk.link(&path, target, mtime.unwrap_or_default()));
                receiver.handle_linked(file, linked);
            }
            Action::Hash { file, handle } => {
                let found = done.map(|()| hashes(disk.content(&handle.path).unwrap_or_default()));
                receiver.handle_hashed(file, found);
            }
            Action::Recover { file, handle, .. } => {
                receiver.handle_recovered(file, disk.recover(&handle));
            }
            Action::Rehash { file, handle, kept, size } => {
                let bad = disk.rehash(&handle, &kept, size);
                receiver.handle_rehashed(file, &kept, &bad);
            }
            Action::Publish { file, handle, meta } => {
                if done.is_ok() {
                    disk.publish(&handle, meta, None);
                    let published = disk.content(&handle.path).unwrap();
                    let whole = &self.p.source.versions[&handle.version.token];
                    assert!(published == whole.as_slice(), "published incomplete");
                }
                receiver.handle_published(file, done);
            }
            Action::SetMeta { file, handle, meta } => {
                if done.is_ok() {
                    disk.set_meta(&handle.path, meta);
                }
                receiver.handle_meta_set(file, done);
            }
            Action::FinishDir { dir, handle, meta } => {
                if done.is_ok() {
                    disk.set_meta(&handle, meta);
                }
                receiver.handle_dir_finished(dir, done);
            }
            Action::Finish { meta } => {
                let meta = meta.unwrap();
                assert_eq!((meta.mode, meta.mtime), (Some(ROOT_META.0), Some(ROOT_META.1)));
                receiver.handle_finished(now);
            }
            Action::Discard { .. } => unreachable!("done at once"),
        }
    }

    /// The receiver has lost its peer: what is under way on the disk ends.
    fn drain_disk(&mut self) {
        while let Some((_, job)) = self.jobs.pop_first() {
            if !matches!(job, Job::Notice(..) | Job::Open | Job::Hashed { .. }) {
                self.run_job(job);
            }
        }
    }

    fn open(&mut self) {
        let (plan, random) = (&self.p.plan, &mut self.p.random);
        let id = ConnId(self.next_conn);
        let latency = plan.latency.mul_f64(1.0 + random.below(100) as f64 / 100.0);
        let pipe = |rate: u64| Pipe::new(latency, rate, plan.window);
        let rate = plan.rate / (1 + random.below(4));
        self.conns.push(Conn {
            id,
            to_receiver: pipe(rate),
            to_sender: pipe(rate),
            moves: true,
            sender_knows: true,
            receiver_knows: true,
            immune: plan.keep_one && self.next_conn + 1 == plan.conns,
            at_receiver: Inbound::default(),
            at_sender: Inbound::default(),
        });
        self.next_conn += 1;
        self.sender.handle_conn_opened(id);
        self.receiver.handle_conn_opened(id);
    }

    /// Both ends find out, not at the same time.
    fn cut(&mut self, c: usize) {
        let conn = &mut self.conns[c];
        if !std::mem::replace(&mut conn.moves, false) {
            return;
        }
        let id = conn.id;
        self.p.log(format_args!("{id:?} is cut"));
        for side in [Side::Sender, Side::Receiver] {
            let delay = Duration::from_micros(self.p.random.below(300_000));
            self.at(self.p.now + delay, Job::Notice(id, side));
        }
        if self.p.plan.reopen {
            let delay = Duration::from_micros(self.p.random.below(3_000_000));
            self.at(self.p.now + delay, Job::Open);
        }
    }

    fn stall(&mut self, c: usize) {
        let id = self.conns[c].id;
        self.conns[c].moves = false;
        self.p.log(format_args!("{id:?} is stalled"));
        self.at(self.p.now + IDLE, Job::Notice(id, Side::Sender));
        self.at(self.p.now + IDLE, Job::Notice(id, Side::Receiver));
    }

    fn notice(&mut self, conn: ConnId, side: Side) {
        let c = &mut self.conns[conn.0 as usize];
        match side {
            Side::Sender => {
                c.sender_knows = false;
                self.sender.handle_conn_lost(conn);
            }
            Side::Receiver => {
                c.receiver_knows = false;
                self.receiver.handle_conn_lost(conn);
            }
        }
    }
}

fn hashes(content: &[u8]) -> Vec<[u8; 32]> {
    content.chunks(1 << 20).map(|block| *blake3::hash(block).as_bytes()).collect()
}

fn brief(job: &Job) -> String {
    match job {
        Job::Write { file, offset, .. } => format!("write {file:?} {offset}"),
        Job::Whole { file, .. } => format!("whole {file:?}"),
        job => format!("{job:?}"),
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
