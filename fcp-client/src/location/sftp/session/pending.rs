//! One call's side of a request: what was asked, and the answer as what it should be.

use std::fmt;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::core::Payload;
use super::waiter::{Answer, Expect};
use super::{Result, Session, SessionError, SftpError, SftpOp};
use crate::location::sftp::wire::{Attrs, NameEntry, Reply, Request, StatusCode};

/// An answer that is on its way. Dropped, it is forgotten.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) op: SftpOp,
    pub(super) answer: oneshot::Receiver<Result<Answer>>,
}

impl Session {
    /// Sends a request.
    pub(super) fn ask(&self, op: SftpOp, expect: Expect, request: Request<'_>) -> Result<Pending> {
        self.ask_with(op, expect, request, None)
    }

    /// Sends a request that has content.
    pub(super) fn ask_with(
        &self,
        op: SftpOp,
        expect: Expect,
        request: Request<'_>,
        payload: Option<Payload>,
    ) -> Result<Pending> {
        let session = (expect == Expect::Handle).then(|| self.clone());
        self.inner.shared.ask((op, expect), request, payload, session)
    }

    /// Ends the session for what the server did.
    pub(super) fn protocol(&self, what: String) -> SessionError {
        self.inner.shared.protocol(what)
    }

    pub(super) fn unexpected(&self, op: SftpOp, reply: &Reply) -> SessionError {
        self.protocol(format!("it answered {op} with {}", reply.name()))
    }

    pub(super) fn bad_body(&self, op: SftpOp, error: impl fmt::Display) -> SessionError {
        self.protocol(format!("it answered {op} with {error}"))
    }
}

impl Pending {
    /// The answer; a status that refuses is an error about `path`.
    pub(super) async fn answer(self, path: &[u8]) -> Result<Answer> {
        match self.answer.await.unwrap_or(Err(SessionError::Closed))? {
            Answer::Reply(Reply::Status { code, message }) if code != StatusCode::OK => {
                Err(SftpError::new(self.op, path, code, &message).into())
            }
            answer => Ok(answer),
        }
    }

    pub(super) async fn reply(self, path: &[u8]) -> Result<Reply> {
        match self.answer(path).await? {
            Answer::Reply(reply) => Ok(reply),
            // Only a waiter for a handle is given one.
            Answer::Handle(_) => Err(SessionError::Closed),
        }
    }

    pub(super) async fn done(self, path: &[u8]) -> Result<()> {
        self.reply(path).await.map(drop)
    }

    pub(super) async fn attrs(self, session: &Session, path: &[u8]) -> Result<Attrs> {
        let op = self.op;
        match self.reply(path).await? {
            Reply::Attrs(attrs) => Ok(attrs),
            other => Err(session.unexpected(op, &other)),
        }
    }

    pub(super) async fn body(self, session: &Session, path: &[u8]) -> Result<Bytes> {
        let op = self.op;
        match self.reply(path).await? {
            Reply::Extended(body) => Ok(body),
            other => Err(session.unexpected(op, &other)),
        }
    }

    /// `None` at the end of the file. Servers that send no bytes where the end is mean the same.
    pub(super) async fn data(self, session: &Session, path: &[u8]) -> Result<Option<Bytes>> {
        let op = self.op;
        match self.reply(path).await {
            Ok(Reply::Data(data)) => Ok(Some(data).filter(|data| !data.is_empty())),
            Ok(other) => Err(session.unexpected(op, &other)),
            Err(error) if is_end(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `None` at the end of the directory.
    pub(super) async fn names(
        self,
        session: &Session,
        path: &[u8],
    ) -> Result<Option<Vec<NameEntry>>> {
        let op = self.op;
        match self.reply(path).await {
            Ok(Reply::Name(names)) => Ok(Some(names)),
            Ok(other) => Err(session.unexpected(op, &other)),
            Err(error) if is_end(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether a status means that there is no more.
fn is_end(error: &SessionError) -> bool {
    error.code() == Some(StatusCode::EOF)
}
