//! What a source operand of a version 1 PULL means, and how its files are read.

use std::io;

use fcp_proto::SourceVersion;
use fcp_proto::limits::BLOCK;
use md5::{Digest, Md5};

use crate::fs::{File, Stat};
use crate::walk::{Parents, Source, SourceRoot};

/// How often a file is hashed anew because it changed meanwhile.
const TRIES: u32 = 3;

/// Opens a source of a PULL: a directory stands for its contents, whether or not a slash ends its
/// name; anything else for itself.
pub fn open_pull_source(parents: &mut Parents, path: &[u8]) -> io::Result<SourceRoot> {
    match parents.open(&[path, b"/"].concat()) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => parents.open(path),
        opened => opened,
    }
}

/// Why content of a source cannot be sent.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// It is another version than before.
    Changed,
    /// It cannot be read.
    Io(io::Error),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Unreadable::Io(error)
    }
}

/// The MD5 of a file and what it was at that moment. `go_on` is asked now and then.
pub(super) fn hash(
    source: &Source,
    go_on: &dyn Fn() -> bool,
) -> Result<(Stat, [u8; 16]), Unreadable> {
    for _ in 0..TRIES {
        let (file, before) = source.dir.get()?.open_file(&source.name)?;
        let md5 = md5_of(&file, before.size, go_on)?;
        if file.stat()?.version() == before.version() {
            return Ok((before, md5));
        }
    }
    Err(Unreadable::Changed)
}

/// The MD5 of the first `size` bytes, or of what there is.
pub(super) fn md5_of(file: &File, size: u64, go_on: &dyn Fn() -> bool) -> io::Result<[u8; 16]> {
    let mut md5 = Md5::new();
    let mut buf = vec![0; size.min(BLOCK / 4) as usize];
    let mut offset = 0;
    while offset < size {
        let want = (size - offset).min(buf.len() as u64) as usize;
        let n = file.read_full_at(&mut buf[..want], offset)?;
        if n == 0 {
            break;
        }
        if !go_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        md5.update(&buf[..n]);
        offset += n as u64;
    }
    Ok(md5.finalize().into())
}

/// Fills `buf` from `offset` on, with the announced version or not at all.
pub(super) fn read_version(
    file: &File,
    version: &SourceVersion,
    buf: &mut [u8],
    offset: u64,
) -> Result<(), Unreadable> {
    // A short read means that the file shrank, which its version will not hide.
    let n = file.read_full_at(buf, offset)?;
    if n < buf.len() || file.stat()?.version() != *version {
        return Err(Unreadable::Changed);
    }
    Ok(())
}
