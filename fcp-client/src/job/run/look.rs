//! What is there, of what the ledger says of a file.

use fcp_proto::path::RelPath;

use super::file::File;
use super::{Trouble, content, nanos};
use crate::job::ledger::{Ledger, State};
use crate::job::recover::{Look, Seen};
use crate::location::{DigestKind, Meta};

impl<L: Ledger + 'static> File<'_, L> {
    /// What is there, of the names of the state.
    pub(super) async fn look(&self) -> Result<Look, Trouble> {
        let none =
            Look { temp: Seen::Gone, last: Seen::Gone, source: Seen::Gone, moved: Seen::Gone };
        let mut source = self.look_source().await?;
        if matches!(self.state, State::Leaving { .. }) && self.run.sources_go() {
            source = self.look_again(source).await?;
        }
        Ok(match &self.state {
            State::Claimed { temp } => {
                let temp = self.look_there(temp).await?;
                Look { temp, source, ..none }
            }
            State::Verified { temp, to, hash } => {
                let temp = self.look_verified(temp, hash.is_some(), source).await?;
                let last = self.look_there(to).await?;
                Look { temp, last, source, ..none }
            }
            State::Delivered { to, hash } | State::Leaving { to, hash, moved: None } => {
                let last = match hash {
                    Some(_) => Seen::Gone,
                    None => self.look_there(to).await?,
                };
                Look { last, source, ..none }
            }
            State::Leaving { to, moved: Some(moved), .. } => {
                let last = self.look_there(to).await?;
                let moved = self.look_moved(moved, source).await?;
                Look { last, source, moved, ..none }
            }
            State::Finished { .. } => Look { source, ..none },
        })
    }

    pub(super) async fn look_source(&self) -> Result<Seen, Trouble> {
        let now = self.run.order.source.stat(&self.candidate.path).await?;
        Ok(match now {
            None => Seen::Gone,
            Some(now) if self.is_listed(&now) => Seen::Same,
            Some(_) => Seen::Other,
        })
    }

    /// A source that was being put away may have gone already, and what is there may be a new file
    /// of the same size and time: its content tells.
    async fn look_again(&self, source: Seen) -> Result<Seen, Trouble> {
        let (Seen::Same, Some(hash)) = (source, self.hash()) else { return Ok(source) };
        let (place, path) = (&self.run.order.source, &self.candidate.path);
        let now = match place.digest(path, &[DigestKind::Sha256]).await? {
            Some(digest) => digest.bytes,
            None => content::sha256(place, path, self.candidate.meta.size).await?,
        };
        Ok(if content::text(&now) == hash { Seen::Same } else { Seen::Other })
    }

    pub(super) async fn look_there(&self, path: &RelPath) -> Result<Seen, Trouble> {
        let now = self.run.order.destination.stat(path).await?;
        Ok(self.by_size(now))
    }

    /// A temp that was neither synced nor hashed may have the right length and nothing in it.
    pub(super) async fn look_verified(
        &self,
        temp: &RelPath,
        hashed: bool,
        source: Seen,
    ) -> Result<Seen, Trouble> {
        let seen = self.look_there(temp).await?;
        let survived = hashed && self.run.is_durable();
        if seen != Seen::Same || survived || source != Seen::Same {
            return Ok(seen);
        }
        let order = &self.run.order;
        let (ours, theirs) = ((&order.source, &self.candidate.path), (&order.destination, temp));
        let same = content::agree(ours, theirs, self.candidate.meta.size).await?.is_some();
        Ok(if same { Seen::Same } else { Seen::Other })
    }

    pub(super) fn by_size(&self, now: Option<Meta>) -> Seen {
        match now {
            None => Seen::Gone,
            Some(now) if now.is_file() && now.size == self.candidate.meta.size => Seen::Same,
            Some(_) => Seen::Other,
        }
    }

    /// Whether this is the version of the source that was listed.
    pub(super) fn is_listed(&self, now: &Meta) -> bool {
        let listed = &self.candidate.meta;
        now.is_file() && now.size == listed.size && nanos(now.mtime) == nanos(listed.mtime)
    }
}
