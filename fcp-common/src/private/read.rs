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
    /// It is one that we made, where we made it. Otherwise it may be root's, and a link may lead
    /// to it, as where secrets are mounted and settings kept elsewhere.
    pub ours: bool,
    /// Permissions that it must not have.
    pub forbidden: u32,
    /// Only root and we may be able to write to its directory.
    pub safe_dir: bool,
    /// The most bytes that it may have.
    pub max: u64,
}

impl Rule {
    /// For a secret that we put there ourselves.
    pub const fn secret(max: u64) -> Rule {
        Rule { ours: true, forbidden: 0o077, safe_dir: true, max }
    }

    /// For what the user or root put there: nobody else may have any of the permissions `forbidden`.
    pub const fn given(forbidden: u32, max: u64) -> Rule {
        Rule { ours: false, forbidden, safe_dir: false, max }
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
    flags.set(OFlags::NOFOLLOW, rule.ours);
    match OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path) {
        Ok(file) => contents(&file, path, rule).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let stat = if rule.ours { path.symlink_metadata() } else { path.metadata() };
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
    let is_secret = is_ours(&stat, true) && stat.mode() & 0o077 == 0;
    Ok(Contents { bytes, is_secret })
}

fn check(path: &Path, stat: &Metadata, rule: &Rule) -> Result<(), PrivateError> {
    let fault = match stat.mode() & 0o777 {
        _ if stat.is_symlink() => Fault::Link,
        _ if !stat.is_file() => Fault::NotAFile,
        _ if !is_ours(stat, !rule.ours) => foreign(stat),
        mode if mode & rule.forbidden == 0 => return Ok(()),
        mode if rule.forbidden & 0o044 == 0 => Fault::Writable { mode },
        mode => Fault::Open { mode },
    };
    Err(PrivateError::new(path, fault))
}

/// Whether it belongs to us, or, if `or_root`, to root.
pub(super) fn is_ours(stat: &Metadata, or_root: bool) -> bool {
    stat.uid() == geteuid().as_raw() || (stat.uid() == 0 && or_root)
}

pub(super) fn foreign(stat: &Metadata) -> Fault {
    Fault::Foreign { owner: stat.uid(), own: geteuid().as_raw() }
}
