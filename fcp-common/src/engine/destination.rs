//! Where a transfer goes: rsync's rules for naming a destination.

use std::io;
use std::sync::Arc;

use fcp_proto::{ErrorCode, Name};

use crate::fs::{Base, Dir, Kind};
use crate::transfer::RootRule;
use crate::walk::io_error;

/// A resolved destination.
#[derive(Debug)]
pub struct Destination {
    /// The directory that entries go below; `None` in a dry run that would have to make it.
    pub root: Option<Arc<Dir>>,
    /// What happens to names directly below it.
    pub rule: RootRule,
    /// Whether the root was made for this transfer.
    pub created: bool,
}

/// How a destination is to be understood.
#[derive(Clone, Copy, Debug, Default)]
pub struct DestinationOptions {
    /// The one source is not a directory, so the destination may be its new name.
    pub single: bool,
    /// Make missing parents too.
    pub mkpath: bool,
    /// Touch nothing.
    pub dry_run: bool,
}

/// A destination that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to '{}': {reason}", fcp_proto::escape(.path))]
pub struct DestinationError {
    /// As it was typed.
    pub path: Vec<u8>,
    /// Why.
    pub reason: Unusable,
}

/// Why a destination cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Several things cannot go into a file.
    #[error("it is not a directory, and more than one file goes there")]
    NotDirectory,
    /// Its parent is missing.
    #[error("the directory that should hold it does not exist (--mkpath makes it)")]
    NoParent,
    /// The system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl DestinationError {
    /// The code that tells a peer.
    pub fn code(&self) -> ErrorCode {
        match &self.reason {
            Unusable::NotDirectory => ErrorCode::NOT_DIRECTORY,
            Unusable::NoParent => ErrorCode::NOT_FOUND,
            Unusable::Io(error) => io_error(error).code,
        }
    }
}

impl Destination {
    /// Resolves `path` as rsync does: an existing directory, or a path with a trailing slash, is
    /// where entries go; otherwise a single file is given that name, and anything else gets a new
    /// directory there.
    ///
    /// # Errors
    /// [`DestinationError`], with the path as it was typed.
    pub fn open(path: &[u8], options: DestinationOptions) -> Result<Destination, DestinationError> {
        Destination::open_in(&Base::Unrestricted, path, options)
    }

    /// As [`Destination::open`], for what `base` reaches.
    ///
    /// # Errors
    /// [`DestinationError`], with the path as it was typed.
    pub fn open_in(
        base: &Base,
        path: &[u8],
        options: DestinationOptions,
    ) -> Result<Destination, DestinationError> {
        Destination::resolve(base, path, options)
            .map_err(|reason| DestinationError { path: path.to_vec(), reason })
    }

    fn resolve(
        base: &Base,
        path: &[u8],
        options: DestinationOptions,
    ) -> Result<Destination, Unusable> {
        let DestinationOptions { single, dry_run, .. } = options;
        let must_be_dir = path.is_empty() || path.ends_with(b"/") || path.ends_with(b"/..");
        let path = if path.is_empty() { b"." } else { path };
        match base.open_dir(path) {
            Ok(root) => return Ok(Destination::new(root, RootRule::Keep, false)),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                if !single || must_be_dir {
                    return Err(Unusable::NotDirectory);
                }
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            Err(_) => {}
        }
        let (parent, name) = split(path).ok_or(Unusable::NoParent)?;
        let parent = match open_parent(base, parent, options) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if dry_run && options.mkpath {
                    return Ok(Destination { root: None, rule: RootRule::Keep, created: true });
                }
                return Err(Unusable::NoParent);
            }
            opened => opened?,
        };
        if single && !must_be_dir {
            return Ok(Destination::new(parent, RootRule::Single(name), false));
        }
        if parent.stat(&name)?.is_some_and(|s| s.kind != Kind::Dir) {
            // A dangling link: making what it points to is not ours to decide.
            return Err(Unusable::NotDirectory);
        }
        if dry_run {
            return Ok(Destination { root: None, rule: RootRule::Keep, created: true });
        }
        parent.mkdir(&name, 0o777)?;
        Ok(Destination::new(parent.open_child_nofollow(&name)?, RootRule::Keep, true))
    }

    fn new(root: Dir, rule: RootRule, created: bool) -> Destination {
        Destination { root: Some(Arc::new(root)), rule, created }
    }
}

/// Opens the directory that holds the destination, making it when that was asked for.
fn open_parent(base: &Base, path: &[u8], options: DestinationOptions) -> io::Result<Dir> {
    match base.open_dir(path) {
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && options.mkpath && !options.dry_run =>
        {
            let (parent, name) = split(path).ok_or(error)?;
            let parent = open_parent(base, parent, options)?;
            match parent.mkdir(&name, 0o777) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => parent.open_child_nofollow(&name),
            }
        }
        opened => opened,
    }
}

/// A path's parent and last component.
fn split(path: &[u8]) -> Option<(&[u8], Name)> {
    let end = path.iter().rposition(|b| *b != b'/')? + 1;
    let path = &path[..end];
    let start = path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
    let name = Name::new(&path[start..]).ok()?;
    Some((if start == 0 { b"." } else { &path[..start] }, name))
}
