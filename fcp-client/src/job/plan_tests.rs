use super::*;
use crate::job::run::bench;
use crate::location::Entry;
use fcp_common::fs::Kind;
use std::path::Path;

fn spec() -> JobSpec {
    bench::spec(Path::new("/in"), Path::new("/out"))
}

fn meta(size: u64, secs: i64) -> Meta {
    Meta {
        kind: Kind::File,
        size,
        mtime: Some(Timestamp { secs, nanos: 0 }),
        mode: Some(0o644),
        id: None,
    }
}

fn listing(names: &[(&str, Kind)]) -> Listing {
    let entry = |(name, kind): &(&str, Kind)| Entry {
        name: Name::new(name.as_bytes()).unwrap(),
        meta: Meta { kind: *kind, ..meta(1, 0) },
    };
    Listing { entries: names.iter().map(entry).collect(), refused: Vec::new() }
}

fn sifted(spec: &JobSpec, names: &[(&str, Kind)]) -> Vec<(String, Option<Skip>)> {
    let (files, skipped) = sift(spec, &RelPath::root(), &listing(names));
    let taken = files.into_iter().map(|one| (one.path.to_string(), None));
    let left = skipped.into_iter().map(|(path, why)| (path.to_string(), Some(why)));
    let mut all: Vec<_> = taken.chain(left).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn candidate(path: &str, size: u64, secs: i64) -> Candidate {
    Candidate { path: RelPath::new(path.as_bytes()).unwrap(), meta: meta(size, secs) }
}

fn there(name: &str, meta: Meta) -> HashMap<Name, Meta> {
    HashMap::from([(Name::new(name.as_bytes()).unwrap(), meta)])
}

#[test]
fn only_regular_files_that_match_are_the_jobs() {
    let mut spec = spec();
    spec.file_pattern = regex::bytes::Regex::new("sdr").unwrap();
    let names = [
        ("DONE", Kind::Dir),
        ("a.sdr.1", Kind::File),
        ("other", Kind::File),
        ("sdr-dir", Kind::Dir),
        ("sdr-link", Kind::Symlink),
        ("sdr-pipe", Kind::Other),
        ("sdr.part", Kind::File),
    ];
    let why = [
        Some(Skip::DoneFolder),
        None,
        Some(Skip::NoMatch),
        Some(Skip::Directory),
        Some(Skip::Symlink),
        Some(Skip::Special),
        Some(Skip::Temp),
    ];
    let found: Vec<_> = sifted(&spec, &names).into_iter().map(|(_, why)| why).collect();
    assert_eq!(found, why);
}

#[test]
fn a_refused_name_that_matches_is_told() {
    let refused = vec![
        crate::location::Refused { name: b"a/b".to_vec(), why: "a slash" },
        crate::location::Refused { name: b"\x1b\0".to_vec(), why: "a NUL" },
    ];
    let mut spec = spec();
    spec.file_pattern = regex::bytes::Regex::new("a").unwrap();
    let listing = Listing { entries: Vec::new(), refused };
    let (_, skipped) = sift(&spec, &RelPath::root(), &listing);
    assert_eq!(skipped.len(), 1);
    assert!(skipped[0].1.is_failure() && skipped[0].1.to_string().contains("a slash"));
}

#[test]
fn names_of_unfinished_files_are_known() {
    for temp in [
        ".tmp.x",
        "x.TMP",
        "x.part",
        "x.filepart",
        "~$x.doc",
        "x~",
        ".sdr.1.aB3dEf",
        "x.crdownload",
    ] {
        assert!(is_temp(temp.as_bytes()), "{temp}");
    }
    for name in ["x.csv", ".profile", ".daily.report", "tmp.x", "part", "x.tmp.csv", ".x"] {
        assert!(!is_temp(name.as_bytes()), "{name}");
    }
}

#[test]
fn a_file_waits_for_its_marker() {
    let mut spec = spec();
    spec.marker = Some("{name}.done".to_owned());
    let names = [("a", Kind::File), ("a.done", Kind::File), ("b", Kind::File)];
    let found = sifted(&spec, &names);
    assert_eq!(found[0].1, None);
    assert_eq!(found[1].1, Some(Skip::Marker));
    assert_eq!(found[2].1, Some(Skip::MarkerMissing("b.done".to_owned())));
}

#[test]
fn s15_age_is_by_the_servers_clock_whatever_ours_says() {
    let min = Duration::from_secs(1800);
    let hours = 26 * 3600;
    for skew in [-hours, 0, hours] {
        let error = Duration::from_secs(1);
        let clock = Clock::Skew { millis: skew * 1000, error };
        let now = Now { ours: 1_000_000_000, clock };
        let server = 1_000_000 + skew;
        let age = |secs| ripe(&meta(1, server - secs), now, min, None);
        assert_eq!(age(1802), None);
        assert!(matches!(age(1800), Some(Skip::TooYoung { .. })), "the error counts against it");
        assert!(matches!(age(60), Some(Skip::TooYoung { .. })));
        assert!(matches!(age(-60), Some(Skip::InFuture(_))));
        assert_eq!(ripe(&meta(1, server + 60), now, Duration::ZERO, None), None);
    }
}

#[test]
fn s15_without_a_clock_a_file_counts_from_when_it_was_first_seen() {
    let min = Duration::from_secs(600);
    let now = Now { ours: 10_000_000, clock: Clock::Unknown };
    assert_eq!(ripe(&meta(1, 0), now, min, Some(9_400)), None);
    let why = ripe(&meta(1, 0), now, min, Some(9_401)).unwrap();
    assert!(why.to_string().contains("9 min 59 s"), "{why}");
    assert!(ripe(&meta(1, 0), now, min, None).is_some());
}

#[test]
fn the_overwrite_rules() {
    use Overwrite::{Always, Differs, Larger, Never, Newer};
    let ours = meta(10, 100);
    let cases = [
        (Larger, meta(9, 100), Verdict::Replace),
        (Larger, meta(10, 1), Verdict::Same),
        (Larger, meta(11, 1), Verdict::Stays(Stays::Larger)),
        (Never, meta(9, 1), Verdict::Stays(Stays::Never)),
        (Never, meta(10, 1), Verdict::Same),
        (Always, meta(11, 200), Verdict::Replace),
        (Newer, meta(11, 99), Verdict::Replace),
        (Newer, meta(11, 100), Verdict::Stays(Stays::NotOlder)),
        (Newer, meta(10, 100), Verdict::Same),
        (Newer, Meta { mtime: None, ..meta(9, 0) }, Verdict::Stays(Stays::NoTime)),
        (Differs, meta(10, 99), Verdict::Replace),
        (Differs, meta(11, 100), Verdict::Replace),
        (Differs, meta(10, 100), Verdict::Same),
    ];
    for (overwrite, theirs, verdict) in cases {
        assert_eq!(rule(overwrite, &ours, &theirs), verdict, "{overwrite:?} {theirs:?}");
    }
}

#[test]
fn s23_what_stays_is_a_conflict_where_the_source_would_go() {
    let mut spec = spec();
    let theirs = there("a", meta(11, 0));
    let mut decided = |action| {
        spec.done.action = action;
        match Planner::new(&spec).decide(candidate("a", 10, 0), None, &theirs) {
            Decision::Skip { why, .. } => why,
            other => panic!("{other:?}"),
        }
    };
    assert!(!decided(Action::Keep).is_failure());
    assert!(decided(Action::Move).is_failure() && decided(Action::Delete).is_failure());
}

#[test]
fn what_the_ledger_has_is_never_sent_again_nor_in_anybodys_way() {
    let mut spec = spec();
    spec.layout = Layout::Flat;
    let mut planner = Planner::new(&spec);
    let to = RelPath::new(b"a").unwrap();
    let state =
        State::Finished { to: to.clone(), hash: None, action: "kept".to_owned(), gone: false };
    let none = HashMap::new();
    let first = planner.decide(candidate("x/a", 1, 0), Some(&state), &none);
    assert!(matches!(first, Decision::Skip { why: Skip::Delivered(_), .. }));
    let second = planner.decide(candidate("y/a", 1, 0), None, &none);
    assert!(matches!(&second, Decision::Take(take) if take.to == to), "{second:?}");
    let third = planner.decide(candidate("z/a", 1, 0), None, &none);
    assert!(matches!(third, Decision::Skip { why: Skip::Twin(_), .. }));
}

#[test]
fn a_directory_there_is_never_replaced() {
    let spec = spec();
    let theirs = there("a", Meta { kind: Kind::Dir, ..meta(0, 0) });
    let decided = Planner::new(&spec).decide(candidate("a", 1, 0), None, &theirs);
    assert!(matches!(decided, Decision::Skip { why: Skip::NameTaken, .. }));
}

#[test]
fn temporary_names_fit_whatever_the_name() {
    let short = RelPath::new(b"d/a").unwrap();
    assert_eq!(temp_path(&short, None).unwrap().as_bytes(), b"d/.tmp.a");
    assert_eq!(temp_path(&short, Some(1)).unwrap().as_bytes(), b"d/.tmp.a.00000001");
    let long = |last: u8| {
        let mut name = vec![b'x'; 254];
        name.push(last);
        temp_path(&RelPath::new(&name).unwrap(), Some(7)).unwrap()
    };
    assert!(long(b'1').as_bytes().len() <= 255);
    assert_ne!(long(b'1'), long(b'2'));
}

#[test]
fn other_names_keep_their_ending() {
    let name = |text: &str| Name::new(text.as_bytes()).unwrap();
    let other = |text| alternative(&name(text), 2).unwrap().to_string();
    assert_eq!(
        [other("a.csv"), other("a"), other(".a"), other("a.b.c")],
        ["a-2.csv", "a-2", ".a-2", "a.b-2.c"]
    );
}
