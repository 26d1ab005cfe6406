//! What happens to a source that was delivered: MOVE, DELETE, and a zip before MOVE.
//!
//! Nothing here is done unless the copy was proven by content and survives a power cut, and the
//! source still is the version that was copied.

use fcp_proto::path::{Name, RelPath};

use super::end::UNSEEN;
use super::file::File;
use super::{Side, Trouble, zip};
use crate::job::ledger::{Ledger, State};
use crate::job::plan;
use crate::job::recover::{After, Seen};
use crate::location::{Location, Reason, copy};

impl<L: Ledger + 'static> File<'_, L> {
    /// Records where the source goes.
    pub(super) async fn leave(&mut self) -> Result<(), Trouble> {
        let spared = matches!(&self.state, State::Leaving { moved: Some(_), .. });
        if !self.may_go().await? && self.run.after() == After::Delete && !spared {
            return self.spare().await;
        }
        let (to, hash) = (self.final_name().clone(), self.hash());
        let moved = match self.run.after() {
            After::Keep => None,
            After::Delete if !spared => None,
            After::Delete | After::Move | After::Zip => Some(self.way_out().await?),
        };
        self.record(State::Leaving { to, hash, moved }).await
    }

    /// Records that the source is moved though it was to be deleted. The consumer may have taken the
    /// copy; but a disk that is not mounted, or whoever removes temporary files, looks the same.
    pub(super) async fn spare(&mut self) -> Result<(), Trouble> {
        self.may_go().await?;
        let (to, hash) = (self.final_name().clone(), self.hash());
        let moved = self.way_out().await?;
        self.run.tell.spared(&self.candidate.path, &format!(
            "{UNSEEN} ({to}); moved to {moved} instead of deleted: if nobody took it, move it back"
        ));
        self.record(State::Leaving { to, hash, moved: Some(moved) }).await
    }

    /// Where the source goes: a name that nothing has, as far as we know.
    async fn way_out(&mut self) -> Result<RelPath, Trouble> {
        let wanted = self.wanted()?;
        let done = wanted.split_last().map(|(dir, _)| dir).unwrap_or_default();
        self.run.make_dirs(Side::Source, &done).await?;
        match &self.state {
            // A name that turned out to be taken.
            State::Leaving { moved: Some(_), .. } => {
                Ok(copy::free_name(&self.run.order.source, &wanted).await?)
            }
            _ => Ok(wanted),
        }
    }

    fn wanted(&self) -> Result<RelPath, Trouble> {
        let path = &self.candidate.path;
        let refused = |why: &dyn std::fmt::Display| {
            Trouble::Failed(format!("{path} can have no name in the folder of what is done: {why}"))
        };
        let (folder, name) = path.split_last().ok_or_else(|| refused(&"it is the base"))?;
        let mut name = name.as_bytes().to_vec();
        if self.run.after() == After::Zip {
            name.extend_from_slice(b".zip");
        }
        let mut done = folder;
        for part in self.run.spec().done.folder.split('/').filter(|part| !part.is_empty()) {
            let part = Name::new(part.as_bytes()).map_err(|why| refused(&why))?;
            done = done.join(&part).map_err(|why| refused(&why))?;
        }
        let name = Name::new(&name).map_err(|why| refused(&why))?;
        done.join(&name).map_err(|why| refused(&why))
    }

    /// What must hold before anything happens to a source. Whether the folder of its copy is there:
    /// the consumer may have taken that, too.
    async fn may_go(&self) -> Result<bool, Trouble> {
        let order = &self.run.order;
        if self.hash().is_none() {
            return Err(Trouble::Failed("its copy was not proven by content".to_owned()));
        }
        survives(&order.destination, "done.action: KEEP")?;
        if self.run.after() == After::Zip {
            survives(&order.source, "done.zip_before_move: false")?;
        }
        // Where a place has no such call, the content is synced, and a name that is lost leaves the
        // temp, which the ledger knows to be proven.
        match self.run.sync_name(Side::Destination, self.final_name()).await {
            // The consumer took the folder with what was in it, which survives by itself.
            Err(error) if error.reason == Reason::NotFound => Ok(false),
            synced => Ok(synced.map(|()| true)?),
        }
    }

    /// Renames the source into the folder of what is done.
    pub(super) async fn move_source(&mut self) -> Result<(), Trouble> {
        let Some(moved) = self.moved() else { return Ok(()) };
        if !self.is_still_there().await? {
            self.unsure = true;
            return Ok(());
        }
        match self.run.order.source.rename_new(&self.candidate.path, &moved).await {
            Ok(()) => self.check_moved(&moved).await,
            Err(error) if error.reason == Reason::Exists => self.leave().await,
            Err(error) => Err(self.lost_folder(error, &moved).await),
        }
    }

    /// What became of a rename that was said to be done: the old name has to be gone, and the new
    /// one to be there. A version that came between the last look and the rename was moved and not
    /// copied: it goes back, unless a newer one still has its name.
    async fn check_moved(&mut self, moved: &RelPath) -> Result<(), Trouble> {
        let (source, path) = (&self.run.order.source, &self.candidate.path);
        let (old, now) = tokio::join!(source.stat(path), source.stat(moved));
        let stays = old?.is_some_and(|old| self.is_listed(&old));
        match now? {
            Some(now) if !self.is_listed(&now) => {}
            Some(_) if !stays => {
                self.away = true;
                return Ok(());
            }
            _ => {
                return Err(Trouble::Failed(format!(
                    "delivered, but {} said that it moved {path} to {moved} and did not",
                    source.name()
                )));
            }
        }
        match source.rename_new(moved, path).await {
            Ok(()) => {
                self.unsure = true;
                Ok(())
            }
            Err(error) => Err(Trouble::Failed(format!(
                "another version of {path} came while it was moved, and is now {moved}; it was not \
                 copied and cannot be moved back: {error}"
            ))),
        }
    }

    /// Writes the zip under a temporary name, proves it, and gives it its name; the source goes with
    /// the next step.
    pub(super) async fn write_zip(&mut self) -> Result<(), Trouble> {
        let Some(moved) = self.moved() else { return Ok(()) };
        if !self.is_still_there().await? {
            self.unsure = true;
            return Ok(());
        }
        let temp = plan::temp_path(&moved, None)
            .ok_or_else(|| Trouble::Failed(format!("{moved} is too long a name")))?;
        let place = &self.run.order.source;
        // The name is ours: only this job works in its folder of what is done.
        copy::discard(place, &temp).await?;
        if let Err(error) = self.zip_to(&temp).await {
            let _ = copy::discard(place, &temp).await;
            return Err(error);
        }
        match place.rename_new(&temp, &moved).await {
            Ok(()) => {
                self.check_zipped(&temp, &moved).await?;
                let dir = moved.split_last().map(|(dir, _)| dir).unwrap_or_default();
                place.sync_dir(&dir).await?;
                self.remove_source().await
            }
            Err(error) if error.reason == Reason::Exists => {
                copy::discard(place, &temp).await?;
                self.leave().await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A source goes only if its zip has its name.
    async fn check_zipped(&self, temp: &RelPath, zip: &RelPath) -> Result<(), Trouble> {
        let place = &self.run.order.source;
        match copy::check_renamed(place, temp, zip, None).await? {
            true => Ok(()),
            false => Err(Trouble::Failed(format!(
                "{} said that it renamed {temp} to {zip}, and neither is there",
                place.name()
            ))),
        }
    }

    async fn zip_to(&self, temp: &RelPath) -> Result<(), Trouble> {
        let (place, path) = (&self.run.order.source, &self.candidate.path);
        let (Some((_, name)), Some(hash)) = (path.split_last(), self.hash()) else {
            return Err(Trouble::Failed("its copy was not proven by content".to_owned()));
        };
        let content = zip::Content { name: &name, meta: self.candidate.meta, hash: &hash };
        zip::write(place, path, &content, temp).await?;
        if !zip::proves(place, temp, &content).await? {
            return Err(Trouble::Failed(format!(
                "the zip {temp} does not read back as {path}; it was removed and the source is kept"
            )));
        }
        Ok(())
    }

    /// Removes the source: its copy, and its zip if there is to be one, are proven.
    pub(super) async fn remove_source(&mut self) -> Result<(), Trouble> {
        if !self.is_still_there().await? {
            // Gone, or another version: looked at once more, and told as what it is.
            self.unsure = true;
            return Ok(());
        }
        match self.run.order.source.remove(&self.candidate.path).await {
            Err(error) if error.reason == Reason::NotFound => {}
            done => done?,
        }
        self.away = true;
        Ok(())
    }

    /// Whether the source is there as it was copied; another version of it is left alone.
    async fn is_still_there(&self) -> Result<bool, Trouble> {
        Ok(self.source_is_unchanged().await? == Some(true))
    }

    /// What has the name that the source was to go to.
    pub(super) async fn look_moved(&self, moved: &RelPath, source: Seen) -> Result<Seen, Trouble> {
        let place = &self.run.order.source;
        let Some(now) = place.stat(moved).await? else { return Ok(Seen::Gone) };
        let zipped = self.run.after() == After::Zip;
        if !zipped {
            let same = now.is_file() && now.size == self.candidate.meta.size;
            return Ok(if same { Seen::Same } else { Seen::Other });
        }
        // Where there is no source any more, nothing depends on it.
        if !now.is_file() || source != Seen::Same {
            return Ok(Seen::Other);
        }
        let (Some((_, name)), Some(hash)) = (self.candidate.path.split_last(), self.hash()) else {
            return Ok(Seen::Other);
        };
        let content = zip::Content { name: &name, meta: self.candidate.meta, hash: &hash };
        let proven = zip::proves(place, moved, &content).await?;
        Ok(if proven { Seen::Same } else { Seen::Other })
    }

    fn moved(&self) -> Option<RelPath> {
        match &self.state {
            State::Leaving { moved, .. } => moved.clone(),
            _ => None,
        }
    }

    /// A folder that somebody removed under us is made again by the next try.
    async fn lost_folder(&self, error: crate::location::LocationError, path: &RelPath) -> Trouble {
        if error.reason == Reason::NotFound
            && let Some((dir, _)) = path.split_last()
        {
            self.run.unmade(Side::Source, &dir).await;
        }
        error.into()
    }
}

/// Whether a copy at this place may be the only one.
fn survives(place: &Location, instead: &str) -> Result<(), Trouble> {
    if place.capabilities().durable {
        return Ok(());
    }
    Err(Trouble::Failed(format!(
        "delivered, but the source stays: {} does not promise that files survive a power cut \
         (no fsync@openssh.com); use {instead}, or a server that can",
        place.name()
    )))
}
