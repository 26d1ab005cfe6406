//! Small files in one go.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use fcp_common::fs::{Dir, Stat};
use fcp_proto::path::{Name, RelPath};

use super::{Inner, Local, file, off};
use crate::location::{LocationError, Meta, Op, Reason, Result, SetMeta};

/// Reads what is in memory at once, which costs less than the way to another thread and back, and
/// the rest on a thread that may wait, as it may lie on a cold disk.
pub(super) async fn read(local: &Local, path: &RelPath, size: u64) -> Result<(Bytes, Meta)> {
    let (inner, from) = (Arc::clone(&local.inner), path.clone());
    let done = match read_ready(&inner, &from, size) {
        Ok(Some(done)) => Ok(done),
        Ok(None) => off(move || inner.work(&from, |dir, name| read_all(dir, name, size))).await,
        Err(error) => Err(error),
    };
    let (content, stat) = done.map_err(|error| local.failed(Op::Open, path, &error))?;
    if content.len() as u64 == size && stat.size == size {
        return Ok((content.into(), stat.into()));
    }
    let text = "its length is not what was listed";
    Err(LocationError::new(local.name(), Op::Read, path.as_bytes(), Reason::Changed, text))
}

/// `None` where it might wait.
fn read_ready(inner: &Inner, path: &RelPath, size: u64) -> io::Result<Option<(Vec<u8>, Stat)>> {
    if inner.far {
        return Ok(None);
    }
    if inner.memory {
        return inner.work(path, |dir, name| read_all(dir, name, size)).map(Some);
    }
    inner.work(path, |dir, name| {
        let (file, stat) = dir.open_file(name)?;
        if stat.size != size {
            return Ok(Some((Vec::new(), stat)));
        }
        let mut content = room(size)?;
        match file.read_ready_at(&mut content, 0)? {
            Some(read) if read == content.len() => Ok(Some((content, file.stat()?))),
            _ => Ok(None),
        }
    })
}

fn read_all(dir: &Dir, name: &Name, size: u64) -> io::Result<(Vec<u8>, Stat)> {
    let (file, stat) = dir.open_file(name)?;
    if stat.size != size {
        return Ok((Vec::new(), stat));
    }
    let mut content = room(size)?;
    let read = file.read_full_at(&mut content, 0)?;
    content.truncate(read);
    Ok((content, file.stat()?))
}

fn room(size: u64) -> io::Result<Vec<u8>> {
    let length = usize::try_from(size).map_err(|_| io::ErrorKind::OutOfMemory)?;
    Ok(vec![0; length])
}

/// Writes into the page cache, where it costs less than the way to another thread; only what waits
/// for a disk or a network goes there.
pub(super) async fn write(
    local: &Local,
    path: &RelPath,
    content: Bytes,
    meta: SetMeta,
    durable: bool,
) -> Result<Option<Meta>> {
    let (inner, to) = (Arc::clone(&local.inner), path.clone());
    let work = move || write_all(&inner, &to, &content, meta, durable);
    let done = if durable { off(work).await } else { local.run(work).await };
    match done.map_err(|error| local.failed(Op::Create, path, &error))? {
        Ok(stat) => Ok(Some(stat.into())),
        Err(error) => Err(local.failed(Op::Write, path, &error)),
    }
}

/// The inner error is one that comes after the file was made.
fn write_all(
    inner: &Inner,
    path: &RelPath,
    content: &[u8],
    meta: SetMeta,
    durable: bool,
) -> io::Result<io::Result<Stat>> {
    let file = inner.work(path, |dir, name| dir.create_new(name, 0o600))?;
    let finish = || file::finish(&file, content.len() as u64, meta, durable, inner.far);
    Ok(file.write_all_at(content, 0).and_then(|()| finish()))
}
