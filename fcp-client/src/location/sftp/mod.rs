//! Folders behind an SFTP server.
//!
//! `wire` is what the bytes mean, `session` one conversation with many requests on their way,
//! [`dial`] how a connection comes about, `pool` how many there are.

pub mod dial;
pub mod session;
pub mod wire;

use std::ops::Range;

use bytes::Bytes;
use fcp_proto::path::RelPath;

use crate::location::{Capabilities, Clock, Digest, DigestKind, Listing, Meta, Result, SetMeta};

/// A base directory.
#[derive(Clone, Debug)]
pub struct Sftp {}

/// A file open for reading.
#[derive(Debug)]
pub struct SftpSource {}

/// A file open for writing.
#[derive(Debug)]
pub struct SftpSink {}

/// Content on its way.
#[derive(Debug)]
pub struct SftpPieces {}

#[allow(missing_docs, clippy::unused_async, unused_variables)]
impl Sftp {
    pub fn capabilities(&self) -> Capabilities {
        todo!()
    }
    pub fn name(&self) -> &str {
        todo!()
    }
    pub async fn list(&self, dir: &RelPath) -> Result<Listing> {
        todo!()
    }
    pub async fn stat(&self, path: &RelPath) -> Result<Option<Meta>> {
        todo!()
    }
    pub async fn open(&self, path: &RelPath) -> Result<SftpSource> {
        todo!()
    }
    pub async fn create(&self, path: &RelPath) -> Result<SftpSink> {
        todo!()
    }
    pub async fn reopen(&self, path: &RelPath) -> Result<SftpSink> {
        todo!()
    }
    pub async fn read_small(&self, path: &RelPath, size: u64) -> Result<(Bytes, Meta)> {
        todo!()
    }
    pub async fn write_small(
        &self,
        path: &RelPath,
        content: Bytes,
        meta: SetMeta,
        durable: bool,
    ) -> Result<()> {
        todo!()
    }
    pub async fn rename_new(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        todo!()
    }
    pub async fn replace(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        todo!()
    }
    pub async fn recover_replace(&self, to: &RelPath) -> Result<()> {
        todo!()
    }
    pub async fn remove(&self, path: &RelPath) -> Result<()> {
        todo!()
    }
    pub async fn make_dirs(&self, dir: &RelPath) -> Result<()> {
        todo!()
    }
    pub async fn set_meta(&self, path: &RelPath, meta: SetMeta) -> Result<()> {
        todo!()
    }
    pub async fn sync_dir(&self, dir: &RelPath) -> Result<bool> {
        todo!()
    }
    pub async fn clock(&self, dir: &RelPath) -> Result<Clock> {
        todo!()
    }
    pub async fn digest(&self, path: &RelPath, kinds: &[DigestKind]) -> Result<Option<Digest>> {
        todo!()
    }
    pub async fn read_link(&self, path: &RelPath) -> Result<Vec<u8>> {
        todo!()
    }
    pub async fn symlink(&self, content: &[u8], path: &RelPath) -> Result<()> {
        todo!()
    }
    pub async fn remove_dir(&self, path: &RelPath) -> Result<()> {
        todo!()
    }
}

#[allow(missing_docs, clippy::unused_async, unused_variables)]
impl SftpSource {
    pub async fn stat(&self) -> Result<Meta> {
        todo!()
    }
    pub fn read_range(&self, range: Range<u64>) -> SftpPieces {
        todo!()
    }
}

#[allow(missing_docs, clippy::unused_async, unused_variables)]
impl SftpSink {
    pub async fn write_at(&self, offset: u64, content: Bytes) -> Result<()> {
        todo!()
    }
    pub async fn settle(&self) -> Result<()> {
        todo!()
    }
    pub fn read_back(&self, range: Range<u64>) -> SftpPieces {
        todo!()
    }
    pub async fn stat(&self) -> Result<Meta> {
        todo!()
    }
    pub async fn close(self, size: u64, meta: SetMeta, durable: bool) -> Result<()> {
        todo!()
    }
}

#[allow(missing_docs, clippy::unused_async, unused_variables)]
impl SftpPieces {
    pub async fn next(&mut self) -> Option<Result<(u64, Bytes)>> {
        todo!()
    }
}
