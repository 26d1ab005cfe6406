//! Expands the globs of remote operands, where the files are.

use std::io;

use crate::fs::{Base, DirPool, Kind};
use crate::select::operand::{Component, ComponentGlob, has_magic, split_glob};
use crate::walk::SourceRoot;

/// Most operands that one glob may become.
const MAX_MATCHES: usize = 100_000;

/// The operands that `operand` stands for, sorted: itself when it exists as it is spelled or has
/// neither wildcard nor backslash, otherwise what matches. What `base` does not reach matches
/// nothing.
///
/// # Errors
/// `NotFound` when nothing matches.
pub fn expand(base: &Base, operand: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let is_plain = !has_magic(operand) && !operand.contains(&b'\\');
    if is_plain || exists(base, operand) {
        return Ok(vec![operand.to_vec()]);
    }
    let glob = split_glob(operand);
    let start = if glob.absolute { b"/".to_vec() } else { Vec::new() };
    let mut found = vec![start];
    let last = glob.components.len().saturating_sub(1);
    for (i, component) in glob.components.iter().enumerate() {
        let dirs_only = i < last || glob.trailing_slash;
        found = match component {
            Component::Plain(name) => found.into_iter().map(|p| push(p, name)).collect(),
            Component::Magic(glob) => matches_in(base, found, glob, dirs_only),
        };
        if found.len() > MAX_MATCHES {
            return Err(io::Error::other("the pattern matches too many names"));
        }
    }
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

fn matches_in(
    base: &Base,
    parents: Vec<Vec<u8>>,
    glob: &ComponentGlob,
    dirs_only: bool,
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
            if may_descend && glob.matches(&name) && found.len() <= MAX_MATCHES {
                found.push(push(parent.clone(), &name));
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
