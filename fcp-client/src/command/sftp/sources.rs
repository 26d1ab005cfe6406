//! From operands to what they name, globs of a host included.

use std::collections::HashMap;

use fcp_common::expand::MAX_MATCHES;
use fcp_common::fs::Kind;
use fcp_common::select::operand::{Component, SplitGlob, has_magic, split_glob};
use fcp_proto::packet::WireError;
use fcp_proto::{ErrorCode, Name, RelPath};

use super::host::{Found, Host, Missing, below_home, names, split_operand};
use super::tell::{Tell, wire};
use crate::location::{Location, Meta, Result};

/// A source operand, found.
#[derive(Clone, Debug)]
pub(super) struct Root {
    /// The directory that paths are relative to.
    pub(super) at: Location,
    /// The one thing in it that is meant, and what it is; `None` means the directory's contents.
    pub(super) named: Option<(Name, Meta)>,
    /// What the user typed before the relative path, for messages.
    pub(super) shown: Vec<u8>,
}

impl Root {
    /// A path below it as the user would write it.
    pub(super) fn show(&self, path: &RelPath) -> Vec<u8> {
        [&self.shown[..], path.as_bytes()].concat()
    }

    /// Whether it is one thing that is no directory.
    pub(super) fn is_single(&self) -> bool {
        self.named.as_ref().is_some_and(|(_, meta)| meta.kind != Kind::Dir)
    }
}

/// Finds what operands name; what is not there is told.
///
/// # Errors
/// Only what ends the connection.
pub(super) async fn find(host: &Host, operands: &[Vec<u8>], tell: &Tell) -> Result<Vec<Root>> {
    let (mut roots, mut left) = (Vec::new(), MAX_MATCHES);
    let mut finder = Finder { host, held: HashMap::new() };
    for operand in operands {
        match finder.operand(operand, &mut left).await {
            Ok(found) => roots.extend(found),
            Err(Missing::Failed(error)) if tell.note_fatal(&error) => return Err(error),
            Err(why) => tell.problem(operand.clone(), why.into()),
        }
    }
    Ok(roots)
}

struct Finder<'a> {
    host: &'a Host,
    /// Directories by how they were spelled: many operands lie in few of them.
    held: HashMap<Vec<u8>, Location>,
}

impl Finder<'_> {
    async fn operand(
        &mut self,
        typed: &[u8],
        left: &mut usize,
    ) -> std::result::Result<Vec<Root>, Missing> {
        if matches!(self.host, Host::Here) {
            return Ok(vec![self.open(typed, typed).await?]);
        }
        let path = below_home(typed);
        match self.open(path, typed).await {
            Ok(root) => return Ok(vec![root]),
            Err(Missing::Failed(error)) => return Err(error.into()),
            Err(missing) if !has_magic(path) && !path.contains(&b'\\') => return Err(missing),
            Err(_) => {}
        }
        let mut found = Vec::new();
        for path in self.expand(&split_glob(path), left).await? {
            found.extend(self.open(&path, &path).await.ok());
        }
        if found.is_empty() { Err(Missing::NoMatch) } else { Ok(found) }
    }

    /// What a path names, exactly as it is spelled.
    async fn open(&mut self, path: &[u8], shown: &[u8]) -> std::result::Result<Root, Missing> {
        let (dir, name) = split_operand(path);
        let at = match self.held.get(dir) {
            Some(at) => at.clone(),
            None => self.host.dir(dir).await?,
        };
        self.held.insert(dir.to_vec(), at.clone());
        let named = match name {
            None => None,
            Some(name) => {
                let meta = at.stat(&RelPath::from(name.clone())).await?;
                Some((name, meta.ok_or(Missing::Nothing)?))
            }
        };
        let shown = match split_operand(shown).0 {
            b"." => Vec::new(),
            dir if dir.ends_with(b"/") => dir.to_vec(),
            dir => [dir, b"/"].concat(),
        };
        Ok(Root { at, named, shown })
    }

    /// What a glob may stand for, sorted; the last component is not looked up.
    async fn expand(
        &mut self,
        glob: &SplitGlob,
        left: &mut usize,
    ) -> std::result::Result<Vec<Vec<u8>>, Missing> {
        let mut found = vec![if glob.absolute { b"/".to_vec() } else { Vec::new() }];
        let last = glob.components.len().saturating_sub(1);
        for (i, component) in glob.components.iter().enumerate() {
            let mut next = Vec::new();
            for parent in found {
                match component {
                    Component::Plain(name) => next.push(push(parent, name)),
                    Component::Magic(glob_part) => {
                        let dirs_only = i < last || glob.trailing_slash;
                        let names = self.listed(&parent, dirs_only).await?;
                        let matching = names.iter().filter(|name| glob_part.matches(name));
                        next.extend(matching.map(|name| push(parent.clone(), name)));
                    }
                }
                if next.len() > *left {
                    return Err(Missing::TooMany);
                }
            }
            found = next;
        }
        *left -= found.len();
        if glob.trailing_slash {
            found.iter_mut().for_each(|path| path.push(b'/'));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// The names in a directory; what cannot be listed has none, as in a shell.
    async fn listed(&self, dir: &[u8], dirs_only: bool) -> Result<Vec<Name>> {
        let dir = if dir.is_empty() { b"." } else { dir };
        let looked = match self.host.look(dir).await {
            Ok(Found::Dir(dir)) => names(&dir, dirs_only).await,
            Ok(_) => return Ok(Vec::new()),
            Err(error) => Err(error),
        };
        match looked {
            Err(error) if super::tell::ends_all(error.reason) => Err(error),
            names => Ok(names.unwrap_or_default()),
        }
    }
}

fn push(mut path: Vec<u8>, name: &[u8]) -> Vec<u8> {
    if !path.is_empty() && !path.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

impl From<Missing> for WireError {
    fn from(why: Missing) -> WireError {
        let (code, text) = match why {
            Missing::Failed(error) => return wire(&error),
            Missing::Nothing => (ErrorCode::NOT_FOUND, "no such file or directory".to_owned()),
            Missing::NotDirectory => (ErrorCode::NOT_DIRECTORY, "not a directory".to_owned()),
            Missing::NoMatch => (ErrorCode::NOT_FOUND, "nothing there matches".to_owned()),
            Missing::TooMany => {
                (ErrorCode::LIMIT, format!("the patterns match more than {MAX_MATCHES} names"))
            }
        };
        WireError::new(code, text)
    }
}
