//! Listings, page by page, of servers that may lie about names and about their end.

use std::collections::VecDeque;

use bytes::Bytes;
use fcp_proto::path::{Name, PathRefused, escape};

use super::handle::Handle;
use super::pending::Pending;
use super::{Result, Session, SessionError};
use crate::location::sftp::wire::{Attrs, NameEntry};

/// READDIRs on their way to begin with: a page, and the end behind it.
const AHEAD: usize = 2;
/// READDIRs on their way at most. OpenSSH's pages have 100 names, so that over 50 ms this many give
/// 64,000 names a second; servers with pages of 256 KiB make it 8 MiB.
const MAX_AHEAD: usize = 32;
/// Entries of a directory, `.` and `..` included. No file system that is of use has more.
const MAX_ENTRIES: u64 = 10_000_000;
/// Bytes of their names: 100 for each.
const MAX_BYTES: u64 = 1 << 30;
/// Pages without a name, one after the other, before the server counts as going in circles.
const MAX_EMPTY: u32 = 16;

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// One that can be used.
    Entry {
        /// Its name, one component.
        name: Name,
        /// What has it, links not followed.
        attrs: Attrs,
    },
    /// What a server listed as a name and is none.
    Refused {
        /// As it came.
        name: Bytes,
        /// Why it is refused.
        why: PathRefused,
    },
}

/// The pages of a directory. Half a listing is never given for a whole one.
#[derive(Debug)]
pub struct DirReader {
    handle: Handle,
    asked: VecDeque<Pending>,
    /// Requests to have on their way: doubled for each page, since it was not the last.
    ahead: usize,
    state: State,
    entries: u64,
    bytes: u64,
    empty: u32,
    pub(super) max_entries: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Asking,
    /// The server said that there is no more; what was asked after that is still to come.
    Draining,
    /// An error, or a page that nobody waited for: the rest would be half a listing.
    Broken,
}

impl Session {
    /// Opens a directory for reading its entries.
    ///
    /// # Errors
    /// The server's.
    pub async fn list(&self, path: &[u8]) -> Result<DirReader> {
        let handle = self.open_dir(path).await?;
        Ok(DirReader {
            handle,
            asked: VecDeque::new(),
            ahead: AHEAD,
            state: State::Asking,
            entries: 0,
            bytes: 0,
            empty: 0,
            max_entries: MAX_ENTRIES,
        })
    }
}

impl DirReader {
    /// The next page, without `.` and `..`; `None` at the end. When the future is dropped, the
    /// listing is broken.
    ///
    /// # Errors
    /// The server's; [`SessionError::Listing`] for one that has no end, and after any error.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Listed>>> {
        if self.state == State::Broken {
            return Err(self.broken("the listing broke off before"));
        }
        let before = std::mem::replace(&mut self.state, State::Broken);
        let (page, state) = self.page(before).await?;
        self.state = state;
        Ok(page)
    }

    async fn page(&mut self, mut state: State) -> Result<(Option<Vec<Listed>>, State)> {
        loop {
            while state == State::Asking && self.asked.len() < self.ahead {
                self.asked.push_back(self.handle.ask_read_dir()?);
            }
            let Some(first) = self.asked.pop_front() else { return Ok((None, state)) };
            match first.names(self.handle.session(), self.handle.path()).await? {
                None => state = State::Draining,
                Some(names) => {
                    self.count(&names)?;
                    self.ahead = (self.ahead * 2).min(MAX_AHEAD);
                    if !names.is_empty() {
                        return Ok((Some(names.into_iter().filter_map(judged).collect()), state));
                    }
                }
            }
        }
    }

    fn count(&mut self, names: &[NameEntry]) -> Result<()> {
        self.empty = if names.is_empty() { self.empty + 1 } else { 0 };
        self.entries += names.len() as u64;
        self.bytes += names.iter().map(|entry| entry.name.len() as u64).sum::<u64>();
        if self.empty >= MAX_EMPTY {
            return Err(self.broken("the server lists pages without a name and does not end"));
        }
        if self.entries > self.max_entries {
            return Err(self.broken("the server lists more than 10,000,000 entries"));
        }
        if self.bytes > MAX_BYTES {
            return Err(self.broken("the server lists more than 1 GiB of names"));
        }
        Ok(())
    }

    fn broken(&self, why: &'static str) -> SessionError {
        SessionError::Listing { path: escape(self.handle.path()), why }
    }
}

/// `None` for the two that every directory has.
fn judged(NameEntry { name, attrs }: NameEntry) -> Option<Listed> {
    match Name::new(&name) {
        _ if matches!(&name[..], b"." | b"..") => None,
        Ok(name) => Some(Listed::Entry { name, attrs }),
        Err(why) => Some(Listed::Refused { name, why }),
    }
}
