//! Both ends in this process: the same machines, with content copied instead of framed.
//!
//! Messages travel over a pair of sockets as they would over a network; content does not.

use std::cell::RefCell;
use std::sync::Arc;

use fcp_proto::Violation;
use fcp_proto::packet::Summary;

use super::conn::Duplex;
use super::receive::{self, ReceiveOptions, ReceiveRole};
use super::send::{self, SendOptions, SendRole, Unreadable, read_whole};
use super::session::{Ended, Inlet, Session, SessionError, spawn};
use crate::transfer::{Work, digest};
use crate::walk::Source;

/// Copying threads: content is bound by memory and the kernel, not by waiting.
const COPIERS: usize = 2;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The receiving session of this process, where a sender puts content directly.
pub(super) struct LocalPlane {
    receiver: Arc<Session<ReceiveRole>>,
}

/// Copies everything from `send` to `receive` without a server.
///
/// # Errors
/// As [`super::send()`]; what was copied is kept for the next run.
pub fn copy(send: SendOptions, receive: ReceiveOptions, inlet: Inlet) -> Ended<Summary> {
    let thread_error = |e: std::io::Error| SessionError::Local(format!("cannot start: {e}"));
    let receiver_inlet = Inlet::new();
    let receiver = receive::start(receive, &receiver_inlet);
    let plane = LocalPlane { receiver: Arc::clone(&receiver) };
    let sender = send::start(send, Some(plane), &inlet)?;
    let mut ends = (Vec::new(), Vec::new());
    for _ in 0..COPIERS {
        let (a, b) = Duplex::pair().map_err(thread_error)?;
        ends.0.push(a);
        ends.1.push(b);
    }
    let (ours, theirs) = ends;
    let receiving = Arc::clone(&receiver);
    let (done, ended) = std::sync::mpsc::channel();
    let thread = spawn("fcp-receive", move || {
        let _ = done.send(receiving.run(theirs, receiver_inlet));
    })
    .map_err(thread_error)?;
    let sent = sender.run(ours, inlet);
    let received = ended.recv().unwrap_or_else(|_| {
        Err(SessionError::Local("an error inside fcp (a thread panicked)".to_owned()))
    });
    let _ = thread.join();
    let summary = receive::finish(&receiver, received);
    // The receiver knows best what happened to the disk; the sender, why it ended early.
    match (sent, summary) {
        (Ok(()), summary) => summary,
        (Err(SessionError::Peer(_)), Err(why)) => Err(why),
        (Err(why), _) => Err(why),
    }
}

impl LocalPlane {
    /// Moves the content of `work` to the receiver's disk.
    pub(super) fn copy(&self, role: &SendRole, session: &Session<SendRole>, work: &Work<Source>) {
        let copied = BUFFER.with_borrow_mut(|buf| {
            buf.resize(work.block.len as usize, 0);
            self.copy_through(role, work, buf)
        });
        match copied {
            Ok(Ok(())) => self.receiver.role.worked(&self.receiver),
            Ok(Err(violation)) => self.receiver.fail(violation.into()),
            Err(why) => role.give_up(session, work, why),
        }
    }

    fn copy_through(
        &self,
        role: &SendRole,
        work: &Work<Source>,
        buf: &mut [u8],
    ) -> Result<Result<(), Violation>, Unreadable> {
        let receiver = &self.receiver;
        if work.whole {
            read_whole(work, buf)?;
            return Ok(receiver.role.take_local_whole(receiver, work.block.file, buf));
        }
        role.read_block(work, buf)?;
        Ok(receiver.role.take_local_block(receiver, work.block, buf, digest(buf)))
    }
}
