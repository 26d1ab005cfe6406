use std::time::Duration;

use fcp_proto::packet::{
    Direction, Durability, Entry, EntryBody, FileResult, Outcome, Problem, RootMeta,
};
use fcp_proto::version::{Hello, negotiate};
use fcp_proto::{DirId, ErrorCode, FileId, Name, Timestamp, escape};

use super::*;
use crate::select::Wanted;
use crate::transfer::Link;

const NOW: Duration = Duration::ZERO;
const A: ConnId = ConnId(0);
const B: ConnId = ConnId(1);

fn config(one_thing: bool, asked: &[&str]) -> Config {
    let ours = Hello::ours(2);
    let wanted = Wanted::from_sources(asked);
    Config {
        agreed: negotiate(&ours, &ours).unwrap(),
        sink_request: Request {
            direction: Direction::Push,
            options: Options::LINKS,
            durability: Durability::None,
            paths: vec![b"to".to_vec()],
            rules: vec![],
        },
        one_thing,
        contents: !one_thing,
        admits: Some(Box::new(move |path, _| wanted.admits(path))),
    }
}

fn entry(id: u32, parent: DirId, name: &str, body: EntryBody) -> Entry {
    let name = Name::new(name.as_bytes()).unwrap();
    Entry {
        id: FileId(id),
        parent,
        name,
        mode: 0o644,
        mtime: Timestamp { secs: 1, nanos: 0 },
        body,
    }
}

fn file(id: u32, parent: DirId, name: &str) -> Entry {
    entry(id, parent, name, EntryBody::File { size: 5, token: 0 })
}

fn dir(id: u32, name: &str) -> Entry {
    entry(id, DirId::ROOT, name, EntryBody::Dir)
}

/// A relay and the four directions of two pairs of connections.
struct Bench {
    relay: Relay,
    up: [Lane; 2],
    down: [Lane; 2],
    sent: u32,
    answered: u32,
}

impl Bench {
    fn new(config: Config) -> Bench {
        let lanes = |side| [A, B].map(|conn| Lane::new(side, conn));
        let (up, down) = (lanes(Side::Source), lanes(Side::Sink));
        Bench { relay: Relay::new(config), up, down, sent: 0, answered: 0 }
    }

    fn feed(&mut self, side: Side, conn: ConnId, bytes: &[u8]) -> Result<Passing, Stop> {
        let lanes = if side == Side::Source { &mut self.up } else { &mut self.down };
        let (mut out, mut rest) = (Passing::default(), bytes);
        while let Some((frame, used)) = frame::decode(rest).unwrap() {
            self.relay.handle_frame(&mut lanes[conn.0 as usize], frame, &mut out)?;
            rest = &rest[used..];
        }
        Ok(out)
    }

    fn source(&mut self, message: &Message) -> Result<Passing, Stop> {
        let bytes = framed(message, self.sent);
        self.sent += 1;
        self.feed(Side::Source, A, &bytes)
    }

    fn sink(&mut self, message: &Message) -> Result<Passing, Stop> {
        let bytes = framed(message, self.answered);
        self.answered += 1;
        self.feed(Side::Sink, A, &bytes)
    }

    /// What the user hears, as words.
    fn told(&mut self) -> Vec<String> {
        let word = |event| match event {
            ReceiveEvent::Problem(problem) => format!("problem {}", escape(&problem.path)),
            ReceiveEvent::Finished { path, outcome, .. } => {
                let outcome = match outcome {
                    Outcome::Failed(why) => why.text,
                    other => format!("{other:?}"),
                };
                format!("{} {outcome}", escape(path.as_bytes()))
            }
        };
        std::iter::from_fn(|| self.relay.poll_event()).map(word).collect()
    }
}

fn framed(message: &Message, number: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let payload = message.to_payload(number);
    Sequenced::put_frames(message.flag(), &payload, usize::from(u16::MAX), &mut out);
    out
}

/// The messages in frames, parts joined.
fn read(bytes: &[u8]) -> Vec<Sequenced> {
    let (mut all, mut parts, mut rest) = (Vec::new(), Vec::new(), bytes);
    while let Some((frame, used)) = frame::decode(rest).unwrap() {
        parts.extend_from_slice(frame.payload);
        if frame.flag != Flag::PART {
            all.push(Sequenced::from_payload(frame.flag, &std::mem::take(&mut parts)).unwrap());
        }
        rest = &rest[used..];
    }
    all
}

fn ack(next: u32) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(Flag::ACK, &next.to_be_bytes(), &mut out);
    out
}

fn violation(result: Result<Passing, Stop>) -> String {
    match result {
        Err(Stop::Violation(violation)) => violation.to_string(),
        other => panic!("{other:?}"),
    }
}

/// A relay whose sink was asked, with one directory `d` announced.
fn begun() -> Bench {
    let mut bench = Bench::new(config(false, &["d"]));
    bench.source(&Message::Entries(vec![dir(0, "d")])).unwrap();
    bench.relay.poll_start().unwrap();
    bench
}

#[test]
fn numbers_go_up_by_one_and_acknowledgements_down() {
    let mut bench = begun();
    let ends = Message::DirsEnd(vec![DirId(0)]);
    let on = bench.source(&ends).unwrap().on;
    assert_eq!(read(&on), [Sequenced { seq: 2, message: ends }]);
    let results = Message::Results(vec![]);
    let on = bench.sink(&results).unwrap().on;
    assert_eq!(read(&on), [Sequenced { seq: 1, message: results }]);
    for (acked, passed) in [(0, vec![]), (1, vec![]), (2, ack(1)), (3, ack(2))] {
        assert_eq!(bench.feed(Side::Sink, A, &ack(acked)).unwrap().on, passed, "{acked}");
    }
    let text = violation(bench.feed(Side::Sink, A, &ack(4)));
    assert!(text.contains("never sent"), "{text}");
}

#[test]
fn a_message_in_parts_is_passed_on_in_parts() {
    let mut bench = begun();
    let many: Vec<_> = (1..3000).map(|n| file(n, DirId(0), &format!("name{n}"))).collect();
    let on = bench.source(&Message::Entries(many.clone())).unwrap().on;
    assert_eq!(read(&on), [Sequenced { seq: 2, message: Message::Entries(many) }]);
}

#[test]
fn the_sink_is_asked_once_it_is_known_what_comes() {
    for (one, first, single) in [
        (true, file(0, DirId::ROOT, "d"), true),
        (true, dir(0, "d"), false),
        (false, file(0, DirId::ROOT, "d"), false),
    ] {
        let mut bench = Bench::new(config(one, &["d"]));
        let error = WireError::new(ErrorCode::SKIPPED, "why");
        let problem = Message::Problem(Problem { path: b"p".to_vec(), error });
        assert_eq!(bench.source(&problem).unwrap(), Passing::default());
        assert!(bench.relay.poll_start().is_none());
        let entries = Message::Entries(vec![first]);
        assert_eq!(bench.source(&entries).unwrap(), Passing::default());
        let frames = bench.relay.poll_start().unwrap();
        let messages = read(&frames[&A]);
        let Message::Request(request) = &messages[0].message else { panic!() };
        assert_eq!(request.options.has(Options::SINGLE), single);
        assert_eq!(messages[1..].iter().map(|m| m.seq).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(messages[2].message, entries);
        assert!(bench.relay.poll_start().is_none());
    }
}

#[test]
fn a_source_may_not_describe_a_directory_whose_contents_were_not_asked_for() {
    let root = RootMeta(Some((0o777, Timestamp { secs: 1, nanos: 0 })));
    let mut bench = Bench::new(config(true, &["d"]));
    assert!(bench.source(&Message::Finish(root)).is_err());
    assert!(bench.relay.poll_start().is_none());
    let mut bench = Bench::new(config(false, &["d/"]));
    assert!(bench.source(&Message::Finish(root)).is_ok());
}

#[test]
fn a_source_that_has_nothing_is_closed_and_the_sink_never_asked() {
    let mut bench = Bench::new(config(true, &["d"]));
    let error = WireError::new(ErrorCode::NOT_FOUND, "no");
    bench.source(&Message::Problem(Problem { path: b"d".to_vec(), error })).unwrap();
    let out = bench.source(&Message::Finish(RootMeta(None))).unwrap();
    let close = Message::Close(Summary::default());
    assert_eq!(read(&out.back), [Sequenced { seq: 1, message: close }]);
    assert!(bench.relay.poll_start().is_none() && bench.relay.closed().is_some());
    assert_eq!(bench.told(), ["problem d"]);
}

#[test]
fn an_empty_directory_s_contents_still_need_the_sink() {
    let mut bench = Bench::new(config(false, &["d/"]));
    let meta = Some((0o755, Timestamp { secs: 1, nanos: 0 }));
    bench.source(&Message::Finish(RootMeta(meta))).unwrap();
    assert!(bench.relay.poll_start().is_some());
}

#[test]
fn only_where_one_thing_was_asked_for_a_slow_source_must_be_waited_for() {
    assert!(!Bench::new(config(true, &["d"])).relay.handle_impatience());
    let mut bench = Bench::new(config(false, &["*"]));
    assert!(bench.relay.handle_impatience() && bench.relay.poll_start().is_some());
}

#[test]
fn t5_what_was_not_asked_for_stops_here() {
    let root = DirId::ROOT;
    let cases: [(Config, Vec<Entry>); 4] = [
        (config(false, &["d"]), vec![file(0, root, ".bashrc")]),
        (config(true, &["d"]), vec![file(0, root, "d"), file(1, root, "d2")]),
        (config(false, &["d"]), vec![file(0, DirId(7), "d")]),
        (config(false, &["d"]), vec![dir(0, "d"), file(0, DirId(0), "x")]),
    ];
    for (config, entries) in cases {
        let mut bench = Bench::new(config);
        let text = violation(bench.source(&Message::Entries(entries)));
        assert!(text.contains("ENTRIES"), "{text}");
        assert!(bench.relay.poll_start().is_none(), "{text}");
        // Nor is it passed on when it comes again, over whichever connection.
        assert!(bench.feed(Side::Source, B, &framed(&Message::Entries(vec![]), 0)).is_err());
    }
}

#[test]
fn t5_a_link_that_was_not_asked_for_stops_here() {
    let mut config = config(false, &["d"]);
    config.sink_request.options = Options::default();
    let link = entry(0, DirId::ROOT, "d", EntryBody::Symlink { target: (*b"x").into() });
    assert!(Bench::new(config).source(&Message::Entries(vec![link])).is_err());
}

#[test]
fn t5_a_repeated_message_must_be_the_one_that_was_checked() {
    let mut bench = begun();
    let same = framed(&Message::Entries(vec![dir(0, "d")]), 0);
    let on = bench.feed(Side::Source, B, &same).unwrap().on;
    assert_eq!(read(&on).len(), 1);
    let other = framed(&Message::Entries(vec![dir(0, "evil")]), 0);
    let text = violation(bench.feed(Side::Source, B, &other));
    assert!(text.contains("another"), "{text}");
}

#[test]
fn t5_a_replaced_file_keeps_its_place() {
    let mut bench = begun();
    bench.source(&Message::Entries(vec![file(1, DirId(0), "a")])).unwrap();
    let fine = Message::Replaced(FileId(1), file(2, DirId(0), "a"));
    bench.source(&fine).unwrap();
    for bad in [file(3, DirId(0), "b"), file(3, DirId::ROOT, "a"), dir(3, "a")] {
        let mut bench = begun();
        bench.source(&Message::Entries(vec![file(1, DirId(0), "a")])).unwrap();
        assert!(bench.source(&Message::Replaced(FileId(1), bad)).is_err());
    }
}

#[test]
fn messages_flow_in_one_direction_only() {
    assert!(begun().source(&Message::Want(vec![])).is_err());
    assert!(begun().source(&Message::Close(Summary::default())).is_err());
    assert!(begun().sink(&Message::Entries(vec![])).is_err());
    let mut early = Bench::new(config(false, &["d"]));
    assert!(early.sink(&Message::Results(vec![])).is_err());
}

#[test]
fn w04_a_message_does_not_grow_without_end() {
    let mut bench = begun();
    let mut part = Vec::new();
    frame::encode(Flag::PART, &[0; 60_000], &mut part);
    let ended = (0..20).map(|_| bench.feed(Side::Source, A, &part)).find(Result::is_err);
    assert!(violation(ended.unwrap()).contains("1 MiB"));
}

#[test]
fn w08_more_open_entries_than_agreed_are_refused() {
    let mut bench = begun();
    let mut id = 1;
    let refused = (0..40).find_map(|_| {
        let many = (0..2000).map(|n| file(id + n, DirId(0), &format!("{}", id + n))).collect();
        id += 2000;
        bench.source(&Message::Entries(many)).err()
    });
    assert!(matches!(refused, Some(Stop::Violation(_))));
}

#[test]
fn frames_in_the_middle_of_a_block_or_message_are_refused() {
    let mut bench = begun();
    bench.up[0].handle_content(Flag::DATA).unwrap();
    assert!(bench.up[0].is_in_block());
    assert!(bench.feed(Side::Source, A, &ack(0)).is_err());
    let mut bench = begun();
    let mut part = Vec::new();
    frame::encode(Flag::PART, &[0; 9], &mut part);
    bench.feed(Side::Source, A, &part).unwrap();
    assert!(bench.up[0].handle_content(Flag::WHOLE).is_err());
    assert!(begun().down[0].handle_content(Flag::WHOLE).is_err());
}

#[test]
fn what_becomes_of_entries_is_told_by_path() {
    let mut bench = begun();
    let all = ["a", "b", "c", "e"];
    let entries = (1..).zip(all).map(|(id, name)| file(id, DirId(0), name)).collect();
    bench.source(&Message::Entries(entries)).unwrap();
    bench.source(&Message::DirsEnd(vec![DirId(0)])).unwrap();
    bench.source(&Message::Finish(RootMeta(None))).unwrap();
    let done = |id, outcome| FileResult { file: FileId(id), outcome };
    let full = WireError::new(ErrorCode::NO_SPACE, "disk full");
    let results = vec![done(1, Outcome::Created), done(2, Outcome::Failed(full))];
    bench.sink(&Message::Results(results)).unwrap();
    let gone = WireError::new(ErrorCode::VANISHED, "it vanished");
    bench.source(&Message::Gone(FileId(3), gone)).unwrap();
    // It crossed with GONE.
    bench.sink(&Message::Results(vec![done(3, Outcome::Created)])).unwrap();
    bench.source(&Message::Replaced(FileId(4), file(5, DirId(0), "e"))).unwrap();
    bench.sink(&Message::Results(vec![done(5, Outcome::Same), done(0, Outcome::Created)])).unwrap();
    let summary = Summary { changed: 2, ..Summary::default() };
    bench.sink(&Message::Close(summary.clone())).unwrap();
    assert_eq!(bench.relay.closed(), Some(&summary));
    let wanted = ["d/a Created", "d/b disk full", "d/c it vanished", "d/e Same", "d Created"];
    assert_eq!(bench.told(), wanted);
    let announced = bench.relay.announced();
    assert_eq!((announced.entries, announced.bytes, announced.all), (5, 20, true));
}

#[test]
fn a_close_before_the_end_is_the_sink_s_fault() {
    assert!(begun().sink(&Message::Close(Summary::default())).is_err());
    let mut bench = begun();
    bench.source(&Message::DirsEnd(vec![DirId(0)])).unwrap();
    bench.source(&Message::Finish(RootMeta(None))).unwrap();
    let text = violation(bench.sink(&Message::Close(Summary::default())));
    assert!(text.contains("unfinished"), "{text}");
}

#[test]
fn an_error_is_answered_as_such() {
    let error = WireError::new(ErrorCode::NO_SPACE, "full");
    let frames = error_frame(&error);
    assert_eq!(begun().feed(Side::Sink, A, &frames), Err(Stop::Error(error)));
}

#[test]
fn a_request_that_may_be_lost_is_repeated_until_the_sink_shows_that_it_has_it() {
    let mut bench = Bench::new(config(false, &["d"]));
    assert!(bench.relay.repeat_request().is_none());
    bench.source(&Message::Entries(vec![dir(0, "d")])).unwrap();
    bench.relay.poll_start().unwrap();
    assert_eq!(read(&bench.relay.repeat_request().unwrap())[0].seq, 0);
    bench.feed(Side::Sink, B, &ack(1)).unwrap();
    assert!(bench.relay.repeat_request().is_none());
}

/// Two ends' links over a relay whose pairs of connections die: everything arrives once, in order.
#[test]
fn w23_messages_survive_the_loss_of_connections_at_either_side() {
    let mut bench = Bench::new(config(false, &["d/"]));
    let mut ends = [Link::default(), Link::default()];
    for link in &mut ends {
        link.handle_request_taken(NOW);
        link.handle_conn_opened(A);
        link.handle_conn_opened(B);
    }
    let entries = |id| Message::Entries(vec![file(id, DirId::ROOT, &format!("f{id}"))]);
    let done = |n: u32| FileResult { file: FileId(n), outcome: Outcome::Created };
    let (mut got, mut answers) = (0, 0);
    let mut seed = 7u32;
    for round in 0..400 {
        let now = Duration::from_millis(round * 100);
        let [source, _] = &mut ends;
        source.send(&entries(round as u32), now);
        for from in [0, 1] {
            for conn in [A, B] {
                let mut bytes = Vec::new();
                ends[from].poll_transmit(conn, now, 65_535, usize::MAX, &mut bytes);
                let side = if from == 0 { Side::Source } else { Side::Sink };
                let on = bench.feed(side, conn, &bytes).unwrap().on;
                let started = bench.relay.poll_start();
                let held = started.map(|mut all| all.remove(&conn).unwrap_or_default());
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if seed >> 29 == 0 && held.is_none() {
                    // Both connections of the pair are gone, and another pair is there at once.
                    for link in &mut ends {
                        link.handle_conn_lost(conn);
                        link.handle_conn_opened(conn);
                    }
                    continue;
                }
                let to = &mut ends[1 - from];
                deliver(&[held.unwrap_or_default(), on].concat(), to, now);
                while let Some(message) = to.poll_message() {
                    match message {
                        Message::Entries(list) => {
                            assert_eq!(list[0].id.0, got);
                            to.send(&Message::Results(vec![done(got)]), now);
                            got += 1;
                        }
                        Message::Results(list) => {
                            assert_eq!(list[0].file.0, answers);
                            answers += 1;
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
        ends.iter_mut().for_each(|link| link.handle_timeout(now));
    }
    assert!(got > 390 && answers > 390, "{got} {answers}");
}

fn deliver(bytes: &[u8], to: &mut Link, now: Duration) {
    let mut rest = bytes;
    while let Some((frame, used)) = frame::decode(rest).unwrap() {
        if frame.flag == Flag::ACK {
            let next = u32::from_be_bytes(frame.payload.try_into().unwrap());
            to.handle_ack(next, now).unwrap();
        } else if frame.flag != Flag::REQUEST {
            let m = Sequenced::from_payload(frame.flag, frame.payload).unwrap();
            to.handle_message(m, frame.payload.len(), now).unwrap();
        }
        rest = &rest[used..];
    }
}
