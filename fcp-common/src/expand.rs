//! Expands the globs of remote operands, where the files are.

use std::io;

use crate::fs::{Base, DirPool, Kind};
use crate::select::operand::{Component, ComponentGlob, SplitGlob, has_magic, split_glob};
use crate::walk::{Limit, SourceRoot};

/// Most names that all patterns of a request may match together: a hundred times what a user types
/// them for, and some 10 MB of paths.
pub const MAX_MATCHES: usize = 100_000;

/// The operands that `operand` stands for, sorted: itself when it exists as it is spelled or has
/// neither wildcard nor backslash, otherwise what matches. What `base` does not reach matches
/// nothing. `left` is how many names the patterns of this request may still match, at first
/// [`MAX_MATCHES`]; once it is exceeded it is 0, so that no further pattern is worked on.
///
/// # Errors
/// `NotFound` when nothing matches; one that travels as LIMIT when too much does.
pub fn expand(base: &Base, operand: &[u8], left: &mut usize) -> io::Result<Vec<Vec<u8>>> {
    let is_plain = !has_magic(operand) && !operand.contains(&b'\\');
    if is_plain || exists(base, operand) {
        return Ok(vec![operand.to_vec()]);
    }
    let glob = split_glob(operand);
    let mut found = candidates(base, &glob, left)?;
    found.retain(|path| exists(base, path));
    if glob.trailing_slash {
        found.iter_mut().for_each(|path| path.push(b'/'));
    }
    found.sort_unstable();
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "nothing there matches"));
    }
    Ok(found)
}

/// What `glob` matches, if it exists. The level with the most names is what it costs of `left`.
fn candidates(base: &Base, glob: &SplitGlob, left: &mut usize) -> io::Result<Vec<Vec<u8>>> {
    let start = if glob.absolute { b"/".to_vec() } else { Vec::new() };
    let mut found = vec![start];
    let mut cost = found.len();
    check(cost, left)?;
    let last = glob.components.len().saturating_sub(1);
    for (i, component) in glob.components.iter().enumerate() {
        let dirs_only = i < last || glob.trailing_slash;
        found = match component {
            Component::Plain(name) => found.into_iter().map(|p| push(p, name)).collect(),
            Component::Magic(glob) => matches_in(base, found, (glob, dirs_only), *left),
        };
        cost = cost.max(found.len());
        check(cost, left)?;
    }
    *left -= cost;
    Ok(found)
}

fn check(cost: usize, left: &mut usize) -> io::Result<()> {
    if cost <= *left {
        return Ok(());
    }
    *left = 0;
    let text = format!("the patterns match more than {MAX_MATCHES} names");
    Err(io::Error::other(Limit(text)))
}

/// What matches in `parents`, and one more name than `most` if there are too many.
fn matches_in(
    base: &Base,
    parents: Vec<Vec<u8>>,
    (glob, dirs_only): (&ComponentGlob, bool),
    most: usize,
) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for parent in parents {
        let shown: &[u8] = if parent.is_empty() { b"." } else { &parent };
        // What cannot be listed matches nothing, as in a shell.
        let Ok(dir) = base.open_dir(shown) else { continue };
        let Ok(entries) = dir.entries() else { continue };
        for entry in entries.filter_map(Result::ok) {
            let Ok(name) = entry.name else { continue };
            let may_descend = !dirs_only || !matches!(entry.kind, Some(Kind::File | Kind::Other));
            if may_descend && glob.matches(&name) {
                found.push(push(parent.clone(), &name));
                if found.len() > most {
                    return found;
                }
            }
        }
    }
    found
}

fn exists(base: &Base, operand: &[u8]) -> bool {
    SourceRoot::open_in(base, operand, &DirPool::new(1)).is_ok()
}

fn push(mut path: Vec<u8>, name: &[u8]) -> Vec<u8> {
    if !path.is_empty() && !path.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

#[cfg(test)]
mod tests {
    use fcp_proto::ErrorCode;

    use super::*;
    use crate::walk::io_error;

    #[test]
    fn patterns_match_no_more_names_than_are_left() {
        let temp = tempfile::tempdir().unwrap();
        for name in ["a1", "a2", "a3", "b1"] {
            std::fs::write(temp.path().join(name), "").unwrap();
        }
        let base = Base::beneath(temp.path()).unwrap();
        let mut left = 5;
        assert_eq!(expand(&base, b"a*", &mut left).unwrap().len(), 3);
        assert_eq!(left, 2);
        for _ in 0..2 {
            let error = io_error(&expand(&base, b"a*", &mut left).unwrap_err());
            assert_eq!((error.code, left), (ErrorCode::LIMIT, 0));
        }
        assert!(expand(&base, b"b*", &mut left).is_err(), "nothing is left, for small ones too");
        assert_eq!(expand(&base, b"b1", &mut left).unwrap(), [b"b1"]);
    }

    #[test]
    fn what_a_pattern_passes_through_counts_too() {
        let temp = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            std::fs::create_dir(temp.path().join(name)).unwrap();
        }
        let base = Base::beneath(temp.path()).unwrap();
        let mut left = 4;
        let missing = expand(&base, b"*/none", &mut left).unwrap_err();
        assert_eq!((missing.kind(), left), (io::ErrorKind::NotFound, 1));
    }
}
