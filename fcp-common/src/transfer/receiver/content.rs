//! One file from the first look to its final name.

use fcp_proto::limits::BLOCK;
use fcp_proto::packet::{FileDigests, Outcome, Want, WireError, Written};
use fcp_proto::version::Feature;
use fcp_proto::{Digest, EntryKind, ErrorCode, FileId, Flag, Violation};

use super::Receiver;
use super::types::{Action, Done, Existing, FileMeta, Placement, State};
use crate::range_set::RangeSet;

/// A block may arrive damaged this often before its file is given up (cases D03, W14).
const MAX_MISMATCHES: u8 = 3;

impl<D: Clone, F: Clone> Receiver<D, F> {
    /// What stands under a file's name, and the handle for everything that follows.
    pub fn handle_inspected(&mut self, id: FileId, found: Result<(Existing, F), WireError>) {
        let (existing, handle) = match found {
            Ok(found) => found,
            Err(error) => return self.fail(id, error),
        };
        let Some(file) = self.files.get_mut(&id) else { return };
        file.handle = Some(handle);
        file.existed = existing != Existing::Absent;
        let wanted = file.entry.version();
        match existing {
            Existing::Dir => {
                let text = "a directory is in the way";
                self.fail(id, WireError::new(ErrorCode::IS_DIRECTORY, text));
            }
            Existing::File { size, mtime, mode } => {
                file.old_mode = Some(mode);
                let same_time = mtime == wanted.mtime;
                file.same_time = same_time;
                if size != wanted.size {
                    self.need_content(id);
                } else if size == 0 || (same_time && !self.config.checksum) {
                    self.same_content(id);
                } else if self.agreed.supports(Feature::Compare) {
                    self.compare(id);
                } else {
                    self.need_content(id);
                }
            }
            _ => self.need_content(id),
        }
    }

    /// The hashes of what stands at the destination; an error counts as other content.
    pub fn handle_hashed(&mut self, id: FileId, hashes: Result<Vec<[u8; 32]>, WireError>) {
        let Some(file) = self.files.get_mut(&id) else { return };
        if let State::Comparing { ours, .. } = &mut file.state {
            *ours = Some(hashes.unwrap_or_default());
            self.compare_if_ready(id);
        }
    }

    /// Blocks that an earlier run left, by number, with their journalled digests.
    pub fn handle_recovered(&mut self, id: FileId, kept: Vec<(u32, Digest)>) {
        let Some(file) = self.files.get_mut(&id) else { return };
        let size = file.entry.size();
        let kept: Vec<_> = kept.into_iter().filter(|(n, _)| block_start(*n) < size).collect();
        let mut missing = RangeSet::of(0..size);
        for (n, _) in &kept {
            missing.remove(block_range(*n, size));
        }
        let ranges = if kept.is_empty() { Vec::new() } else { missing.iter().collect() };
        if !missing.is_empty() {
            self.wants.extend(split_want(id, ranges));
        }
        file.state = State::Wanted { missing, writing: Vec::new(), rehashing: !kept.is_empty() };
        if let (Some(handle), false) = (file.handle.clone(), kept.is_empty()) {
            self.actions.push_back(Action::Rehash { file: id, handle, kept, size });
        }
    }

    /// Which kept blocks do not match their digests.
    pub fn handle_rehashed(&mut self, id: FileId, kept: &[(u32, Digest)], bad: &[u32]) {
        let Some(file) = self.files.get_mut(&id) else { return };
        let size = file.entry.size();
        let State::Wanted { missing, rehashing, .. } = &mut file.state else { return };
        *rehashing = false;
        for (n, _) in kept {
            let range = block_range(*n, size);
            if bad.contains(n) {
                missing.insert(range.clone());
                self.wants.push(Want { file: id, ranges: vec![range] });
            } else {
                self.summary.kept += range.end - range.start;
            }
        }
        self.publish_if_complete(id);
    }

    /// Where a block that arrived and matched its digest should go.
    pub fn place(&mut self, id: FileId, offset: u64, len: u32) -> Result<Placement<F>, Violation> {
        let Some(file) = self.wanted_file(id, Flag::BLOCK)? else { return Ok(Placement::Discard) };
        let size = file.entry.size();
        if offset >= size || u64::from(len) != BLOCK.min(size - offset) {
            return Err(Violation::rule(Flag::BLOCK, "does not fit its file"));
        }
        let State::Wanted { missing, writing, .. } = &mut file.state else {
            return Ok(Placement::Discard);
        };
        let range = offset..offset + u64::from(len);
        if !missing.contains(&range) || writing.contains(&offset) {
            return Ok(Placement::Discard);
        }
        writing.push(offset);
        let handle = file.handle.clone();
        Ok(handle.map_or(Placement::Discard, |handle| Placement::Write { handle, size }))
    }

    /// Where a whole file that arrived and matched its digest should go.
    pub fn place_whole(&mut self, id: FileId, len: usize) -> Result<Placement<F>, Violation> {
        let Some(file) = self.wanted_file(id, Flag::WHOLE)? else { return Ok(Placement::Discard) };
        let size = file.entry.size();
        if size != len as u64 {
            return Err(Violation::rule(Flag::WHOLE, "is not as long as its file"));
        }
        let State::Wanted { missing, writing, rehashing } = &file.state else {
            return Ok(Placement::Discard);
        };
        if *rehashing || !writing.is_empty() || !missing.contains(&(0..size)) {
            return Ok(Placement::Discard);
        }
        file.state = State::Publishing;
        self.summary.received += size;
        let Some(file) = self.files.get(&id) else { return Ok(Placement::Discard) };
        let meta = self.config.meta(&file.entry, file.old_mode);
        Ok(file
            .handle
            .clone()
            .map_or(Placement::Discard, |handle| Placement::Publish { handle, meta }))
    }

    /// A block was written, or could not be.
    pub fn handle_written(&mut self, id: FileId, offset: u64, len: u32, done: Done) {
        if let Err(error) = done {
            return self.fail(id, error);
        }
        let Some(file) = self.files.get_mut(&id) else { return };
        if let State::Wanted { missing, writing, .. } = &mut file.state {
            writing.retain(|o| *o != offset);
            missing.remove(offset..offset + u64::from(len));
            self.written.push(Written { file: id, offset });
            self.summary.received += u64::from(len);
            self.publish_if_complete(id);
        }
    }

    /// A block, or a whole small file, did not match its digest: it is asked for again.
    pub fn handle_mismatch(&mut self, id: FileId, offset: u64, len: u32) -> Result<(), Violation> {
        let Some(file) = self.wanted_file(id, Flag::BLOCK)? else { return Ok(()) };
        let size = file.entry.size();
        if offset >= size || offset + u64::from(len) > size || !offset.is_multiple_of(BLOCK) {
            return Err(Violation::rule(Flag::BLOCK, "does not fit its file"));
        }
        let range = offset..size.min(offset + BLOCK);
        match &file.state {
            State::Wanted { missing, writing, .. }
                if missing.contains(&range) && !writing.contains(&offset) => {}
            // Another copy was good.
            _ => return Ok(()),
        }
        file.mismatches += 1;
        if file.mismatches > MAX_MISMATCHES {
            let text = "its content arrived damaged again and again";
            self.fail(id, WireError::new(ErrorCode::MISMATCH, text));
        } else {
            self.wants.push(Want { file: id, ranges: vec![range] });
        }
        Ok(())
    }

    /// A file has its final name, or could not get it.
    pub fn handle_published(&mut self, id: FileId, done: Done) {
        if let Err(error) = done {
            return self.fail(id, error);
        }
        if let Some(file) = self.files.remove(&id) {
            self.touch(file.entry.parent);
            self.settle(id, &file.entry, file.outcome());
        }
    }

    /// A symbolic link was made, was there already, or could not be made.
    pub fn handle_linked(&mut self, id: FileId, done: Result<Outcome, WireError>) {
        let Some(file) = self.files.remove(&id) else { return };
        let outcome = done.unwrap_or_else(Outcome::Failed);
        if outcome != Outcome::Same {
            self.touch(file.entry.parent);
        }
        self.settle(id, &file.entry, outcome);
    }

    /// A file's metadata is set, or could not be.
    pub fn handle_meta_set(&mut self, id: FileId, done: Done) {
        if let Some(file) = self.files.remove(&id) {
            let outcome = done.map_or_else(Outcome::Failed, |()| Outcome::Metadata);
            self.settle(id, &file.entry, outcome);
        }
    }

    pub(super) fn handle_digests(&mut self, digests: FileDigests) -> Result<(), Violation> {
        let rule = |reason| Err(Violation::rule(Flag::DIGESTS, reason));
        let id = digests.file;
        let Some(file) = self.files.get_mut(&id) else {
            return if id.0 < self.next_id { Ok(()) } else { rule("names an unknown file") };
        };
        let blocks = file.entry.size().div_ceil(BLOCK);
        let State::Comparing { theirs, .. } = &mut file.state else {
            return rule("was not asked for");
        };
        let total = theirs.len() + digests.hashes.len();
        if digests.first as usize != theirs.len() || total as u64 > blocks {
            return rule("does not continue the ones before it");
        }
        theirs.extend(digests.hashes);
        self.compare_if_ready(id);
        Ok(())
    }

    fn compare(&mut self, id: FileId) {
        let Some(file) = self.files.get_mut(&id) else { return };
        file.state = State::Comparing { ours: None, theirs: Vec::new() };
        self.digests_wanted.push(id);
        if let Some(handle) = file.handle.clone() {
            self.actions.push_back(Action::Hash { file: id, handle });
        }
    }

    fn compare_if_ready(&mut self, id: FileId) {
        let Some(file) = self.files.get(&id) else { return };
        let blocks = file.entry.size().div_ceil(BLOCK);
        if let State::Comparing { ours: Some(ours), theirs } = &file.state
            && theirs.len() as u64 == blocks
        {
            if ours == theirs { self.same_content(id) } else { self.need_content(id) }
        }
    }

    /// The content is right; perhaps mode and mtime are not.
    fn same_content(&mut self, id: FileId) {
        let Some(file) = self.files.get_mut(&id) else { return };
        let meta = self.config.meta(&file.entry, file.old_mode);
        let mode = meta.mode.filter(|m| file.old_mode != Some(*m));
        let mtime = meta.mtime.filter(|_| !file.same_time);
        let meta = FileMeta { mode, mtime };
        let outcome = if meta == FileMeta::default() { Outcome::Same } else { Outcome::Metadata };
        if outcome == Outcome::Same || self.config.dry_run {
            if let Some(file) = self.files.remove(&id) {
                self.settle(id, &file.entry, outcome);
            }
            return;
        }
        file.state = State::Disk;
        if let Some(handle) = file.handle.clone() {
            self.actions.push_back(Action::SetMeta { file: id, handle, meta });
        }
    }

    fn need_content(&mut self, id: FileId) {
        let Some(file) = self.files.get_mut(&id) else { return };
        if self.config.dry_run {
            let outcome = file.outcome();
            if let Some(file) = self.files.remove(&id) {
                self.touch(file.entry.parent);
                self.settle(id, &file.entry, outcome);
            }
            return;
        }
        let version = file.entry.version();
        file.state = State::Disk;
        let Some(handle) = file.handle.clone() else { return };
        if version.size == 0 {
            self.publish(id);
        } else if self.recover {
            self.actions.push_back(Action::Recover { file: id, handle, version });
        } else {
            self.handle_recovered(id, Vec::new());
        }
    }

    fn publish_if_complete(&mut self, id: FileId) {
        let Some(file) = self.files.get(&id) else { return };
        if let State::Wanted { missing, writing, rehashing: false } = &file.state
            && missing.is_empty()
            && writing.is_empty()
        {
            self.publish(id);
        }
    }

    fn publish(&mut self, id: FileId) {
        let Some(file) = self.files.get_mut(&id) else { return };
        file.state = State::Publishing;
        let meta = self.config.meta(&file.entry, file.old_mode);
        if let Some(handle) = file.handle.clone() {
            self.actions.push_back(Action::Publish { file: id, handle, meta });
        }
    }

    /// A file that content may arrive for; `None` when it is finished or void, so that content for
    /// it is late and not wrong.
    fn wanted_file(
        &mut self,
        id: FileId,
        flag: Flag,
    ) -> Result<Option<&mut super::File<F>>, Violation> {
        let known = id.0 < self.next_id && !self.dirs.contains_key(&id.into());
        let Some(file) = self.files.get_mut(&id) else {
            let reason = "is for a file that was never announced";
            return if known { Ok(None) } else { Err(Violation::rule(flag, reason)) };
        };
        let asked = matches!(file.state, State::Wanted { .. } | State::Publishing);
        if file.entry.kind() != EntryKind::File || !asked {
            return Err(Violation::rule(flag, "is content that nobody asked for"));
        }
        Ok(Some(file))
    }
}

fn block_start(n: u32) -> u64 {
    u64::from(n) * BLOCK
}

fn block_range(n: u32, size: u64) -> std::ops::Range<u64> {
    block_start(n)..size.min(block_start(n) + BLOCK)
}

/// Wants of at most a thousand ranges each, so that a message stays far below its limit.
fn split_want(file: FileId, ranges: Vec<std::ops::Range<u64>>) -> Vec<Want> {
    if ranges.is_empty() {
        return vec![Want { file, ranges }];
    }
    ranges.chunks(1000).map(|part| Want { file, ranges: part.to_vec() }).collect()
}
