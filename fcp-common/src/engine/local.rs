//! Both ends in this process: the same machines, with content copied instead of framed.
//!
//! Messages travel over a pair of sockets as they would over a network; content does not.

use std::cell::RefCell;
use std::sync::Arc;

use fcp_proto::Violation;
use fcp_proto::packet::Summary;

use super::Counters;
use super::conn::Duplex;
use super::receive::{self, ReceiveOptions, ReceiveRole};
use super::send::{self, SendOptions, SendRole, read_whole};
use super::session::{Ended, Inlet, Session, SessionError, spawn};
use crate::transfer::Work;
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
    /// Moves the content of `works` to the receiver's disk.
    pub(super) fn copy(
        &self,
        role: &SendRole,
        session: &Session<SendRole>,
        works: &[Work<Source>],
    ) {
        let copied = BUFFER.with_borrow_mut(|buf| self.copy_through(role, session, works, buf));
        match copied {
            Ok(()) => self.receiver.role.worked(&self.receiver),
            Err(violation) => self.receiver.fail(violation.into()),
        }
    }

    fn copy_through(
        &self,
        role: &SendRole,
        session: &Session<SendRole>,
        works: &[Work<Source>],
        buf: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        let receiver = &self.receiver;
        let mut wholes = Vec::new();
        buf.clear();
        for work in works {
            let (start, len) = (buf.len(), work.block.len as usize);
            buf.resize(start + len, 0);
            let content = &mut buf[start..];
            let read = match work.whole {
                true => read_whole(work, content),
                false => role.read_block(work, content),
            };
            if read.is_ok() {
                Counters::add(&session.counters.moved_bytes, len as u64);
            }
            match read {
                Ok(()) if work.whole => wholes.push((work.block.file, start..start + len, true)),
                Ok(()) => receiver.role.take_local_block(receiver, work.block, content)?,
                Err(why) => role.give_up(session, work, why),
            }
            if !work.whole {
                buf.truncate(start);
            }
        }
        receiver.role.take_wholes(receiver, wholes, buf)
    }
}
