//! Messages and content in every wrong state: a Violation, never a panic.

use std::time::Duration;

use crate::transfer::{
    Action, Config, Existing, MadeDir, Placement, Receiver, RootMetaRule, RootRule, Sender,
};
use fcp_proto::limits::BLOCK;
use fcp_proto::packet::{
    Entry, EntryBody, FileDigests, FileResult, Message, Outcome, Problem, RootMeta, Sequenced,
    Summary, Want, WireError, Written,
};
use fcp_proto::version::{Hello, negotiate};
use fcp_proto::{ConnId, DirId, ErrorCode, FileId, Name, RelPath, Timestamp, Violation};

pub(super) const NOW: Duration = Duration::ZERO;
pub(super) const CONN: ConnId = ConnId(0);
pub(super) const MTIME: Timestamp = Timestamp { secs: 1, nanos: 2 };

pub(super) fn config() -> Config {
    Config {
        checksum: false,
        dry_run: false,
        perms: true,
        times: true,
        links: true,
        umask: 0,
        one_thing: false,
        report: true,
        admits: None,
        root_meta: crate::transfer::RootMetaRule::Take,
    }
}

pub(super) struct Victim {
    pub(super) r: Receiver<(), u32>,
    seq: u32,
}

impl Victim {
    pub(super) fn new(config: Config) -> Victim {
        Victim::with_root(config, RootRule::Keep, false)
    }

    pub(super) fn with_root(config: Config, rule: RootRule, recover: bool) -> Victim {
        let hello = Hello::ours(4);
        let mut r = Receiver::new(negotiate(&hello, &hello).unwrap(), config);
        r.handle_conn_opened(CONN);
        r.handle_root_opened((), rule, recover);
        Victim { r, seq: 0 }
    }

    pub(super) fn hear(&mut self, message: Message) -> Result<(), Violation> {
        self.seq += 1;
        let payload = message.to_payload(self.seq - 1);
        // What cannot be read is refused as well, one layer below.
        let m = Sequenced::from_payload(message.flag(), &payload)?;
        self.r.handle_message(m, payload.len(), NOW)
    }

    /// Does what the machine says; everything is new and works. Returns the actions' names.
    fn obey(&mut self) -> Vec<String> {
        let mut done = Vec::new();
        while let Some(action) = self.r.poll_action() {
            done.push(format!("{action:?}").split([' ', '(']).next().unwrap().to_owned());
            match action {
                Action::MakeDir { dir, mode, .. } => {
                    let made = MadeDir { created: true, mode, mtime: MTIME, widened: false };
                    self.r.handle_dir_made(dir, Ok(((), made)));
                }
                Action::Inspect { file, .. } => {
                    self.r.handle_inspected(file, Ok((Existing::Absent, file.0)));
                }
                Action::Link { file, .. } => self.r.handle_linked(file, Ok(Outcome::Created)),
                Action::Publish { file, .. } => self.r.handle_published(file, Ok(())),
                Action::FinishDir { dir, .. } => self.r.handle_dir_finished(dir, Ok(())),
                Action::Finish { .. } => self.r.handle_finished(NOW),
                _ => {}
            }
        }
        done
    }
}

pub(super) fn entry(id: u32, parent: DirId, body: EntryBody) -> Entry {
    let name = Name::new(format!("n{id}").as_bytes()).unwrap();
    Entry { id: FileId(id), parent, name, mode: 0o644, mtime: MTIME, body }
}

pub(super) fn file(id: u32, size: u64) -> Entry {
    entry(id, DirId::ROOT, EntryBody::File { size, token: 1 })
}

pub(super) fn dir(id: u32) -> Entry {
    entry(id, DirId::ROOT, EntryBody::Dir)
}

pub(super) fn link(id: u32) -> Entry {
    entry(id, DirId::ROOT, EntryBody::Symlink { target: b"x"[..].into() })
}

pub(super) fn below(parent: u32, mut e: Entry) -> Entry {
    e.parent = DirId(parent);
    e
}

pub(super) fn error() -> WireError {
    WireError::new(ErrorCode::IO, "\u{1b}[2J")
}

pub(super) fn finish() -> Message {
    Message::Finish(RootMeta(None))
}

pub(super) fn hashes(file: u32, first: u32, n: usize) -> Message {
    Message::Digests(FileDigests { file: FileId(file), first, hashes: vec![[0; 32]; n] })
}

/// All but the last message are right (and what they ask for is done); the last is a violation.
fn refused_by_receiver(config: impl Fn() -> Config, cases: Vec<(&str, Vec<Message>)>) {
    for (case, mut messages) in cases {
        let mut victim = Victim::new(config());
        let last = messages.pop().unwrap();
        for message in messages {
            victim.hear(message).unwrap_or_else(|v| panic!("{case}: too early: {v}"));
            victim.obey();
        }
        assert!(victim.hear(last).is_err(), "{case}");
    }
}

#[test]
fn w09_ids_are_used_once_and_in_order() {
    let one = |e| Message::Entries(vec![e]);
    refused_by_receiver(
        config,
        vec![
            ("same id, same content", vec![one(file(0, 5)), one(file(0, 5))]),
            ("same id, in one message", vec![Message::Entries(vec![file(0, 5), file(0, 6)])]),
            ("a directory with a file's id", vec![one(file(3, 5)), one(dir(3))]),
            ("after a sparse one", vec![one(file(u32::MAX - 1, 5)), one(file(7, 5))]),
            ("the root's number", vec![one(file(u32::MAX, 5))]),
            ("id of a finished link", vec![one(link(0)), one(link(0))]),
        ],
    );
}

#[test]
fn announcements_out_of_place_are_violations() {
    let one = |e| Message::Entries(vec![e]);
    let end = |id| Message::DirsEnd(vec![DirId(id)]);
    let gone = |id| Message::Gone(FileId(id), error());
    let replaced = |id, e| Message::Replaced(FileId(id), e);
    refused_by_receiver(
        config,
        vec![
            ("unknown directory", vec![one(below(9, file(10, 1)))]),
            ("a file as directory", vec![one(file(0, 1)), one(below(0, file(1, 1)))]),
            ("its own child", vec![one(below(0, dir(0)))]),
            (
                "after its end",
                vec![
                    Message::Entries(vec![dir(0), below(0, file(1, 1))]),
                    end(0),
                    one(below(0, file(2, 1))),
                ],
            ),
            (
                "a directory ends twice",
                vec![Message::Entries(vec![dir(0), below(0, file(1, 1))]), end(0), end(0)],
            ),
            ("a finished directory ends", vec![one(dir(0)), end(0), end(0)]),
            ("an unknown directory ends", vec![end(4)]),
            ("a file ends", vec![one(file(0, 1)), end(0)]),
            ("gone, never announced", vec![gone(0)]),
            ("replaced, never announced", vec![replaced(0, file(1, 1))]),
            (
                "replaced by an old id",
                vec![Message::Entries(vec![file(0, 1), file(1, 1)]), replaced(0, file(1, 1))],
            ),
            (
                "replaced elsewhere",
                vec![Message::Entries(vec![dir(0), file(1, 1)]), replaced(1, below(0, file(2, 1)))],
            ),
            ("replaced by a link", vec![one(file(0, 1)), replaced(0, link(1))]),
            ("hashes nobody asked for", vec![one(file(0, BLOCK)), hashes(0, 0, 1)]),
            ("hashes of the unknown", vec![hashes(0, 0, 1)]),
            ("w16: finish twice", vec![one(file(0, 1)), finish(), finish()]),
            ("w16: finish inside a directory", vec![one(dir(0)), finish()]),
            ("w16: entries after finish", vec![one(file(0, 1)), finish(), one(file(1, 1))]),
            ("the root ends by DIRS_END, not by FINISH", vec![Message::DirsEnd(vec![DirId::ROOT])]),
        ],
    );
}

#[test]
fn each_end_refuses_what_only_it_may_say() {
    let results = Message::Results(vec![]);
    refused_by_receiver(
        config,
        vec![
            ("want", vec![Message::Want(vec![])]),
            ("results", vec![results]),
            ("written", vec![Message::Written(vec![])]),
            ("digests wanted", vec![Message::DigestsWanted(vec![])]),
            ("close", vec![Message::Close(Summary::default())]),
        ],
    );
    let problem = Problem { path: b"x".to_vec(), error: error() };
    refused_by_sender(vec![
        ("entries", Message::Entries(vec![])),
        ("dirs end", Message::DirsEnd(vec![])),
        ("digests", hashes(0, 0, 1)),
        ("problem", Message::Problem(problem)),
        ("replaced", Message::Replaced(FileId(0), file(9, 1))),
        ("gone", Message::Gone(FileId(0), error())),
        ("finish", finish()),
        ("w16: close before finish", Message::Close(Summary::default())),
    ]);
}

#[test]
fn p11_more_or_other_than_was_asked_for_is_a_violation() {
    let single = || Config { one_thing: true, ..config() };
    let one = |e| Message::Entries(vec![e]);
    refused_by_receiver(
        single,
        vec![
            ("two files", vec![Message::Entries(vec![file(0, 1), file(1, 1)])]),
            ("a second one later", vec![one(link(0)), one(link(1))]),
            ("a file beside a directory", vec![Message::Entries(vec![dir(0), file(1, 1)])]),
        ],
    );
    let no_contents = || Config { root_meta: RootMetaRule::Refuse, ..config() };
    let root = RootMeta(Some((0o777, Timestamp { secs: 1, nanos: 0 })));
    refused_by_receiver(
        no_contents,
        vec![
            ("the destination's own mode", vec![one(file(0, 0)), Message::Finish(root)]),
            ("the same with nothing announced", vec![Message::Finish(root)]),
        ],
    );
    let admits = |path: &RelPath, dir: bool| dir || path.as_bytes() == b"n0/n1";
    let some = || Config { admits: Some(Box::new(admits)), ..config() };
    refused_by_receiver(
        some,
        vec![
            ("at the root", vec![one(file(0, 1))]),
            (
                "beside",
                vec![Message::Entries(vec![dir(0), below(0, file(1, 1)), below(0, file(2, 1))])],
            ),
            (
                "in another's place",
                vec![
                    Message::Entries(vec![dir(0), below(0, file(1, 1))]),
                    Message::Replaced(FileId(1), below(0, file(2, 1))),
                ],
            ),
        ],
    );
    let rule = RootRule::Single(Name::new(b"wanted").unwrap());
    let mut victim = Victim::with_root(single(), rule, false);
    victim.hear(one(file(0, 1))).unwrap();
    let Some(Action::Inspect { name, .. }) = victim.r.poll_action() else { panic!() };
    assert_eq!(name.as_bytes(), b"wanted");
}

#[test]
fn links_are_made_only_where_they_were_asked_for() {
    let unwanted = || Config { links: false, ..config() };
    refused_by_receiver(unwanted, vec![("a link", vec![Message::Entries(vec![link(0)])])]);
}

fn wanted(size: u64) -> Victim {
    let mut victim = Victim::new(config());
    victim.hear(Message::Entries(vec![file(0, size), dir(1), file(2, 0), link(3)])).unwrap();
    victim.obey();
    victim
}

#[test]
fn w11_content_that_nobody_asked_for_is_a_violation() {
    let mut v = wanted(BLOCK);
    for id in [1, 9, u32::MAX] {
        assert!(v.r.place(FileId(id), 0, 5).is_err(), "{id}");
        assert!(v.r.place_whole(FileId(id), 5).is_err(), "{id}");
        assert!(v.r.handle_mismatch(FileId(id), 0, 5).is_err(), "{id}");
    }
    v.hear(Message::Entries(vec![file(4, 5)])).unwrap();
    assert!(v.r.place_whole(FileId(4), 5).is_err(), "before WANT");
    for done in [2, 3] {
        assert!(matches!(v.r.place(FileId(done), 0, 5), Ok(Placement::Discard)));
    }
}

#[test]
fn w12_blocks_that_do_not_fit_are_violations_and_repeats_are_dropped() {
    let size = 2 * BLOCK + 5;
    for (offset, len) in [
        (3 * BLOCK, 5),
        (u64::MAX - BLOCK + 1, BLOCK),
        (0, BLOCK - 1),
        (BLOCK, 5),
        (2 * BLOCK, 6),
        (2 * BLOCK, 4),
    ] {
        assert!(wanted(size).r.place(FileId(0), offset, len as u32).is_err(), "{offset} {len}");
    }
    for (offset, len) in [(3 * BLOCK, 5), (u64::MAX - BLOCK + 1, 5), (5, 5), (2 * BLOCK, 6)] {
        assert!(wanted(size).r.handle_mismatch(FileId(0), offset, len).is_err(), "{offset}");
    }
    assert!(wanted(size).r.place_whole(FileId(0), 5).is_err());
    let mut v = wanted(size);
    assert!(matches!(v.r.place(FileId(0), 0, 1 << 20), Ok(Placement::Write { .. })));
    assert!(matches!(v.r.place(FileId(0), 0, 1 << 20), Ok(Placement::Discard)));
    v.r.handle_written(FileId(0), 0, 1 << 20, Ok(()));
    assert!(matches!(v.r.place(FileId(0), 0, 1 << 20), Ok(Placement::Discard)));
}

#[test]
fn w14_the_fourth_damaged_copy_fails_the_file() {
    let mut v = wanted(5);
    for _ in 0..3 {
        v.r.handle_mismatch(FileId(0), 0, 5).unwrap();
        assert_eq!(v.r.summary().failed, 0);
    }
    v.r.handle_mismatch(FileId(0), 0, 5).unwrap();
    assert_eq!(v.r.summary().failed, 1);
    assert!(matches!(v.r.poll_action(), Some(Action::Discard { handle: 0 })));
}

#[test]
fn a_damaged_copy_of_a_good_block_costs_nothing() {
    let mut v = wanted(BLOCK + 5);
    assert!(matches!(v.r.place(FileId(0), 0, 1 << 20), Ok(Placement::Write { .. })));
    (0..9).for_each(|_| v.r.handle_mismatch(FileId(0), 0, 1 << 20).unwrap());
    v.r.handle_written(FileId(0), 0, 1 << 20, Ok(()));
    (0..9).for_each(|_| v.r.handle_mismatch(FileId(0), 0, 1 << 20).unwrap());
    assert!(matches!(v.r.place(FileId(0), BLOCK, 5), Ok(Placement::Write { .. })));
    v.r.handle_written(FileId(0), BLOCK, 5, Ok(()));
    (0..9).for_each(|_| v.r.handle_mismatch(FileId(0), 0, 1 << 20).unwrap());
    assert_eq!(v.obey(), ["Publish"]);
    assert_eq!(v.r.summary().failed, 0);
}

#[test]
fn f05_a_file_that_is_being_published_is_not_taken_back() {
    let replaced = || Message::Replaced(FileId(0), Entry { name: file(0, 7).name, ..file(4, 7) });
    for message in [Message::Gone(FileId(0), error()), replaced()] {
        let mut v = wanted(5);
        assert!(matches!(v.r.place_whole(FileId(0), 5), Ok(Placement::Publish { .. })));
        let late = u64::from(matches!(message, Message::Replaced(..)));
        v.hear(message).unwrap();
        assert!(v.obey().is_empty(), "nothing is discarded and nothing races for the name");
        v.r.handle_published(FileId(0), Ok(()));
        assert_eq!(v.r.summary().failed, late, "a new version that came too late is a failure");
    }
    let mut v = wanted(5);
    v.hear(replaced()).unwrap();
    assert_eq!(v.obey(), ["Inspect", "Discard"]);
}

/// Announces a file of three blocks and a bit, a directory, a link, an empty file, and one file
/// that is finished.
pub(super) fn sender() -> (Sender<()>, u32) {
    let hello = Hello::ours(4);
    let mut s = Sender::new(negotiate(&hello, &hello).unwrap());
    s.handle_conn_opened(CONN);
    s.handle_entry((), |id| file(id.0, 3 * BLOCK + 1));
    s.handle_entry((), |id| dir(id.0));
    s.handle_entry((), |id| link(id.0));
    s.handle_entry((), |id| file(id.0, 0));
    s.handle_entry((), |id| file(id.0, 9));
    s.poll_transmit(CONN, NOW, usize::MAX, &mut Vec::new());
    let done = FileResult { file: FileId(4), outcome: Outcome::Same };
    tell(&mut s, 0, Message::Results(vec![done])).unwrap();
    (s, 1)
}

pub(super) fn tell(s: &mut Sender<()>, seq: u32, message: Message) -> Result<(), Violation> {
    let payload = message.to_payload(seq);
    let m = Sequenced::from_payload(message.flag(), &payload)?;
    s.handle_message(m, payload.len(), NOW)
}

fn refused_by_sender(cases: Vec<(&str, Message)>) {
    for (case, message) in cases {
        let (mut s, seq) = sender();
        assert!(tell(&mut s, seq, message).is_err(), "{case}");
    }
}

#[test]
fn w15_d08_wants_for_what_is_not_there_are_violations() {
    let want = |id, range: Option<_>| {
        Message::Want(vec![Want { file: FileId(id), ranges: range.into_iter().collect() }])
    };
    refused_by_sender(vec![
        ("unknown", want(9, None)),
        ("finished", want(4, None)),
        ("a directory", want(1, None)),
        ("a link", want(2, None)),
        ("an empty file", want(3, None)),
        ("behind the end", want(0, Some(0..3 * BLOCK + 2))),
        ("a part of a block", want(0, Some(0..5))),
        ("inside a block", want(0, Some(5..BLOCK))),
        ("hashes of the unknown", Message::DigestsWanted(vec![FileId(9)])),
        ("hashes of a directory", Message::DigestsWanted(vec![FileId(1)])),
        ("a block that is none", Message::Written(vec![Written { file: FileId(0), offset: 7 }])),
        (
            "a second result",
            Message::Results(vec![FileResult { file: FileId(4), outcome: Outcome::Same }]),
        ),
    ]);
    let (mut s, _) = sender();
    (1..1000).for_each(|seq| tell(&mut s, seq, want(0, None)).unwrap());
    let other = ConnId(CONN.0 + 1);
    s.handle_conn_opened(other);
    let blocks = |conn| std::iter::from_fn(|| s.poll_work(conn, NOW)).count();
    assert_eq!([CONN, other].map(blocks), [2, 2], "a flood is one want");
}

#[test]
fn w16_a_close_that_comes_too_early_or_twice_is_a_violation() {
    let close = || Message::Close(Summary::default());
    let (mut s, seq) = sender();
    s.handle_walked(RootMeta(None));
    s.poll_transmit(CONN, NOW, usize::MAX, &mut Vec::new());
    assert!(tell(&mut s, seq, close()).is_err(), "entries are open");
    let (mut s, seq) = sender();
    let all = (0..4).map(|id| FileResult { file: FileId(id), outcome: Outcome::Created }).collect();
    tell(&mut s, seq, Message::Results(all)).unwrap();
    s.handle_walked(RootMeta(None));
    s.poll_transmit(CONN, NOW, usize::MAX, &mut Vec::new());
    tell(&mut s, seq + 1, close()).unwrap();
    assert!(tell(&mut s, seq + 2, close()).is_err(), "twice");
}

#[test]
fn a_chain_of_directories_neither_overflows_the_stack_nor_eats_memory() {
    let mut v = Victim::new(config());
    let long = Name::new(&[b'x'; 255]).unwrap();
    let mut refused = false;
    for first in (0..20_000).step_by(200) {
        let parent = |id: u32| if id == 0 { DirId::ROOT } else { DirId(id - 1) };
        let deeper = |id: u32| Entry { name: long.clone(), parent: parent(id), ..dir(id) };
        refused |= v.hear(Message::Entries((first..first + 200).map(deeper).collect())).is_err();
        if refused {
            break;
        }
    }
    assert!(refused, "2 MB of names and gigabytes of paths");
    let Some(Action::MakeDir { dir, .. }) = v.r.poll_action() else { panic!() };
    v.r.handle_dir_made(dir, Err(error()));
}
