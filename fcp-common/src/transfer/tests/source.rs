//! The source tree in memory, and every version that any of its files ever had.

use std::collections::HashMap;
use std::rc::Rc;

use fcp_proto::packet::{Entry, EntryBody};
use fcp_proto::{DirId, FileId, Name, SourceVersion, Timestamp};

use super::random::{Random, content};

pub(super) struct Source {
    pub(super) nodes: Vec<Node>,
    /// Content by token: what may ever stand under a final name.
    pub(super) versions: HashMap<u64, Rc<Vec<u8>>>,
    next: u64,
}

pub(super) struct Node {
    pub(super) name: Name,
    pub(super) parent: Option<usize>,
    pub(super) mode: u16,
    pub(super) mtime: Timestamp,
    pub(super) body: Body,
}

#[derive(Clone)]
pub(super) enum Body {
    Dir,
    Link(Box<[u8]>),
    File(u64),
    /// It was a file.
    Vanished,
}

/// What a walker does next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Announce(usize),
    End(usize),
}

impl Source {
    pub(super) fn new() -> Source {
        Source { nodes: Vec::new(), versions: HashMap::new(), next: 1 }
    }

    /// A tree of `files` files, at most `big` of them longer than a block.
    pub(super) fn random(random: &mut Random, files: u64, big: u64) -> Source {
        let mut source = Source::new();
        let mut dirs = vec![None];
        let mut left = big;
        for _ in 0..files {
            let parent = dirs[random.below(dirs.len() as u64) as usize];
            match random.below(8) {
                0 => dirs.push(Some(source.add(random, parent, Body::Dir))),
                1 => {
                    source.add(random, parent, Body::Link(b"somewhere/else"[..].into()));
                }
                _ => {
                    let mut size = random_size(random);
                    if size > 70_000 {
                        size = if left == 0 { size % 70_000 } else { size };
                        left = left.saturating_sub(1);
                    }
                    source.add_file(random, parent, size);
                }
            }
        }
        source
    }

    pub(super) fn add(&mut self, random: &mut Random, parent: Option<usize>, body: Body) -> usize {
        let n = self.nodes.len();
        let name = Name::new(format!("n{n}").as_bytes()).unwrap();
        let mode = 0o600 | (random.below(0o100) as u16);
        let mtime = self.tick();
        self.nodes.push(Node { name, parent, mode, mtime, body });
        n
    }

    pub(super) fn add_file(
        &mut self,
        random: &mut Random,
        parent: Option<usize>,
        size: u64,
    ) -> usize {
        let token = self.version(random.next(), size);
        self.add(random, parent, Body::File(token))
    }

    /// Somebody writes to the file.
    pub(super) fn change(&mut self, random: &mut Random, node: usize) {
        let Body::File(token) = self.nodes[node].body else { return };
        let old = self.versions[&token].len() as u64;
        let size = if random.chance(5000) { old } else { random_size(random) % (old + 10_000) };
        let token = self.version(random.next(), size);
        self.nodes[node].body = Body::File(token);
        self.nodes[node].mtime = self.tick();
    }

    pub(super) fn path(&self, node: usize) -> Vec<u8> {
        let n = &self.nodes[node];
        let mut path = n.parent.map_or_else(Vec::new, |p| self.path(p));
        super::disk::push(&mut path, &n.name);
        path
    }

    pub(super) fn entry(&self, node: usize, id: FileId, parent: DirId) -> Entry {
        let n = &self.nodes[node];
        let body = match &n.body {
            Body::Dir => EntryBody::Dir,
            Body::Link(target) => EntryBody::Symlink { target: target.clone() },
            Body::File(token) => {
                EntryBody::File { size: self.versions[token].len() as u64, token: *token }
            }
            Body::Vanished => unreachable!("a walker does not see it"),
        };
        Entry { id, parent, name: n.name.clone(), mode: n.mode, mtime: n.mtime, body }
    }

    /// What stands there now; `None` when it vanished.
    pub(super) fn current(&self, node: usize) -> Option<SourceVersion> {
        match self.nodes[node].body {
            Body::File(token) => {
                let size = self.versions[&token].len() as u64;
                Some(SourceVersion { size, mtime: self.nodes[node].mtime, token })
            }
            _ => None,
        }
    }

    /// The order of a walker that goes down as soon as it meets a directory.
    pub(super) fn walk(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        self.walk_below(None, &mut steps);
        steps
    }

    pub(super) fn content_bytes(&self) -> u64 {
        (0..self.nodes.len()).filter_map(|n| self.current(n)).map(|v| v.size).sum()
    }

    fn walk_below(&self, dir: Option<usize>, steps: &mut Vec<Step>) {
        for (n, node) in self.nodes.iter().enumerate() {
            if node.parent == dir && !matches!(node.body, Body::Vanished) {
                steps.push(Step::Announce(n));
                if matches!(node.body, Body::Dir) {
                    self.walk_below(Some(n), steps);
                    steps.push(Step::End(n));
                }
            }
        }
    }

    fn version(&mut self, seed: u64, size: u64) -> u64 {
        let token = self.next;
        self.next += 1;
        self.versions.insert(token, Rc::new(content(seed, size as usize)));
        token
    }

    fn tick(&mut self) -> Timestamp {
        self.next += 1;
        Timestamp { secs: 1_000_000 + self.next as i64, nanos: 5 }
    }
}

fn random_size(random: &mut Random) -> u64 {
    let max = [1, 2, 100, 60 * 1024 + 2, 70_000, 1 << 20, (1 << 20) + 2, 4 << 20];
    let max = max[random.below(8) as usize];
    if random.chance(2000) { max - 1 } else { random.below(max) }
}
