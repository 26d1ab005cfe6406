//! The other side of a request: which replies answer it, and where the answer goes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use super::handle::Handle;
use super::range::{Arrived, Writing};
use super::{Result, Session, SftpOp};
use crate::location::sftp::wire::{Reply, StatusCode};

/// A request that was sent.
pub(super) struct Waiter {
    pub(super) op: SftpOp,
    pub(super) expect: Expect,
    pub(super) since: Instant,
    pub(super) deliver: Deliver,
}

/// The replies that answer a request, besides a status that refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    Status,
    Handle,
    /// At most so many bytes.
    Data(u32),
    Name,
    Attrs,
    Extended,
}

/// Where an answer goes.
pub(super) enum Deliver {
    /// To one who waits; the session for a handle to hold.
    Once(oneshot::Sender<Result<Answer>>, Option<Session>),
    /// To a reader of a range.
    Piece { to: mpsc::UnboundedSender<Arrived>, offset: u64, asked: u32 },
    /// To a writer of ranges, whose place in the window it frees.
    Ack { to: Arc<Writing>, range: std::ops::Range<u64>, _slot: OwnedSemaphorePermit },
    /// To nobody any more; the session for a late handle to be closed on.
    Nobody(Option<Session>),
}

/// An answer.
#[derive(Debug)]
pub(super) enum Answer {
    Reply(Reply),
    Handle(Handle),
}

impl Waiter {
    /// Takes the answer to where it goes. Not under the lock: what is dropped may need it.
    pub(super) fn deliver(self, answer: Result<Reply>) {
        self.deliver.give(self.op, answer, self.since.elapsed());
    }

    /// Takes out whom to tell that it is late, once.
    pub(super) fn give_up(&mut self) -> Option<(SftpOp, Deliver)> {
        let session = match &self.deliver {
            Deliver::Once(_, session) => session.clone(),
            Deliver::Nobody(_) => return None,
            _ => None,
        };
        Some((self.op, std::mem::replace(&mut self.deliver, Deliver::Nobody(session))))
    }
}

impl Deliver {
    pub(super) fn give(self, op: SftpOp, answer: Result<Reply>, took: Duration) {
        match self {
            Deliver::Once(to, session) => {
                let answer = answer.map(|reply| Answer::new(reply, session));
                // Whoever is gone does not want it; a handle closes itself.
                let _ = to.send(answer);
            }
            Deliver::Piece { to, offset, asked } => {
                let _ = to.send(Arrived { offset, asked, took, answer });
            }
            Deliver::Ack { to, range, _slot } => to.handle_answer(op, range, answer, took),
            Deliver::Nobody(session) => {
                let _ = answer.map(|reply| Answer::new(reply, session));
            }
        }
    }
}

impl Answer {
    fn new(reply: Reply, session: Option<Session>) -> Self {
        match (reply, session) {
            (Reply::Handle(id), Some(session)) => Answer::Handle(Handle::new(session, &id)),
            (reply, _) => Answer::Reply(reply),
        }
    }
}

impl Expect {
    /// What a reply is, in words, that does not answer this.
    pub(super) fn refusal(self, reply: &Reply) -> Option<String> {
        match (self, reply) {
            (Expect::Status, Reply::Status { .. })
            | (Expect::Handle, Reply::Handle(_))
            | (Expect::Name, Reply::Name(_))
            | (Expect::Attrs, Reply::Attrs(_))
            | (Expect::Extended, Reply::Extended(_)) => None,
            (Expect::Data(asked), Reply::Data(data)) if data.len() <= asked as usize => None,
            (Expect::Data(asked), Reply::Data(data)) => {
                Some(format!("{} bytes where {asked} were asked for", data.len()))
            }
            (_, Reply::Status { code, .. }) if *code != StatusCode::OK => None,
            (_, Reply::Status { .. }) => Some("the status \"ok\" and nothing else".to_owned()),
            (_, other) => Some(other.name().to_owned()),
        }
    }
}
