//! Where a copy goes: rsync's rules for naming a destination.

use std::path::Path;

use fcp_common::fs::{Kind, user_path};
use fcp_proto::{Name, RelPath};

use super::host::{Found, Host, Missing, below_home, split_path};
use crate::error::CliError;
use crate::location::local::Local;
use crate::location::{Location, LocationError, Reason};

/// A resolved destination.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    /// The directory that entries go below; `None` in a dry run that would have to make it.
    pub(super) at: Option<Location>,
    /// What the one file is to be called.
    pub(super) rename: Option<Name>,
    /// The directory was made for this.
    pub(super) made: bool,
}

/// What decides how a destination is understood.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// One thing that is no directory goes there.
    pub(super) single: bool,
    /// Make missing parents, too.
    pub(super) mkpath: bool,
    /// Touch nothing.
    pub(super) dry_run: bool,
}

/// Why a destination cannot be used.
#[derive(Debug)]
pub(super) enum Unusable {
    /// Several things cannot go into a file.
    NotDirectory,
    /// Its parent is missing.
    NoParent,
    /// The place says no.
    Failed(LocationError),
}

/// Resolves a destination as rsync does: an existing directory, or a path with a trailing slash, is
/// where entries go; otherwise a single file is given that name, and anything else gets a new
/// directory there.
///
/// # Errors
/// Why it cannot be used.
pub(super) async fn resolve(
    host: &Host,
    typed: &[u8],
    wanted: Wanted,
) -> Result<Destination, Unusable> {
    let path = match host {
        Host::Here if typed.is_empty() => b".",
        Host::Here => typed,
        Host::There(_) => below_home(typed),
    };
    let must_be_dir = path.ends_with(b"/") || path.ends_with(b"/..") || path == b".";
    let single = wanted.single && !must_be_dir;
    match host.look(path).await? {
        Found::Dir(at) => return Ok(Destination { at: Some(at), rename: None, made: false }),
        Found::Other if !single => return Err(Unusable::NotDirectory),
        _ => {}
    }
    let (parent, name) = split_path(path).ok_or(Unusable::NoParent)?;
    let parent = match host.look(parent).await? {
        Found::Dir(parent) => parent,
        Found::Other => return Err(Unusable::NotDirectory),
        Found::Nothing if wanted.mkpath && wanted.dry_run => {
            return Ok(Destination { at: None, rename: single.then_some(name), made: true });
        }
        Found::Nothing if wanted.mkpath => make(host, parent).await?,
        Found::Nothing => return Err(Unusable::NoParent),
    };
    if single {
        return Ok(Destination { at: Some(parent), rename: Some(name), made: false });
    }
    let below = RelPath::from(name);
    if parent.stat(&below).await?.is_some_and(|meta| meta.kind != Kind::Dir) {
        // A dangling link: making what it points to is not ours to decide.
        return Err(Unusable::NotDirectory);
    }
    if wanted.dry_run {
        return Ok(Destination { at: None, rename: None, made: true });
    }
    parent.make_dirs(&below).await?;
    match host.dir(path).await {
        Ok(at) => Ok(Destination { at: Some(at), rename: None, made: true }),
        Err(Missing::Failed(error)) => Err(error.into()),
        Err(_) => Err(Unusable::NotDirectory),
    }
}

/// Makes a directory and those above it.
async fn make(host: &Host, path: &[u8]) -> Result<Location, Unusable> {
    let Host::There(_) = host else {
        let path: &Path = user_path(path);
        return Ok(Location::Local(Local::make(path)?));
    };
    // From the deepest one that is there downwards.
    let (mut at, mut missing) = (path, Vec::new());
    let mut dir = loop {
        match host.look(at).await? {
            Found::Dir(dir) => break dir,
            Found::Other => return Err(Unusable::NotDirectory),
            Found::Nothing => {
                let (parent, name) = split_path(at).ok_or(Unusable::NoParent)?;
                missing.push(name);
                at = parent;
            }
        }
    };
    let below = missing.iter().rev().try_fold(RelPath::root(), |path, name| path.join(name));
    let below = below.map_err(|_| Unusable::NoParent)?;
    if !below.is_root() {
        dir.make_dirs(&below).await?;
        dir = host.dir(path).await.map_err(|_| Unusable::NotDirectory)?;
    }
    Ok(dir)
}

impl Unusable {
    /// The error of a destination as it was typed.
    pub(super) fn of(self, typed: &[u8]) -> CliError {
        let why = match self {
            Unusable::Failed(error) if super::tell::ends_all(error.reason) => {
                return super::broken(&error);
            }
            Unusable::Failed(error) if error.reason == Reason::Denied => {
                format!("permission denied ({})", error.place)
            }
            Unusable::Failed(error) => error.to_string(),
            Unusable::NotDirectory => {
                "it is not a directory, and more than one file goes there".to_owned()
            }
            Unusable::NoParent => {
                "the directory that should hold it does not exist (--mkpath makes it)".to_owned()
            }
        };
        let text = format!("cannot write to '{}': {why}", fcp_proto::escape(typed));
        CliError::Destination(text)
    }
}

impl From<LocationError> for Unusable {
    fn from(error: LocationError) -> Unusable {
        Unusable::Failed(error)
    }
}
