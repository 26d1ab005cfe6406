//! Opens source operands; those in the same directory share one descriptor.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use fcp_proto::Name;

use crate::fs::{Base, DirPool, Kind, LazyDir, Stat};

/// A source operand, opened.
#[derive(Clone, Debug)]
pub struct SourceRoot {
    /// What its names are relative to.
    parent: Parent,
    /// The one name that is meant; `None` means the directory's contents, and its metadata.
    pub(super) name: Option<Name>,
}

/// A directory that is held for as long as an operand of it is in use: it stays the same one
/// wherever it is moved, and whatever takes its place.
#[derive(Clone, Debug)]
struct Parent {
    dir: Arc<LazyDir>,
    /// What the user typed before the relative path, for messages.
    display: Arc<[u8]>,
}

/// Opens the operands of one request. What is spelled as in the same directory is looked for in
/// the same one, opened once: descriptors are spent on directories, not on operands.
#[derive(Debug)]
pub struct Parents {
    base: Base,
    pool: Arc<DirPool>,
    most: usize,
    held: HashMap<Vec<u8>, Parent>,
}

/// A bound of this end that a request exceeds; travels as LIMIT.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Limit(pub(crate) String);

impl Parents {
    /// For what `base` reaches; at most `most` directories are held for the operands, and below
    /// them `pool` says how many are open.
    pub fn new(base: &Base, pool: &Arc<DirPool>, most: usize) -> Parents {
        Parents { base: base.clone(), pool: Arc::clone(pool), most, held: HashMap::new() }
    }

    /// Opens what `operand` names: `dir/`, `.`, `..` and `dir/.` mean a directory's contents,
    /// anything else the named thing itself, symbolic links not followed.
    ///
    /// # Errors
    /// It is not there or out of reach; one that travels as LIMIT when it is in one directory more
    /// than may be held.
    pub fn open(&mut self, operand: &[u8]) -> io::Result<SourceRoot> {
        let (spelled, name) = split_operand(operand);
        let known = self.held.get(spelled).cloned();
        let is_new = known.is_none();
        let parent = known.map_or_else(|| self.open_parent(spelled), Ok)?;
        let root = SourceRoot { parent, name };
        if let Some(name) = &root.name {
            root.stat(name)?;
        }
        // Only now: what is not there is no reason to hold its directory.
        if is_new {
            self.hold(spelled, &root.parent)?;
        }
        Ok(root)
    }

    fn open_parent(&self, spelled: &[u8]) -> io::Result<Parent> {
        let dir = Arc::new(self.base.open_dir(spelled)?);
        let display: Arc<[u8]> = match spelled {
            b"." => Arc::from(&b""[..]),
            p if p.ends_with(b"/") => p.into(),
            p => [p, b"/"].concat().into(),
        };
        Ok(Parent { dir: LazyDir::root(dir, Arc::clone(&self.pool)), display })
    }

    fn hold(&mut self, spelled: &[u8], parent: &Parent) -> io::Result<()> {
        if self.held.len() >= self.most {
            let text = format!("the sources are in more than {} directories", self.most);
            return Err(io::Error::other(Limit(text)));
        }
        self.held.insert(spelled.to_vec(), parent.clone());
        Ok(())
    }
}

impl SourceRoot {
    /// Opens a single operand, as [`Parents::open`] does.
    pub fn open(operand: &[u8], pool: &Arc<DirPool>) -> io::Result<SourceRoot> {
        SourceRoot::open_in(&Base::Unrestricted, operand, pool)
    }

    /// As [`SourceRoot::open`], for what `base` reaches.
    pub fn open_in(base: &Base, operand: &[u8], pool: &Arc<DirPool>) -> io::Result<SourceRoot> {
        Parents::new(base, pool, 1).open(operand)
    }

    /// Whether the operand names something that is not a directory.
    pub fn is_single(&self) -> bool {
        let kind = self.name.as_ref().and_then(|n| self.stat(n).ok()).map(|s| s.kind);
        kind.is_some_and(|k| k != Kind::Dir)
    }

    /// The directory that names are relative to.
    pub(super) fn dir(&self) -> &Arc<LazyDir> {
        &self.parent.dir
    }

    /// What the user typed before the relative path.
    pub(super) fn display(&self) -> &Arc<[u8]> {
        &self.parent.display
    }

    pub(super) fn stat(&self, name: &Name) -> io::Result<Stat> {
        self.dir().get()?.stat(name)?.ok_or_else(not_found)
    }
}

/// With the words that people know from other programs; the standard library has "entity".
fn not_found() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no such file or directory")
}

/// An operand's directory and the name in it that is meant; no name means the contents.
fn split_operand(operand: &[u8]) -> (&[u8], Option<Name>) {
    let last = operand.rsplit(|b| *b == b'/').next().unwrap_or(operand);
    match Name::new(last) {
        Ok(name) => {
            let head = &operand[..operand.len() - last.len()];
            (if head.is_empty() { b"." } else { head }, Some(name))
        }
        // "dir/", ".", "..", "dir/." and "": a directory's contents.
        Err(_) => (if operand.is_empty() { b"." } else { operand }, None),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fcp_proto::ErrorCode;

    use super::*;
    use crate::walk::io_error;

    fn parents(base: &Path, most: usize) -> Parents {
        Parents::new(&Base::beneath(base).unwrap(), &DirPool::new(1), most)
    }

    /// Descriptors on `dir` and what is below it; other tests of this process have theirs.
    fn descriptors_on(dir: &Path) -> usize {
        let fds = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
        fds.filter_map(|fd| std::fs::read_link(fd.path()).ok())
            .filter(|to| to.starts_with(dir))
            .count()
    }

    #[test]
    fn operands_of_one_directory_cost_one_descriptor() {
        let temp = tempfile::tempdir().unwrap();
        let many = temp.path().canonicalize().unwrap().join("many");
        std::fs::create_dir(&many).unwrap();
        let mut parents = parents(temp.path(), 1);
        let roots: Vec<_> = (0..5000)
            .map(|i| {
                std::fs::write(many.join(i.to_string()), "").unwrap();
                parents.open(format!("many/{i}").as_bytes()).unwrap()
            })
            .collect();
        assert_eq!(descriptors_on(&many), 1);
        drop(parents);
        assert!(roots.iter().all(SourceRoot::is_single));
        drop(roots);
        assert_eq!(descriptors_on(&many), 0);
    }

    #[test]
    fn one_directory_too_many_is_a_limit_and_the_known_ones_go_on() {
        let temp = tempfile::tempdir().unwrap();
        for dir in ["a", "b", "c"] {
            std::fs::create_dir(temp.path().join(dir)).unwrap();
            std::fs::write(temp.path().join(dir).join("file"), "").unwrap();
        }
        let mut parents = parents(temp.path(), 2);
        for fine in ["a/file", "b/file"] {
            parents.open(fine.as_bytes()).unwrap();
        }
        for beyond in ["c/file", "c/", "./a/file"] {
            let error = io_error(&parents.open(beyond.as_bytes()).unwrap_err());
            assert_eq!(error.code, ErrorCode::LIMIT, "{beyond}");
            assert!(error.text.contains("more than 2 directories"), "{}", error.text);
        }
        let missing = parents.open(b"c/none").unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        parents.open(b"a/file").unwrap();
        assert_eq!(descriptors_on(&temp.path().canonicalize().unwrap()), 3, "a, b and the base");
    }

    #[test]
    fn what_is_not_there_holds_no_directory() {
        let temp = tempfile::tempdir().unwrap();
        for dir in ["a", "b"] {
            std::fs::create_dir(temp.path().join(dir)).unwrap();
        }
        std::fs::write(temp.path().join("b/file"), "").unwrap();
        let mut parents = parents(temp.path(), 1);
        parents.open(b"a/none").unwrap_err();
        parents.open(b"b/file").unwrap();
    }

    #[test]
    fn r06_operands_stay_in_the_directory_that_was_opened_first() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        std::fs::create_dir_all(path("dir")).unwrap();
        std::fs::write(path("dir/old"), "").unwrap();
        let mut parents = parents(temp.path(), 1);
        let first = parents.open(b"dir/old").unwrap();
        std::fs::rename(path("dir"), path("moved")).unwrap();
        std::fs::create_dir(path("dir")).unwrap();
        std::fs::write(path("dir/new"), "").unwrap();
        assert!(first.is_single() && parents.open(b"dir/old").unwrap().is_single());
        assert_eq!(parents.open(b"dir/new").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
