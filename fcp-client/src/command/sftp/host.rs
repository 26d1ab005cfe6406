//! The two ends of a copy as people name places there: this machine, and a host behind SFTP.

use fcp_common::fs::{Kind, user_path};
use fcp_proto::Name;

use crate::location::local::Local;
use crate::location::sftp::pool::Pool;
use crate::location::sftp::session::Session;
use crate::location::sftp::{Sftp, SftpOptions};
use crate::location::{Location, LocationError, Reason, Result};

/// Where a path is to be understood.
#[derive(Clone, Debug)]
pub(super) enum Host {
    /// Here.
    Here,
    /// Behind SFTP; relative paths are below the folder that the login begins in.
    There(Remote),
}

/// A host behind SFTP.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) pool: Pool<Session>,
    /// As errors call it.
    pub(super) name: String,
    pub(super) options: SftpOptions,
    /// Connections that it may come to.
    pub(super) most: usize,
}

/// What a path leads to, links followed.
#[derive(Debug)]
pub(super) enum Found {
    /// A directory.
    Dir(Location),
    /// Something else.
    Other,
    /// Nothing.
    Nothing,
}

impl Host {
    /// What a path leads to.
    ///
    /// # Errors
    /// Whatever else keeps us from knowing.
    pub(super) async fn look(&self, path: &[u8]) -> Result<Found> {
        let opened = match self {
            Host::Here => Local::new(user_path(path)).map(Location::Local),
            Host::There(Remote { pool, name, options, .. }) => {
                Sftp::over(pool.clone(), name, path, *options).await.map(Location::Sftp)
            }
        };
        match opened {
            Ok(dir) => Ok(Found::Dir(dir)),
            Err(error) => match error.reason {
                Reason::NotFound => Ok(Found::Nothing),
                Reason::NotDirectory | Reason::NotFile => Ok(Found::Other),
                _ => Err(error),
            },
        }
    }

    /// The directory at a path.
    ///
    /// # Errors
    /// It is none, or not there.
    pub(super) async fn dir(&self, path: &[u8]) -> std::result::Result<Location, Missing> {
        match self.look(path).await? {
            Found::Dir(dir) => Ok(dir),
            Found::Other => Err(Missing::NotDirectory),
            Found::Nothing => Err(Missing::Nothing),
        }
    }
}

/// Why there is no directory.
#[derive(Debug)]
pub(super) enum Missing {
    /// Nothing has the name.
    Nothing,
    /// Something else has it.
    NotDirectory,
    /// A pattern that nothing matches.
    NoMatch,
    /// Patterns that too much matches.
    TooMany,
    /// Unknown.
    Failed(LocationError),
}

impl From<LocationError> for Missing {
    fn from(error: LocationError) -> Missing {
        Missing::Failed(error)
    }
}

/// The names in a directory that may lead further down, or all.
pub(super) async fn names(dir: &Location, dirs_only: bool) -> Result<Vec<Name>> {
    let listing = dir.list(&fcp_proto::RelPath::root()).await?;
    let may = |kind| !dirs_only || !matches!(kind, Kind::File | Kind::Other);
    let entries = listing.entries.into_iter().filter(|entry| may(entry.meta.kind));
    Ok(entries.map(|entry| entry.name).collect())
}

/// An operand's directory and the name in it that is meant; no name means the contents.
pub(super) fn split_operand(operand: &[u8]) -> (&[u8], Option<Name>) {
    let last = operand.rsplit(|b| *b == b'/').next().unwrap_or(operand);
    match Name::new(last) {
        Ok(name) => {
            let head = operand.get(..operand.len() - last.len()).unwrap_or_default();
            (if head.is_empty() { b"." } else { head }, Some(name))
        }
        // "dir/", ".", "..", "dir/." and "": a directory's contents.
        Err(_) => (if operand.is_empty() { b"." } else { operand }, None),
    }
}

/// A path's parent and last component.
pub(super) fn split_path(path: &[u8]) -> Option<(&[u8], Name)> {
    let end = path.iter().rposition(|b| *b != b'/')? + 1;
    let path = path.get(..end)?;
    let start = path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
    let name = Name::new(path.get(start..)?).ok()?;
    let parent = if start == 0 { b"." } else { path.get(..start)? };
    Some((parent, name))
}

/// A path of a host as SFTP has it: relative paths are below home there anyway. Another one's home
/// is the server's to find.
pub(super) fn below_home(path: &[u8]) -> &[u8] {
    match path {
        [b'~'] | [] => b".",
        [b'~', b'/', rest @ ..] => match rest.iter().position(|b| *b != b'/') {
            Some(skip) => rest.get(skip..).unwrap_or_default(),
            // "~/" means the contents of home, as "./" does.
            None => b"./",
        },
        path => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_where_a_login_begins() {
        for (path, sent) in
            [("", "."), ("~", "."), ("~/", "./"), ("~//x/", "x/"), ("./~x", "./~x"), ("/~", "/~")]
        {
            assert_eq!(below_home(path.as_bytes()), sent.as_bytes(), "{path}");
        }
        assert_eq!(below_home(b"~other/x"), b"~other/x");
    }

    #[test]
    fn an_operand_is_a_name_in_a_directory_or_its_contents() {
        let split = |text: &'static str| {
            let (dir, name) = split_operand(text.as_bytes());
            let name = name.map(|name| name.to_vec()).unwrap_or_default();
            (String::from_utf8(dir.to_vec()).unwrap(), String::from_utf8(name).unwrap())
        };
        for (operand, dir, name) in [
            ("a", ".", "a"),
            ("d/a", "d/", "a"),
            ("/a", "/", "a"),
            ("d/", "d/", ""),
            ("", ".", ""),
            ("d/..", "d/..", ""),
        ] {
            assert_eq!(split(operand), (dir.to_owned(), name.to_owned()), "{operand}");
        }
        assert_eq!(split_path(b"a//b//").unwrap().0, b"a//");
        assert!(split_path(b"/").is_none() && split_path(b"a/..").is_none());
    }
}
