use super::super::{Rule, RuleSet, Verdict};
use super::{path, rules};
use fcp_proto::RelPath;

/// Pattern, the paths it matches, the paths it does not; a trailing slash marks a directory.
pub(super) const MATCHING: &[(&str, &[&str], &[&str])] = &[
    // Without a slash: the last component.
    ("foo", &["foo", "a/foo", "a/b/foo/"], &["foo/x", "foo2", "xfoo", "FOO"]),
    ("*.o", &["x.o", ".o", "a/b.o", "d.o/"], &["x.o/y", "x.c", "x.oo"]),
    ("*", &["a", "a/b", ".x"], &[]),
    ("?", &["a", "x/b"], &["ab", "a/bc"]),
    ("f?o", &["foo", "a/f.o"], &["fo", "fooo", "f/o"]),
    ("*a*b*", &["ab", "xaxbx", "d/ab"], &["ba", "a/b"]),
    (".*", &[".git/", "a/.x"], &["a", "a.b"]),
    // A trailing slash: directories only.
    ("foo/", &["foo/", "a/foo/"], &["foo", "a/foo"]),
    ("*/", &["a/", "a/b/"], &["a", "a/b"]),
    ("a/b/", &["a/b/", "x/a/b/"], &["a/b", "a/b/c/"]),
    ("foo//", &[], &["foo/", "foo"]),
    ("/", &[], &["a", "a/"]),
    // A leading slash: from the transfer root.
    ("/foo", &["foo", "foo/"], &["a/foo", "foo/x"]),
    ("/foo/", &["foo/"], &["foo", "a/foo/"]),
    ("/*", &["a", "b/", ".x"], &["a/b"]),
    ("/*/", &["b/"], &["a", "a/b/"]),
    ("/*/x", &["a/x"], &["x", "a/b/x"]),
    ("/a/b", &["a/b"], &["x/a/b", "a/b/c"]),
    // A slash inside: the last components.
    ("a/b", &["a/b", "x/a/b", "x/y/a/b/"], &["xa/b", "a/bx", "b", "a/x/b"]),
    ("a/*", &["a/b", "x/a/.c"], &["a", "a/", "a/b/c", "xa/b"]),
    ("*/b", &["a/b", "x/a/b"], &["b", "b/c"]),
    ("a/?/c", &["a/b/c", "z/a/b/c"], &["a/c", "a/bb/c"]),
    ("foo/*/bar", &["foo/x/bar", "y/foo/x/bar"], &["foo/bar", "foo/x/y/bar"]),
    // Two stars cross slashes.
    ("**", &["a", "a/b/c", ".x/"], &[]),
    ("**foo", &["foo", "xfoo", "a/foo", "a/xfoo"], &["foo/x", "foox"]),
    ("**/foo", &["foo", "a/foo", "a/b/foo"], &["xfoo", "foo/a"]),
    ("**/a/b", &["a/b", "x/a/b"], &["xa/b", "b"]),
    ("foo**", &["foo", "foox", "foo/a/b", "a/foo", "a/foo/b"], &["xfoo", "xfoo/a"]),
    ("foo/**", &["foo/a", "foo/a/b", "x/foo/a"], &["foo", "foo/", "xfoo/a"]),
    ("/foo/**", &["foo/a", "foo/a/b"], &["foo/", "x/foo/a"]),
    ("/foo/**/bar", &["foo/x/bar", "foo/x/y/bar"], &["foo/bar", "bar", "z/foo/x/bar"]),
    ("a**b", &["ab", "axb", "a/x/b", "z/a/b"], &["a/bc", "xab"]),
    ("a/**/", &["a/b/", "a/b/c/"], &["a/b", "a/"]),
    ("**/*.c", &["x.c", "a/x.c", "a/b/x.c/"], &["x.cc", "x.c/y"]),
    ("*/**", &["a/b", "a/b/c"], &["a", "a/"]),
    // Three stars at the end: the directory too.
    ("foo/***", &["foo/", "foo/a", "foo/a/b", "x/foo/", "x/foo/a"], &["foo", "xfoo/", "x/foo"]),
    ("/foo/***", &["foo/", "foo/a"], &["foo", "x/foo/", "x/foo/a"]),
    ("***", &["a", "a/", "a/b"], &[]),
    ("**/***", &["a", "a/", "a/b"], &[]),
    ("*/***", &["a/", "a/b"], &["a"]),
    ("foo***", &["foo", "foo/", "foox/y"], &["xfoo"]),
    ("a*/***", &["a/", "ab/", "ab/c", "x/ab/"], &["ab", "b/"]),
    ("/***", &["a", "a/", "a/b"], &[]),
    // Classes.
    ("[abc]", &["a", "x/c"], &["d", "ab", "[abc]"]),
    ("[a-c]x", &["ax", "cx"], &["dx", "-x"]),
    ("[!a-c]x", &["dx", ".x"], &["ax", "b/x"]),
    ("[^a]", &["b"], &["a", "bb"]),
    ("[]x]", &["]", "x"], &["[", "a"]),
    ("[a-]", &["a", "-"], &["b"]),
    ("[-a]", &["a", "-"], &["b"]),
    ("[a-c-e]", &["a", "b", "-", "e"], &["d"]),
    ("[c-a]", &["c"], &["a", "b"]),
    ("[\\]]", &["]"], &["\\"]),
    ("[a\\-c]", &["a", "-", "c"], &["b", "\\"]),
    ("[[:digit:]]*", &["1", "2x"], &["x2"]),
    ("[[:upper:][:space:]]", &["A", " "], &["a", "AA"]),
    ("[![:alpha:]]", &["1", "-"], &["a"]),
    ("[[:]", &["[", ":"], &["a"]),
    ("[[:nope:]]", &[], &["n", "[[:nope:]]"]),
    ("a[/]b", &[], &["a/b", "ab"]),
    ("a[^x]b", &["ayb"], &["a/b", "axb"]),
    ("[a/b]", &[], &["a", "b", "a/b"]),
    ("[ab", &[], &["a", "[ab"]),
    // Backslashes escape only beside a wildcard.
    ("a\\b", &["a\\b"], &["ab"]),
    ("a\\b*", &["ab", "abc"], &["a\\b"]),
    ("a\\\\b*", &["a\\b", "a\\bc"], &["ab"]),
    ("\\*x", &["*x"], &["ax", "\\*x"]),
    ("\\?", &["?"], &["a"]),
    ("\\[a]", &["[a]"], &["a"]),
    ("a*\\", &[], &["a\\", "a"]),
    ("\\**", &["*", "*x", "d/*"], &["x", "*x/y"]),
    // Other characters stand for themselves.
    ("{a,b}", &["{a,b}"], &["a", "b"]),
    ("a.c", &["a.c"], &["abc"]),
    ("a.c*", &["a.cd"], &["abc"]),
    ("(x|y)+*", &["(x|y)+"], &["x"]),
    ("#a b", &["#a b"], &["a b"]),
    ("line\nfeed*", &["line\nfeed"], &["line"]),
    ("a*z", &["a\nz"], &["a/z"]),
    ("é?", &["éa"], &["é", "éé"]),
    // Regular expressions: anywhere in the path.
    ("re:o", &["foo", "o/x", "x/o"], &["x", "O"]),
    ("re:^a/.*\\.c$", &["a/x.c", "a/b/x.c"], &["x/a/x.c", "a/x.cc"]),
    ("re:\\d{3}", &["a123", "1/123"], &["12/3"]),
    ("re:(?i)foo$", &["FOO", "x/Foo"], &["foo/x"]),
    ("re:^$", &[], &["a"]),
];

#[test]
fn a_pattern_matches_what_it_matches_in_rsync() {
    assert!(MATCHING.len() >= 60);
    for (pattern, matched, unmatched) in MATCHING {
        let set = RuleSet::new(vec![Rule::exclude(pattern.as_bytes()).unwrap()]).unwrap();
        let all = matched.iter().map(|p| (p, Verdict::Exclude));
        for (text, expected) in all.chain(unmatched.iter().map(|p| (p, Verdict::Include))) {
            let bare = text.strip_suffix('/').unwrap_or(text);
            let verdict = set.decide(&path(bare.as_bytes()), text.ends_with('/'));
            assert_eq!(verdict, expected, "pattern {pattern:?}, path {text:?}");
        }
    }
}

#[test]
fn bytes_that_are_not_utf8_match() {
    let set = rules(&[b"-/\xff\xfe", b"-*\x80", b"-a?", b"-[\xf0-\xf2]", br"-re:^x\xff$"]);
    for text in [&b"\xff\xfe"[..], b"d/x\x80", b"a\xff", b"\xf1", b"x\xff"] {
        assert_eq!(set.decide(&path(text), false), Verdict::Exclude, "{text:?}");
    }
    assert_eq!(set.decide(&path(b"\xf3"), false), Verdict::Include);
}

#[test]
fn the_first_matching_rule_wins_whatever_its_kind() {
    let lists: [&[&[u8]]; 4] = [
        &[b"+keep.o", b"-*.o"],
        &[b"+k*.o", b"-keep.o", b"-re:o$"],
        &[b"+re:keep", b"-*.o", b"-keep.o"],
        &[b"-/x/keep.o", b"+/keep.o", b"-keep.o", b"-*"],
    ];
    for list in lists {
        assert_eq!(rules(list).decide(&path(b"keep.o"), false), Verdict::Include, "{list:?}");
        let mut reversed = list.to_vec();
        reversed.reverse();
        assert_eq!(rules(&reversed).decide(&path(b"keep.o"), false), Verdict::Exclude);
    }
}

#[test]
fn order_holds_across_thousands_of_rules() {
    let mut list = Vec::new();
    for n in 0..1500 {
        list.push(Rule::exclude(format!("{n}*.x").as_bytes()).unwrap());
        list.push(Rule::include(format!("{n}y.x").as_bytes()).unwrap());
        list.push(Rule::include(format!("{n}z*").as_bytes()).unwrap());
    }
    let set = RuleSet::new(list).unwrap();
    assert_eq!(set.decide(&path(b"1499y.x"), false), Verdict::Exclude);
    assert_eq!(set.decide(&path(b"1499z"), false), Verdict::Include);
    assert_eq!(set.decide(&path(b"d/1499z.x"), false), Verdict::Exclude);
    assert_eq!(set.decide(&path(b"xyz"), false), Verdict::Include);
}

#[test]
fn t5_admits_checks_every_parent() {
    let set = rules(&[b"-/secret/", b"+*.c", b"+*/", b"-*"]);
    assert!(set.admits(&path(b"a/b/x.c"), false));
    assert!(set.admits(&path(b"a/b"), true));
    assert!(!set.admits(&path(b"a/b"), false));
    assert!(!set.admits(&path(b"secret/x.c"), false));
    assert!(!set.admits(&path(b"secret/a/x.c"), false));
    assert_eq!(set.decide(&path(b"secret/x.c"), false), Verdict::Include);
}

#[test]
fn the_root_and_the_empty_list_include_everything() {
    assert!(RuleSet::default().is_empty());
    assert!(RuleSet::default().admits(&path(b"a/b"), false));
    let all = rules(&[b"-*", b"-**", b"-re:"]);
    assert_eq!(all.decide(&RelPath::root(), true), Verdict::Include);
    assert!(all.admits(&RelPath::root(), true));
    assert!(!all.admits(&path(b"a"), false));
}
