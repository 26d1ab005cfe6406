//! The last step of a copy: its final name appears, over nothing but what was expected.

use fcp_common::fs::Kind;
use fcp_proto::path::{Name, RelPath};

use super::names::{aside_name, numbered, other_temp_name, temp_name};
use crate::location::{Location, LocationError, Meta, Op, Reason, Result};

/// Numbers that are tried for a name of their own.
const NUMBERS: u32 = 9999;

/// Gives a staged copy its final name, if that still is what the decision to copy was made on:
/// nothing for `None`, else this very version of a file.
///
/// # Errors
/// [`Reason::NotFound`] when `temp` is not there: an earlier call came through and its answer got
/// lost, or somebody removed it; [`Reason::Exists`] or [`Reason::Changed`] when something else has
/// the name by now, which is untouched then, as is `temp`.
pub async fn publish(
    to: &Location,
    temp: &RelPath,
    path: &RelPath,
    seen: Option<Meta>,
) -> Result<()> {
    let Some(seen) = seen else {
        return match to.rename_new(temp, path).await {
            // It may be the copy itself that has the name.
            Err(error) if error.reason == Reason::Exists && to.stat(temp).await?.is_none() => {
                Err(gone(to, temp))
            }
            done => done,
        };
    };
    if !to.capabilities().replaces {
        to.recover_replace(path).await?;
    }
    match to.stat(path).await? {
        Some(now) if now.kind == Kind::Dir => {
            Err(in_the_way(to, path, Reason::IsDirectory, "a directory has the name"))
        }
        Some(now) if now.is_same_version(&seen) => to.replace(temp, path).await,
        // It may be the copy itself that has the name.
        _ if to.stat(temp).await?.is_none() => Err(gone(to, temp)),
        None => to.rename_new(temp, path).await,
        Some(_) => {
            let text = "somebody changed it since we looked; nothing was replaced";
            Err(in_the_way(to, path, Reason::Changed, text))
        }
    }
}

/// Renames `from` to `wanted`, or to the first numbered name beside it that nothing has. Tells
/// which.
///
/// # Errors
/// As [`Location::rename_new`].
pub async fn rename_aside(at: &Location, from: &RelPath, wanted: &RelPath) -> Result<RelPath> {
    let mut last = None;
    for candidate in candidates(at, wanted)? {
        match at.rename_new(from, &candidate).await {
            Err(error) if error.reason == Reason::Exists => last = Some(error),
            done => return done.map(|()| candidate),
        }
    }
    Err(last.unwrap_or_else(|| no_number(at, wanted)))
}

/// `wanted`, or the first numbered name beside it that nothing has at this moment.
///
/// # Errors
/// As [`Location::stat`].
pub async fn free_name(at: &Location, wanted: &RelPath) -> Result<RelPath> {
    for candidate in candidates(at, wanted)? {
        if at.stat(&candidate).await?.is_none() {
            return Ok(candidate);
        }
    }
    Err(no_number(at, wanted))
}

/// A temporary name beside `path` that nothing has at this moment: `.tmp.NAME`, or one with a
/// random part.
///
/// # Errors
/// As [`Location::stat`].
pub async fn free_temp(to: &Location, path: &RelPath) -> Result<RelPath> {
    let (dir, name) = split(to, path)?;
    let usual = dir.join_unbounded(&temp_name(&name));
    match to.stat(&usual).await? {
        None => Ok(usual),
        Some(_) => Ok(dir.join_unbounded(&other_temp_name(&name))),
    }
}

/// Looks whether a rename that a place said yes to came about: `from` has nothing any more, and `to`
/// a file of `size` bytes, unless somebody took it already.
///
/// # Errors
/// [`Reason::Changed`] when it did not.
pub async fn check_renamed(
    at: &Location,
    from: &RelPath,
    to: &RelPath,
    size: Option<u64>,
) -> Result<bool> {
    let (old, new) = tokio::join!(at.stat(from), at.stat(to));
    if old?.is_some() {
        let text = "it said that it renamed it, and the old name is still there";
        return Err(in_the_way(at, from, Reason::Changed, text));
    }
    match (new?, size) {
        (None, _) => Ok(false),
        (Some(new), Some(size)) if !new.is_file() || new.size != size => {
            let text = "it said that it renamed it, and something else has the new name";
            Err(in_the_way(at, to, Reason::Changed, text))
        }
        _ => Ok(true),
    }
}

/// Removes a temp that is ours, if it is there.
///
/// # Errors
/// As [`Location::remove`], but for [`Reason::NotFound`].
pub async fn discard(to: &Location, temp: &RelPath) -> Result<()> {
    match to.remove(temp).await {
        Err(error) if error.reason == Reason::NotFound => Ok(()),
        done => done,
    }
}

/// Removes what a [`Location::replace`] onto `path` set aside, once it is known that it came through:
/// nobody may take the old file for the new one when that is gone.
///
/// # Errors
/// As [`discard`].
pub async fn end_replace(to: &Location, path: &RelPath) -> Result<()> {
    let (dir, name) = split(to, path)?;
    match to.capabilities().replaces {
        true => Ok(()),
        false => discard(to, &dir.join_unbounded(&aside_name(&name))).await,
    }
}

fn candidates(at: &Location, wanted: &RelPath) -> Result<impl Iterator<Item = RelPath> + use<>> {
    let (dir, name) = split(at, wanted)?;
    let others = (1..=NUMBERS).map(move |number| dir.join_unbounded(&numbered(&name, number)));
    Ok(std::iter::once(wanted.clone()).chain(others))
}

fn split(at: &Location, path: &RelPath) -> Result<(RelPath, Name)> {
    path.split_last()
        .ok_or_else(|| in_the_way(at, path, Reason::IsDirectory, "it is the folder itself"))
}

fn gone(to: &Location, temp: &RelPath) -> LocationError {
    in_the_way(to, temp, Reason::NotFound, "the staged copy is gone")
}

fn no_number(at: &Location, wanted: &RelPath) -> LocationError {
    in_the_way(at, wanted, Reason::Exists, "all numbered names beside it are taken, too")
}

fn in_the_way(at: &Location, path: &RelPath, reason: Reason, text: &str) -> LocationError {
    LocationError::new(at.name(), Op::Rename, path.as_bytes(), reason, text)
}
