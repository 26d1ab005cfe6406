//! What a pulling client accepts from a server at top level.
//!
//! A server may send names that nobody asked for, to overwrite `.bashrc` where the client runs
//! (CVE-2019-6111). So the client derives from its own operands which top-level names can be
//! answers, and refuses the rest; include and exclude rules are checked separately, with
//! [`super::RuleSet::admits`].

use fcp_proto::{Name, RelPath};

use super::operand::{ComponentGlob, has_magic, unescape};

/// The top-level names that a pull may bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted(Vec<Accept>);

/// What one operand allows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Accept {
    /// A directory's contents, whose names only the server knows.
    Anything,
    /// Exactly this name.
    Named(Name),
    /// Whatever the glob matches.
    Matching(ComponentGlob),
}

impl Wanted {
    /// From the path part of every source operand as the user typed it.
    ///
    /// `a/b` allows `b` (`a\*b` also `a*b`); `a/*.txt` what `*.txt` matches, and `*.txt` itself; `a/`, `a/.`, `a/..`,
    /// `~`, `/` and the empty operand (the home directory) mean a directory's contents and allow
    /// every name. No operands allow nothing.
    pub fn from_sources<S: AsRef<[u8]>>(operands: &[S]) -> Wanted {
        Wanted(operands.iter().flat_map(|operand| accepted(operand.as_ref())).collect())
    }

    /// Whether `path` lies at or below an allowed top-level name; the root always does.
    pub fn admits(&self, path: &RelPath) -> bool {
        path.components().next().is_none_or(|top| self.0.iter().any(|accept| accept.admits(&top)))
    }

    /// Whether some operand means a directory's contents, so that the destination becomes it.
    pub fn has_contents(&self) -> bool {
        self.0.iter().any(|accept| matches!(accept, Accept::Anything))
    }

    /// The name, when only one is possible.
    pub fn single_name(&self) -> Option<Name> {
        let mut single = None;
        for accept in &self.0 {
            match accept {
                Accept::Named(name) if single.is_none_or(|other| other == name) => {
                    single = Some(name);
                }
                _ => return None,
            }
        }
        single.cloned()
    }
}

impl Accept {
    fn admits(&self, top: &Name) -> bool {
        match self {
            Accept::Anything => true,
            Accept::Named(name) => name == top,
            Accept::Matching(glob) => glob.matches(top),
        }
    }
}

fn accepted(operand: &[u8]) -> Vec<Accept> {
    let last = operand.rsplit(|b| *b == b'/').next().unwrap_or_default();
    let is_home = operand == b"~";
    if is_home || matches!(last, b"" | b"." | b"..") {
        return vec![Accept::Anything];
    }
    // The server first looks for the name as typed. A name longer than any file's, or with a
    // NUL, can have no answer.
    let mut accepted: Vec<_> = Name::new(last).map(Accept::Named).into_iter().collect();
    if has_magic(last) {
        accepted.push(Accept::Matching(ComponentGlob::new(last)));
    } else {
        // When no name is as typed, the server expands, and takes the backslashes off.
        accepted.extend(unescaped(last));
    }
    accepted
}

/// The name that an escaped component stands for: `.` and `..` again mean any contents.
fn unescaped(last: &[u8]) -> Option<Accept> {
    match unescape(last).as_slice() {
        same if same == last => None,
        b"." | b".." => Some(Accept::Anything),
        name => Name::new(name).map(Accept::Named).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(operands: &[&str], path: &str) -> bool {
        Wanted::from_sources(operands).admits(&RelPath::new(path.as_bytes()).unwrap())
    }

    #[test]
    fn p11_a_named_operand_allows_that_name_and_what_is_below() {
        for operand in ["b", "a/b", "/a/b", "~/b", "../b", "*/b", "a//b"] {
            assert!(admits(&[operand], "b"), "{operand}");
            assert!(admits(&[operand], "b/c/d"), "{operand}");
            for other in ["a", "bb", ".bashrc", "c/b", "~", "B"] {
                assert!(!admits(&[operand], other), "{operand} {other}");
            }
        }
    }

    #[test]
    fn p11_contents_of_a_directory_may_have_any_name() {
        for operand in ["", "a/", "a/b//", ".", "..", "a/.", "a/..", "~", "~/", "/", "a/*/", "*/."]
        {
            assert!(admits(&[operand], "x"), "{operand}");
            assert!(admits(&[operand], ".x/y"), "{operand}");
            assert_eq!(Wanted::from_sources(&[operand]).single_name(), None);
        }
    }

    #[test]
    fn p12_a_glob_allows_what_it_matches_and_itself() {
        for good in ["x.txt", "*.txt", "x.txt/below"] {
            assert!(admits(&["a/*.txt"], good), "{good}");
        }
        for bad in [".txt", ".x.txt", ".bashrc", "x.txt2", "a", "x/x.txt"] {
            assert!(!admits(&["a/*.txt"], bad), "{bad}");
        }
        assert!(admits(&["[ab]"], "[ab]") && admits(&["[ab]"], "a"));
        assert!(!admits(&["*"], ".ssh") && admits(&[".*"], ".ssh"));
        assert!(admits(&["[x"], "[x") && !admits(&["[x"], "x"));
    }

    #[test]
    fn p12_a_backslash_is_part_of_the_name_or_escapes_and_both_may_be_the_answer() {
        for operand in [r"a\b", r"*/a\b"] {
            assert!(admits(&[operand], "ab") && admits(&[operand], r"a\b"));
            assert!(!admits(&[operand], "b"));
        }
        assert!(admits(&[r"\*"], r"\*") && admits(&[r"\*"], "*") && !admits(&[r"\*"], "x"));
        assert!(admits(&[r"\.."], "x"));
    }

    #[test]
    fn p11_several_operands_allow_their_union() {
        assert!(admits(&["a", "b/*.c"], "a") && admits(&["a", "b/*.c"], "x.c"));
        assert!(!admits(&["a", "b/*.c"], "b"));
        assert!(!Wanted::from_sources::<&[u8]>(&[]).admits(&RelPath::new(b"a").unwrap()));
    }

    #[test]
    fn a_single_name_is_known_only_when_there_is_one() {
        let single = |operands: &[&str]| Wanted::from_sources(operands).single_name();
        let b = Some(Name::new(b"b").unwrap());
        assert_eq!(single(&["a/b"]), b);
        assert_eq!(single(&["a/b", "c/b"]), b);
        assert_eq!(single(&["*/b"]), b);
        for several in [&["a", "b"][..], &["*"], &["a/b", "c/"], &[r"a\b"], &[]] {
            assert_eq!(single(several), None, "{several:?}");
        }
    }
}
