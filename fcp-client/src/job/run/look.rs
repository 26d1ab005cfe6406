//! What is there, of what the ledger says of a file.

use fcp_proto::path::RelPath;

use super::file::File;
use super::proven::Proven;
use super::{Trouble, content, nanos};
use crate::job::ledger::{Ledger, State};
use crate::job::recover::{Look, Seen};
use crate::location::{DigestKind, Location, Meta};

impl<L: Ledger + 'static> File<'_, L> {
    /// What is there, of the names of the state.
    pub(super) async fn look(&mut self) -> Result<Look, Trouble> {
        let none =
            Look { temp: Seen::Gone, last: Seen::Gone, source: Seen::Gone, moved: Seen::Gone };
        let mut source = self.look_source().await?;
        if matches!(self.state, State::Leaving { .. }) && self.run.sources_go() {
            source = self.look_again(source).await?;
        }
        Ok(match &self.state.clone() {
            State::Claimed { temp } => {
                let temp = self.look_there(temp).await?;
                Look { temp, source, ..none }
            }
            State::Verified { temp, to, hash } => {
                let temp = self.look_verified(temp, hash.as_deref(), source).await?;
                let last = match temp {
                    Seen::Same => Seen::Gone,
                    _ => self.look_content(to, hash.as_deref(), source).await?.0,
                };
                if (temp, last) == (Seen::Gone, Seen::Gone) {
                    self.require_base().await?;
                }
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
        let now = self.hash_of(&self.run.order.source, &self.candidate.path).await?;
        Ok(if now == hash { Seen::Same } else { Seen::Other })
    }

    pub(super) async fn look_there(&self, path: &RelPath) -> Result<Seen, Trouble> {
        let now = self.run.order.destination.stat(path).await?;
        Ok(self.by_size(now))
    }

    /// The hash of what has the name, which is as long as the source.
    async fn hash_of(&self, place: &Location, path: &RelPath) -> Result<String, Trouble> {
        let now = match place.digest(path, &[DigestKind::Sha256]).await? {
            Some(digest) => digest.bytes,
            None => content::sha256(place, path, self.candidate.meta.size).await?,
        };
        Ok(content::text(&now))
    }

    /// A temp may be torn, or another file by now. One that this run has proven is known again.
    async fn look_verified(
        &mut self,
        temp: &RelPath,
        hash: Option<&str>,
        source: Seen,
    ) -> Result<Seen, Trouble> {
        if let (Some(proven), Some(now)) =
            (&self.proven, self.run.order.destination.stat(temp).await?)
            && proven.is(&now)
        {
            return Ok(Seen::Same);
        }
        let (seen, now) = self.look_content(temp, hash, source).await?;
        self.proven = now.filter(|_| seen == Seen::Same).map(Proven::looked_at);
        Ok(seen)
    }

    /// Whether what has a name at the destination holds what was copied, and what it looks like.
    async fn look_content(
        &self,
        path: &RelPath,
        hash: Option<&str>,
        source: Seen,
    ) -> Result<(Seen, Option<Meta>), Trouble> {
        let order = &self.run.order;
        let now = order.destination.stat(path).await?;
        let seen = self.by_size(now);
        if seen != Seen::Same {
            return Ok((seen, now));
        }
        let same = match (hash, source) {
            (Some(hash), _) => self.hash_of(&order.destination, path).await? == hash,
            (None, Seen::Same) => {
                let ours = (&order.source, &self.candidate.path);
                let theirs = (&order.destination, path);
                content::agree(ours, theirs, self.candidate.meta.size).await?.is_some()
            }
            (None, _) => true,
        };
        Ok((if same { Seen::Same } else { Seen::Other }, now))
    }

    /// Where the whole destination is not there, nothing can be told of one file.
    async fn require_base(&self) -> Result<(), Trouble> {
        let place = &self.run.order.destination;
        match place.stat(&RelPath::root()).await? {
            Some(_) => Ok(()),
            None => Err(Trouble::Failed(format!(
                "{} is not there, so nobody can tell whether the copy arrived; nothing was done",
                place.name()
            ))),
        }
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
