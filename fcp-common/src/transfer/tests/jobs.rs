//! What takes time: the receiver's disk, the sender's hashing. Jobs overtake each other, as those of
//! a pool of workers do.

use std::time::Duration;

use fcp_proto::packet::{Block, WireError};
use fcp_proto::{ConnId, Digest, ErrorCode, FileId, SourceVersion, Violation};

use super::disk::{Handle, joined};
use super::plan::Side;
use super::session::{ROOT_META, Session};
use crate::transfer::RootRule;
use crate::transfer::{Action, FileMeta, Placement};

#[derive(Debug)]
pub(super) enum Job {
    Act(Action<Vec<u8>, Handle>),
    Write {
        file: FileId,
        offset: u64,
        handle: Handle,
        bytes: Vec<u8>,
        digest: Digest,
    },
    Whole {
        file: FileId,
        handle: Handle,
        meta: FileMeta,
        bytes: Vec<u8>,
    },
    /// The source is hashed.
    Hashed {
        file: FileId,
        node: usize,
        version: SourceVersion,
    },
    /// An end finds out that a connection is dead.
    Notice(ConnId, Side),
    Open,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.path))
    }
}

impl Session<'_> {
    pub(super) fn handle_content(
        &mut self,
        block: Block,
        digest: Digest,
        whole: bool,
        bytes: Vec<u8>,
        matches: bool,
    ) -> Result<(), Violation> {
        let (file, offset) = (block.file, block.offset);
        if !matches {
            self.p.log(format_args!("mismatch {block:?}"));
            return self.receiver.handle_mismatch(file, offset, block.len);
        }
        let placed = match whole {
            true => self.receiver.place_whole(file, bytes.len())?,
            false => self.receiver.place(file, offset, block.len)?,
        };
        match placed {
            Placement::Write { handle, size } => {
                assert_eq!(size, handle.version.size);
                self.later(Job::Write { file, offset, handle, bytes, digest });
            }
            Placement::Publish { handle, meta } => {
                self.later(Job::Whole { file, handle, meta, bytes });
            }
            Placement::Discard => {}
        }
        Ok(())
    }

    pub(super) fn later(&mut self, job: Job) {
        let max = self.p.plan.disk.as_nanos() as u64 + 1;
        let delay = Duration::from_nanos(self.p.random.below(max));
        self.at(self.p.now + delay, job);
    }

    pub(super) fn at(&mut self, at: Duration, job: Job) {
        self.jobs.insert((at, self.next_job), job);
        self.next_job += 1;
    }

    pub(super) fn run_job(&mut self, job: Job) {
        self.p.log(format_args!("{}", brief(&job)));
        let fails = self.p.random.chance(self.p.plan.disk_error);
        let done = if fails { Err(WireError::new(ErrorCode::NO_SPACE, "full")) } else { Ok(()) };
        match job {
            Job::Notice(conn, side) => self.notice(conn, side),
            Job::Open => self.open(),
            Job::Hashed { file, node, version } => self.hash_source(file, node, version),
            Job::Write { file, offset, handle, bytes, digest } => {
                self.verify(&handle, offset, &bytes);
                if !fails {
                    self.p.disk.write(&handle, offset, &bytes, digest);
                }
                self.receiver.handle_written(file, offset, bytes.len() as u32, done);
            }
            Job::Whole { file, handle, meta, bytes } => {
                self.verify(&handle, 0, &bytes);
                assert_eq!(bytes.len() as u64, handle.version.size);
                if !fails {
                    self.p.disk.publish(&handle, meta, Some(&bytes));
                }
                self.receiver.handle_published(file, done);
            }
            Job::Act(action) => self.act(action, done),
        }
    }

    /// Nothing is written that is not a part of the announced version.
    fn verify(&self, handle: &Handle, offset: u64, bytes: &[u8]) {
        let content = &self.p.source.versions[&handle.version.token];
        assert!(content[offset as usize..][..bytes.len()] == *bytes, "unverified content");
    }

    fn hash_source(&mut self, file: FileId, node: usize, version: SourceVersion) {
        if self.p.random.chance(self.p.plan.change) {
            self.p.source.change(&mut self.p.random, node);
        }
        if !self.source_is_other(file, node, version) {
            let content = self.p.source.versions[&version.token].clone();
            self.sender.handle_hashed(file, &hashes(&content), self.p.now);
        }
    }

    fn act(&mut self, action: Action<Vec<u8>, Handle>, done: Result<(), WireError>) {
        let (disk, receiver, now) = (&mut self.p.disk, &mut self.receiver, self.p.now);
        match action {
            Action::OpenRoot { .. } => {
                receiver.handle_root_opened(Vec::new(), RootRule::Keep, self.p.stats.sessions > 1);
            }
            Action::MakeDir { dir, parent, name, path, mode } => {
                let full = joined(&parent, &name);
                assert_eq!(full, path.as_bytes());
                let made = done.and_then(|()| disk.make_dir(&full, mode));
                receiver.handle_dir_made(dir, made.map(|made| (full, made)));
            }
            Action::Inspect { file, parent, name, version } => {
                let found = done.map(|()| disk.inspect(&joined(&parent, &name), version));
                receiver.handle_inspected(file, found);
            }
            Action::Link { file, parent, name, target, mtime } => {
                let path = joined(&parent, &name);
                let linked = done.map(|()| disk.link(&path, target, mtime.unwrap_or_default()));
                receiver.handle_linked(file, linked);
            }
            Action::Hash { file, handle } => {
                let found = done.map(|()| hashes(disk.content(&handle.path).unwrap_or_default()));
                receiver.handle_hashed(file, found);
            }
            Action::Recover { file, handle, .. } => {
                receiver.handle_recovered(file, disk.recover(&handle));
            }
            Action::Rehash { file, handle, kept, size } => {
                let bad = disk.rehash(&handle, &kept, size);
                receiver.handle_rehashed(file, &kept, &bad);
            }
            Action::Publish { file, handle, meta } => {
                if done.is_ok() {
                    disk.publish(&handle, meta, None);
                    let published = disk.content(&handle.path).unwrap();
                    let whole = &self.p.source.versions[&handle.version.token];
                    assert!(published == whole.as_slice(), "published incomplete");
                }
                receiver.handle_published(file, done);
            }
            Action::SetMeta { file, handle, meta } => {
                if done.is_ok() {
                    disk.set_meta(&handle.path, meta);
                }
                receiver.handle_meta_set(file, done);
            }
            Action::FinishDir { dir, handle, meta } => {
                if done.is_ok() {
                    disk.set_meta(&handle, meta);
                }
                receiver.handle_dir_finished(dir, done);
            }
            Action::Finish { meta } => {
                let meta = meta.unwrap();
                assert_eq!((meta.mode, meta.mtime), (Some(ROOT_META.0), Some(ROOT_META.1)));
                receiver.handle_finished(now);
            }
            Action::Discard { .. } => unreachable!("done at once"),
        }
    }

    /// The receiver has lost its peer: what is under way on the disk ends.
    pub(super) fn drain_disk(&mut self) {
        while let Some((_, job)) = self.jobs.pop_first() {
            if !matches!(job, Job::Notice(..) | Job::Open | Job::Hashed { .. }) {
                self.run_job(job);
            }
        }
    }
}

fn hashes(content: &[u8]) -> Vec<[u8; 32]> {
    content.chunks(1 << 20).map(|block| *blake3::hash(block).as_bytes()).collect()
}

fn brief(job: &Job) -> String {
    match job {
        Job::Write { file, offset, .. } => format!("write {file:?} {offset}"),
        Job::Whole { file, .. } => format!("whole {file:?}"),
        job => format!("{job:?}"),
    }
}
