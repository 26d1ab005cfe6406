//! The destination in memory: final names, temporary files with journals, and a kernel's habits
//! (whatever is made or removed in a directory changes its mtime).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use fcp_proto::limits::BLOCK;
use fcp_proto::packet::{Outcome, WireError};
use fcp_proto::{Digest, ErrorCode, SourceVersion, Timestamp};

use crate::transfer::{Existing, FileMeta, MadeDir};

#[derive(Default)]
pub(super) struct Disk {
    pub(super) nodes: BTreeMap<Vec<u8>, Node>,
    pub(super) temps: Vec<Rc<RefCell<Temp>>>,
    /// Counts changes of final names and directories.
    changes: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Node {
    File { content: Rc<Vec<u8>>, mtime: Timestamp, mode: u16, change: u64 },
    Dir { mtime: Timestamp, mode: u16 },
    Link { target: Box<[u8]>, mtime: Timestamp },
}

pub(super) struct Temp {
    pub(super) path: Vec<u8>,
    pub(super) version: SourceVersion,
    pub(super) bytes: Vec<u8>,
    pub(super) journal: BTreeMap<u32, Digest>,
}

/// A file as the receiving shell holds it.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) path: Vec<u8>,
    pub(super) version: SourceVersion,
    temp: Rc<RefCell<Held>>,
    /// What stood there when it was looked at.
    seen: Option<u64>,
}

#[derive(Default)]
struct Held {
    temp: Option<Rc<RefCell<Temp>>>,
    discarded: bool,
}

pub(super) fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

pub(super) fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = path.to_vec();
    push(&mut path, name);
    path
}

impl Disk {
    pub(super) fn put_file(&mut self, path: &[u8], content: Vec<u8>, mtime: Timestamp, mode: u16) {
        self.put_parents(path);
        self.changes += 1;
        let node = Node::File { content: Rc::new(content), mtime, mode, change: self.changes };
        self.nodes.insert(path.to_vec(), node);
    }

    pub(super) fn put_parents(&mut self, path: &[u8]) {
        for (at, _) in path.iter().enumerate().filter(|(_, b)| **b == b'/') {
            let dir = Node::Dir { mtime: Timestamp::default(), mode: 0o755 };
            self.nodes.entry(path[..at].to_vec()).or_insert(dir);
        }
    }

    pub(super) fn make_dir(&mut self, path: &[u8], mode: u16) -> Result<MadeDir, WireError> {
        match self.nodes.get(path) {
            None => {
                self.touch(path);
                self.changes += 1;
                let mtime = Timestamp { secs: 9_000_000_000, nanos: 0 };
                self.nodes.insert(path.to_vec(), Node::Dir { mtime, mode: mode | 0o700 });
                Ok(MadeDir { created: true, mode, mtime, widened: mode & 0o700 != 0o700 })
            }
            Some(Node::Dir { mtime, mode }) => {
                Ok(MadeDir { created: false, mode: *mode, mtime: *mtime, widened: false })
            }
            Some(_) => Err(WireError::new(ErrorCode::NOT_DIRECTORY, "in the way")),
        }
    }

    pub(super) fn inspect(&self, path: &[u8], version: SourceVersion) -> (Existing, Handle) {
        let existing = match self.nodes.get(path) {
            None => Existing::Absent,
            Some(Node::Dir { .. }) => Existing::Dir,
            Some(Node::Link { mtime, .. }) => Existing::Symlink { same: false, mtime: *mtime },
            Some(Node::File { content, mtime, mode, .. }) => {
                Existing::File { size: content.len() as u64, mtime: *mtime, mode: *mode }
            }
        };
        let seen = self.change_of(path);
        (existing, Handle { path: path.to_vec(), version, temp: Rc::default(), seen })
    }

    pub(super) fn link(&mut self, path: &[u8], target: Box<[u8]>, mtime: Timestamp) -> Outcome {
        let new = Node::Link { target, mtime };
        match self.nodes.get(path) {
            Some(old) if *old == new => return Outcome::Same,
            Some(Node::Dir { .. }) => {
                return Outcome::Failed(WireError::new(ErrorCode::IS_DIRECTORY, "in the way"));
            }
            _ => {}
        }
        self.touch(path);
        match self.nodes.insert(path.to_vec(), new) {
            None => Outcome::Created,
            Some(_) => Outcome::Replaced,
        }
    }

    /// Blocks of an earlier run, if its version is this one; other leftovers go.
    pub(super) fn recover(&mut self, handle: &Handle) -> Vec<(u32, Digest)> {
        let mut held = handle.temp.borrow_mut();
        let (same_path, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.temps)
            .into_iter()
            .partition(|t| t.borrow().path == handle.path && Rc::strong_count(t) == 1);
        self.temps = rest;
        let found = same_path.into_iter().find(|t| t.borrow().version == handle.version);
        let Some(temp) = found else { return Vec::new() };
        let kept = temp.borrow().journal.iter().map(|(n, d)| (*n, *d)).collect();
        held.temp = Some(temp.clone());
        self.temps.push(temp);
        kept
    }

    pub(super) fn rehash(&self, handle: &Handle, kept: &[(u32, Digest)], size: u64) -> Vec<u32> {
        let held = handle.temp.borrow();
        let Some(temp) = &held.temp else { return Vec::new() };
        let temp = temp.borrow();
        let bad = kept.iter().filter(|(n, digest)| {
            let start = u64::from(*n) * BLOCK;
            let range = start as usize..size.min(start + BLOCK) as usize;
            crate::transfer::assemble::digest(&temp.bytes[range]) != *digest
        });
        bad.map(|(n, _)| *n).collect()
    }

    pub(super) fn write(&mut self, handle: &Handle, offset: u64, bytes: &[u8], digest: Digest) {
        let mut held = handle.temp.borrow_mut();
        if held.discarded {
            return;
        }
        if held.temp.is_none() {
            let bytes = vec![0; handle.version.size as usize];
            let (path, version) = (handle.path.clone(), handle.version);
            let temp = Temp { path, version, bytes, journal: BTreeMap::new() };
            let temp = Rc::new(RefCell::new(temp));
            self.temps.push(temp.clone());
            held.temp = Some(temp);
            self.touch(&handle.path);
        }
        let mut temp = held.temp.as_ref().unwrap().borrow_mut();
        temp.bytes[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
        temp.journal.insert((offset / BLOCK) as u32, digest);
    }

    /// Gives the temporary file its final name; `whole` is content that never had one.
    pub(super) fn publish(&mut self, handle: &Handle, meta: FileMeta, whole: Option<&[u8]>) {
        assert!(!handle.temp.borrow().discarded, "a discarded file is published");
        assert_eq!(self.change_of(&handle.path), handle.seen, "another publish came between");
        let temp = handle.temp.borrow_mut().temp.take();
        let content = match (whole, temp) {
            (Some(whole), temp) => {
                self.forget(temp);
                whole.to_vec()
            }
            (None, Some(temp)) => {
                let bytes = std::mem::take(&mut temp.borrow_mut().bytes);
                self.forget(Some(temp));
                bytes
            }
            (None, None) => Vec::new(),
        };
        self.touch(&handle.path);
        self.changes += 1;
        let node = Node::File {
            content: Rc::new(content),
            mtime: meta.mtime.unwrap_or(Timestamp { secs: 9_000_000_001, nanos: 0 }),
            mode: meta.mode.unwrap_or(0o600),
            change: self.changes,
        };
        self.nodes.insert(handle.path.clone(), node);
    }

    pub(super) fn discard(&mut self, handle: &Handle) {
        let mut held = handle.temp.borrow_mut();
        held.discarded = true;
        let temp = held.temp.take();
        drop(held);
        self.forget(temp);
        self.touch(&handle.path);
    }

    pub(super) fn set_meta(&mut self, path: &[u8], meta: FileMeta) {
        let (mtime, mode) = match self.nodes.get_mut(path).unwrap() {
            Node::File { mtime, mode, .. } | Node::Dir { mtime, mode } => (mtime, mode),
            Node::Link { .. } => unreachable!("links get theirs when they are made"),
        };
        *mtime = meta.mtime.unwrap_or(*mtime);
        *mode = meta.mode.unwrap_or(*mode);
    }

    pub(super) fn content(&self, path: &[u8]) -> Option<&[u8]> {
        match self.nodes.get(path) {
            Some(Node::File { content, .. }) => Some(content),
            _ => None,
        }
    }

    fn forget(&mut self, temp: Option<Rc<RefCell<Temp>>>) {
        if let Some(temp) = temp {
            self.temps.retain(|t| !Rc::ptr_eq(t, &temp));
        }
    }

    fn change_of(&self, path: &[u8]) -> Option<u64> {
        match self.nodes.get(path) {
            Some(Node::File { change, .. }) => Some(*change),
            _ => None,
        }
    }

    /// The directory of `path` gets a new mtime.
    fn touch(&mut self, path: &[u8]) {
        let parent = path.iter().rposition(|b| *b == b'/').map_or(&[][..], |at| &path[..at]);
        self.changes += 1;
        let secs = 9_000_000_002 + self.changes as i64;
        if let Some(Node::Dir { mtime, .. }) = self.nodes.get_mut(parent) {
            *mtime = Timestamp { secs, nanos: 0 };
        }
    }
}
