//! Reading a file after a look at who else may have written or read it.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::geteuid;

use super::dir;
use super::error::{Fault, PrivateError};

/// What a file must be for its contents to count. It must be a regular one in any case.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Whether it may be a link.
    pub links: Links,
    /// Whose it may be.
    pub owner: Owner,
    /// Permissions that it must not have.
    pub forbidden: u32,
    /// Only root and we may be able to write to its directory.
    pub safe_dir: bool,
    /// The most bytes that it may have.
    pub max: u64,
}

/// What is done with a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// It is refused.
    Refused,
    /// What it leads to counts, as where secrets are mounted and settings kept elsewhere.
    Followed,
}

/// Whose a file may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Ours.
    Us,
    /// Ours, or root's.
    UsOrRoot,
}

impl Rule {
    /// For a secret that we put there ourselves.
    pub const fn secret(max: u64) -> Rule {
        Rule { links: Links::Refused, owner: Owner::Us, forbidden: 0o077, safe_dir: true, max }
    }
}

/// What is in a file.
#[derive(Debug)]
pub struct Contents {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Nobody but root and we can read it.
    pub is_secret: bool,
}

/// The contents of the file at `path`; `None` when there is none.
///
/// # Errors
/// It is not as `rule` has it, or cannot be read.
pub fn read(path: &Path, rule: &Rule) -> Result<Option<Contents>, PrivateError> {
    // A fifo must not keep us waiting for its writer.
    let mut flags = OFlags::NONBLOCK;
    flags.set(OFlags::NOFOLLOW, rule.links == Links::Refused);
    match OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path) {
        Ok(file) => contents(&file, path, rule).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let stat = match rule.links {
                Links::Refused => path.symlink_metadata(),
                Links::Followed => path.metadata(),
            };
            // Often it is the reason that we cannot open it.
            stat.map_or(Ok(()), |stat| check(path, &stat, rule))?;
            Err(PrivateError::io(path, "opened")(error))
        }
    }
}

/// As [`read`], for a text.
///
/// # Errors
/// Those of [`read`], and it is none.
pub fn read_text(path: &Path, rule: &Rule) -> Result<Option<String>, PrivateError> {
    read(path, rule)?.map(|found| text(found.bytes, path)).transpose()
}

/// The contents, at most `max` bytes, of whatever the user named at `path`: it may be anybody's,
/// or a pipe.
///
/// # Errors
/// It is longer, or cannot be read.
pub fn read_named(path: &Path, max: u64) -> Result<Contents, PrivateError> {
    let file = File::open(path).map_err(PrivateError::io(path, "opened"))?;
    bounded(&file, path, max)
}

/// What is in the open file at `path`.
pub(super) fn contents(file: &File, path: &Path, rule: &Rule) -> Result<Contents, PrivateError> {
    let stat = file.metadata().map_err(PrivateError::io(path, "read"))?;
    check(path, &stat, rule)?;
    if rule.safe_dir {
        dir::require_safe(dir::of(path))?;
    }
    bounded(file, path, rule.max)
}

pub(super) fn text(bytes: Vec<u8>, path: &Path) -> Result<String, PrivateError> {
    String::from_utf8(bytes).map_err(|_| PrivateError::new(path, Fault::NotText))
}

fn bounded(file: &File, path: &Path, max: u64) -> Result<Contents, PrivateError> {
    let failed = PrivateError::io(path, "read");
    let stat = file.metadata().map_err(&failed)?;
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(&failed)?;
    if bytes.len() as u64 > max {
        return Err(PrivateError::new(path, Fault::TooLong(max)));
    }
    let is_secret = is_owner(stat.uid(), Owner::UsOrRoot) && stat.mode() & 0o077 == 0;
    Ok(Contents { bytes, is_secret })
}

fn check(path: &Path, stat: &Metadata, rule: &Rule) -> Result<(), PrivateError> {
    let fault = match stat.mode() & 0o777 {
        _ if stat.is_symlink() => Fault::Link,
        _ if !stat.is_file() => Fault::NotAFile,
        _ if !is_owner(stat.uid(), rule.owner) => foreign(stat),
        mode if mode & rule.forbidden & 0o022 != 0 && rule.forbidden & 0o044 == 0 => {
            Fault::Writable { mode }
        }
        mode if mode & rule.forbidden != 0 => Fault::Open { mode },
        _ => return Ok(()),
    };
    Err(PrivateError::new(path, fault))
}

pub(super) fn is_owner(uid: u32, whose: Owner) -> bool {
    uid == geteuid().as_raw() || (uid == 0 && whose == Owner::UsOrRoot)
}

pub(super) fn foreign(stat: &Metadata) -> Fault {
    Fault::Foreign { owner: stat.uid(), own: geteuid().as_raw() }
}
