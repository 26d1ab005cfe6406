//! Renames, also at servers that can only rename to a name that nothing has.

use fcp_common::fs::Kind;
use fcp_proto::path::RelPath;

use super::error::{is_not_found, is_vague};
use super::session::SessionError;
use super::spot::Spot;
use super::wire::StatusCode;
use crate::location::copy::aside_name;
use crate::location::{LocationError, Meta, Op, Reason, Result};

/// Renames, and never onto something. OpenSSH sees to that by itself; of others nobody knows, so
/// the name is looked at before, and after what became of it (S10).
pub(super) async fn rename_new(from: &Spot<'_>, to: &RelPath) -> Result<()> {
    if from.sftp.inner.can.strict_rename {
        return renamed(from, to).await;
    }
    let target = at(from, to);
    let (before, taken) = tokio::join!(from.stat(), target.stat());
    if taken?.is_some() {
        return Err(from.fail_to(to, Reason::Exists, "something has that name already"));
    }
    let before = before?;
    renamed(from, to).await?;
    match (before, target.stat().await?) {
        (Some(before), Some(after)) if before.kind == Kind::File && before.size != after.size => {
            Err(from.fail_to(to, Reason::Changed, "the server's rename changed its length"))
        }
        _ => Ok(()),
    }
}

/// Renames onto a file: in one step where the server can, else the old one goes aside first, so
/// that it is there until the new one is.
pub(super) async fn replace(from: &Spot<'_>, to: &RelPath) -> Result<()> {
    let (full, can) = (from.sftp.full(to), from.sftp.inner.can.replace);
    if can {
        match from.session().posix_rename(&from.full, &full).await {
            Err(error) if error.code() == Some(StatusCode::OP_UNSUPPORTED) => {}
            Ok(()) => return Ok(()),
            Err(error) => return Err(refused(from, to, &error, true).await),
        }
    }
    let target = at(from, to);
    recover(&target).await?;
    match target.stat().await? {
        None => rename_new(from, to).await,
        Some(old) if old.kind == Kind::Dir => {
            Err(from.fail_to(to, Reason::IsDirectory, "a directory has that name"))
        }
        Some(_) => swap(from, &target).await,
    }
}

/// S10. `.tmp.NAME.old` and no NAME: the old file goes back. Both: the new one is there, the old
/// one goes.
pub(super) async fn recover(to: &Spot<'_>) -> Result<()> {
    let Some(aside_path) = aside(to.path) else { return Ok(()) };
    let aside = at(to, &aside_path);
    let (old, new) = tokio::join!(aside.stat(), to.stat());
    match (old?, new?) {
        (Some(old), None) if old.kind == Kind::File => renamed(&aside, to.path).await,
        (Some(old), Some(_)) if old.kind == Kind::File => {
            let removed = aside.session().remove(&aside.full).await;
            aside.told(Op::Remove, removed).await
        }
        _ => Ok(()),
    }
}

async fn swap(from: &Spot<'_>, target: &Spot<'_>) -> Result<()> {
    let Some(aside_path) = aside(target.path) else {
        return Err(from.fail_to(target.path, Reason::IsDirectory, "it is the folder itself"));
    };
    if from.stat().await?.is_none() {
        return Err(from.fail_to(target.path, Reason::NotFound, "it is not there"));
    }
    renamed(target, &aside_path).await?;
    let done = renamed(from, target.path).await;
    // Either way one of both has the name now, and the other has to go: back, or for good.
    let recovered = recover(target).await;
    done.and(recovered)
}

async fn renamed(from: &Spot<'_>, to: &RelPath) -> Result<()> {
    match from.session().rename(&from.full, &from.sftp.full(to)).await {
        Ok(()) => Ok(()),
        Err(error) => Err(refused(from, to, &error, false).await),
    }
}

/// Version 3 has no words for what may be wrong with two names, so both are looked at.
async fn refused(
    from: &Spot<'_>,
    to: &RelPath,
    error: &SessionError,
    replacing: bool,
) -> LocationError {
    if !is_vague(error) && !is_not_found(error) {
        return LocationError { path: both(from, to), ..from.failed(Op::Rename, error).await };
    }
    let target = at(from, to);
    match tokio::join!(from.stat(), target.stat()) {
        (Err(error), _) | (_, Err(error)) => error,
        (Ok(from_is), Ok(to_is)) => {
            let (reason, text) = judged(from_is, to_is, error, replacing);
            match text {
                Some(text) => from.fail_to(to, reason, text),
                None => {
                    LocationError { path: both(from, to), ..from.failed(Op::Rename, error).await }
                }
            }
        }
    }
}

fn judged(
    from: Option<Meta>,
    to: Option<Meta>,
    error: &SessionError,
    replacing: bool,
) -> (Reason, Option<&'static str>) {
    match (from, to) {
        (None, _) => (Reason::NotFound, Some("it is not there")),
        (_, Some(to)) if to.kind == Kind::Dir => {
            (Reason::IsDirectory, Some("a directory has that name"))
        }
        (_, Some(_)) if !replacing => (Reason::Exists, Some("something has that name already")),
        (_, None) if is_not_found(error) => {
            (Reason::NotDirectory, Some("the directory that it should go to is not there"))
        }
        _ => (Reason::Io, None),
    }
}

fn at<'a>(spot: &Spot<'a>, path: &'a RelPath) -> Spot<'a> {
    Spot { sftp: spot.sftp, path, full: spot.sftp.full(path), lease: spot.lease.clone() }
}

fn aside(path: &RelPath) -> Option<RelPath> {
    path.split_last().map(|(dir, name)| dir.join_unbounded(&aside_name(&name)))
}

fn both(from: &Spot<'_>, to: &RelPath) -> String {
    format!("{} to {to}", from.path)
}

impl Spot<'_> {
    fn fail_to(&self, to: &RelPath, reason: Reason, text: &str) -> LocationError {
        LocationError { path: both(self, to), ..self.fail(Op::Rename, reason, text) }
    }
}
