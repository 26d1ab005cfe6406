use std::time::{Duration, Instant};

use super::super::rule::RulesRefused;
use super::super::{MAX_PATTERN, MAX_RULES, Pattern, PatternError, Rule, RuleSet, Wanted, operand};
use super::path;
use fcp_proto::{Name, RelPath};
use proptest::prelude::*;

#[test]
fn rules_survive_the_wire() {
    let rules = vec![
        Rule::include(b"*.c").unwrap(),
        Rule::exclude(b"re:x+\\.o$").unwrap(),
        Rule::exclude(b"/\xff/").unwrap(),
    ];
    let wire: Vec<_> = rules.iter().map(Rule::to_wire).collect();
    assert_eq!(wire[0], (1, b"*.c".to_vec()));
    assert_eq!(wire[1], (2, b"re:x+\\.o$".to_vec()));
    let set = RuleSet::from_wire(wire.iter().map(|(a, p)| (*a, p.as_slice()))).unwrap();
    assert_eq!(set.rules(), rules);
}

#[test]
fn what_a_peer_cannot_send_is_refused() {
    assert_eq!(Rule::from_wire(0, b"x"), Err(RulesRefused::UnknownAction(0)));
    assert_eq!(Pattern::new(b""), Err(PatternError::Empty));
    assert_eq!(Pattern::new(b"a\0\x1b"), Err(PatternError::Nul("a\\000\\033".into())));
    assert!(Pattern::new(&[b'*'; MAX_PATTERN]).is_ok());
    assert!(matches!(Pattern::new(&[b'*'; MAX_PATTERN + 1]), Err(PatternError::TooLong(_))));
    let endless = std::iter::repeat((1u8, &b"x"[..]));
    assert_eq!(RuleSet::from_wire(endless).unwrap_err(), RulesRefused::TooMany);
    let endless = std::iter::repeat((1u8, &b"re:x"[..]));
    let refused = RuleSet::from_wire(endless).unwrap_err();
    assert!(matches!(refused, RulesRefused::TooManyRegexes { number: 1001, .. }), "{refused}");
}

#[test]
fn a_bad_regex_is_named_and_escaped() {
    let error = Pattern::new(b"re:a\x1b(b").unwrap_err().to_string();
    assert_eq!(error, "pattern 're:a\\033(b' is not a regular expression: unclosed group");
    assert!(matches!(Pattern::new(b"re:\xff"), Err(PatternError::NotRegex { .. })));
    let deep = [&b"re:"[..], &b"(".repeat(1000), &b")".repeat(1000)].concat();
    assert!(matches!(Pattern::new(&deep), Err(PatternError::NotRegex { .. })));
    for big in [&b"re:(a{1000}){1000}"[..], b"re:((((x{99}){99}){99}){99}){99}"] {
        assert!(matches!(Pattern::new(big), Err(PatternError::RegexTooBig(_))));
    }
}

#[test]
fn the_sum_of_the_patterns_is_bounded() {
    let wide = vec![Rule::exclude(&[b'?'; MAX_PATTERN]).unwrap(); 200];
    assert!(matches!(RuleSet::new(wide), Err(RulesRefused::TooBig { number: 129, .. })));
    let heavy = vec![Rule::exclude(b"re:(abcdefghij){300}").unwrap(); 1000];
    assert!(matches!(RuleSet::new(heavy), Err(RulesRefused::TooBig { .. })));
}

/// The limit on bytes is the only one that globs meet: no batch outgrows its automaton.
#[test]
fn the_largest_globs_that_are_allowed_compile() {
    let class: Vec<u8> = (b' '..=255).step_by(2).filter(|b| !b"[\\]^".contains(b)).collect();
    let class = [b"[x", class.as_slice(), b"]"].concat();
    let long = RelPath::new(&[[b'a'; 255].as_slice(); 15].join(&b'/')).unwrap();
    for (unit, tail) in [(&b"?"[..], &b"/***"[..]), (&class, b""), (b"?*", b"**"), (b"[!a]", b"")] {
        let pattern = [&unit.repeat((MAX_PATTERN - 4) / unit.len()), tail].concat();
        let set = RuleSet::new(vec![Rule::exclude(&pattern).unwrap(); 128]);
        let matched = !set.unwrap().admits(&long, false);
        assert!(!matched, "{pattern:?}");
    }
}

#[test]
fn ten_thousand_ordinary_rules_fit() {
    let rule = |n| match n % 2 {
        0 => Rule::exclude(format!("/home/someone/project-{n}/target/").as_bytes()),
        _ => Rule::exclude(format!("some-directory-{n}/*.suffix{n}").as_bytes()),
    };
    let set = RuleSet::new((0..MAX_RULES).map(|n| rule(n).unwrap()).collect()).unwrap();
    assert!(!set.admits(&path(b"some-directory-9999/x.suffix9999"), false));
    assert!(set.admits(&path(b"some-directory-9999/x.suffix9998"), false));
    assert!(!set.admits(&path(b"home/someone/project-9998/target/debug/a"), false));
}

/// A backtracking matcher would need longer than the age of the universe for these.
#[test]
fn patterns_made_to_explode_take_linear_time() {
    let long = RelPath::new(&[[b'a'; 255].as_slice(); 15].join(&b'/')).unwrap();
    let start = Instant::now();
    for pattern in
        [&b"*a".repeat(1000)[..], &b"**a".repeat(1000), &b"*/".repeat(1000), b"re:(a*)*(a*)*b"]
    {
        let pattern = [pattern, b"b"].concat();
        let set = RuleSet::new(vec![Rule::exclude(&pattern).unwrap()]).unwrap();
        assert!(set.admits(&long, false));
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

fn glob_bytes() -> impl Strategy<Value = Vec<u8>> {
    let special = prop::sample::select(b"*?[]!^-\\/:a.\xff".to_vec());
    prop::collection::vec(prop_oneof![4 => special, 1 => any::<u8>()], 0..40)
}

fn some_path() -> impl Strategy<Value = RelPath> {
    let byte = prop::sample::select(b"*?[]\\:ab./\xff\n".to_vec());
    prop::collection::vec(byte, 1..30)
        .prop_filter_map("not a path", |bytes| RelPath::new(&bytes).ok())
}

proptest! {
    #[test]
    fn no_pattern_makes_it_panic_or_refuse(
        patterns in prop::collection::vec(glob_bytes(), 0..8), at in some_path(), is_dir: bool,
    ) {
        let rules: Vec<_> = patterns.iter().filter_map(|p| Rule::exclude(p).ok()).collect();
        let any_alone = rules.iter().any(|rule| {
            !RuleSet::new(vec![rule.clone()]).unwrap().admits(&at, is_dir)
        });
        let set = RuleSet::new(rules).unwrap();
        prop_assert_eq!(set.admits(&at, is_dir), !any_alone);
    }

    #[test]
    fn no_regex_makes_it_panic(source in glob_bytes(), at in some_path()) {
        if let Ok(rule) = Rule::exclude(&[b"re:", source.as_slice()].concat()) {
            RuleSet::new(vec![rule]).unwrap().admits(&at, false);
        }
    }

    #[test]
    fn no_operand_makes_it_panic_and_its_own_expansion_is_wanted(
        operand in glob_bytes(), name in some_path(),
    ) {
        let wanted = Wanted::from_sources(&[&operand]);
        let top: Name = name.components().next().unwrap();
        let split = operand::split_glob(&operand);
        let is_answer = match split.components.last() {
            Some(operand::Component::Plain(plain)) => plain.as_slice() == top.as_bytes(),
            Some(operand::Component::Magic(glob)) => glob.matches(&top),
            None => true,
        };
        prop_assert!(!is_answer || wanted.admits(&name));
        let _ = (operand::has_magic(&operand), operand::unescape(&operand), wanted.single_name());
    }
}
