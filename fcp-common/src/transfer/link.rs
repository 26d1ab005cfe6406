//! The numbered stream over connections that may die: everything put in comes out once, in order.
//!
//! Messages travel on one connection at a time, so they stay in order without waiting. When that
//! connection is lost or stops answering, what is not acknowledged goes to another one, and the
//! receiving end drops what it has already seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use fcp_proto::limits::{MAX_MESSAGE, MAX_UNACKED_BYTES, MAX_UNACKED_MESSAGES};
use fcp_proto::packet::{Message, Sequenced};
use fcp_proto::{ConnId, Flag, Violation};

/// First patience with a connection that acknowledges nothing while others live. Longer than any
/// round trip, and doubled each time, as a full send buffer on a slow path looks the same.
const PATIENCE: Duration = Duration::from_secs(3);
/// Messages that arrive before an acknowledgement is worth a frame of its own.
const ACK_EVERY: u32 = 64;
/// Longest time an acknowledgement is held back.
const ACK_DELAY: Duration = Duration::from_millis(200);

/// Both directions of the numbered stream at one end, and the connections that live.
#[derive(Debug, Default)]
pub struct Link {
    conns: BTreeSet<ConnId>,
    carrier: Option<ConnId>,
    out: Outbox,
    inbox: Inbox,
}

#[derive(Debug, Default)]
struct Outbox {
    next: u32,
    /// Not yet transmitted on a living connection; in order of number.
    unsent: VecDeque<Outgoing>,
    /// Transmitted, not acknowledged; all numbers are below those of `unsent`.
    unacked: VecDeque<Outgoing>,
    bytes: usize,
    /// When the oldest message began to wait, or the last acknowledgement came.
    waiting_since: Option<Duration>,
    patience: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Outgoing {
    seq: u32,
    flag: Flag,
    payload: Bytes,
}

#[derive(Debug, Default)]
struct Inbox {
    next: u32,
    early: BTreeMap<u32, (Message, usize)>,
    /// Bytes in `early`.
    bytes: usize,
    acked: u32,
    ack_due: Option<Duration>,
    /// An acknowledgement is due; it waits for room on the carrier.
    ack_now: bool,
    /// Connections that repeat the acknowledgement, as the peer seems not to get it.
    ack_again: BTreeSet<ConnId>,
}

impl Link {
    /// A connection joined.
    pub fn handle_conn_opened(&mut self, conn: ConnId) {
        self.conns.insert(conn);
        self.carrier.get_or_insert(conn);
    }

    /// A connection is gone; what travelled on it travels again.
    pub fn handle_conn_lost(&mut self, conn: ConnId) {
        self.conns.remove(&conn);
        self.inbox.ack_again.remove(&conn);
        if self.carrier == Some(conn) {
            self.move_to(self.conns.first().copied());
        }
    }

    /// The peer has every message before `next`.
    pub fn handle_ack(&mut self, next: u32, now: Duration) -> Result<(), Violation> {
        if next > self.out.next {
            return Err(Violation::rule(Flag::ACK, "acknowledges what was never sent"));
        }
        let out = &mut self.out;
        while out.unacked.front().is_some_and(|m| m.seq < next) {
            out.forget_oldest(now);
        }
        // Re-queued messages that arrived after all.
        while out.unsent.front().is_some_and(|m| m.seq < next) {
            if let Some(m) = out.unsent.pop_front() {
                out.unacked.push_back(m);
            }
            out.forget_oldest(now);
        }
        Ok(())
    }

    /// A numbered message of `len` bytes arrived on any connection.
    pub fn handle_message(
        &mut self,
        m: Sequenced,
        len: usize,
        now: Duration,
    ) -> Result<(), Violation> {
        let flag = m.message.flag();
        let inbox = &mut self.inbox;
        if m.seq < inbox.next {
            // The peer repeats itself, so our acknowledgement is lost or stuck on a dead carrier.
            inbox.ack_again.clone_from(&self.conns);
            return Ok(());
        }
        if (m.seq - inbox.next) as usize >= MAX_UNACKED_MESSAGES {
            return Err(Violation::rule(flag, "is numbered beyond the window"));
        }
        if inbox.bytes + len > MAX_UNACKED_BYTES + MAX_MESSAGE {
            return Err(Violation::rule(flag, "overfills the window"));
        }
        if inbox.early.insert(m.seq, (m.message, len)).is_none() {
            inbox.bytes += len;
        }
        inbox.ack_due.get_or_insert(now + ACK_DELAY);
        Ok(())
    }

    /// Time passed: a connection that carries messages and answers none is passed over.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.inbox.ack_due.take_if(|due| *due <= now).is_some() {
            self.inbox.ack_now = true;
        }
        let patience = self.out.patience.unwrap_or(PATIENCE);
        let Some(since) = self.out.waiting_since else { return };
        if self.conns.len() < 2 || now.saturating_sub(since) < patience {
            return;
        }
        let next = self.carrier.and_then(|c| self.conns.range(c..).nth(1).copied());
        self.move_to(next.or_else(|| self.conns.first().copied()));
        self.out.waiting_since = Some(now);
        self.out.patience = Some(patience * 2);
    }

    /// The caller has read the peer's first message, REQUEST, itself: the next one is number 1.
    pub fn handle_request_taken(&mut self, now: Duration) {
        self.inbox.next = 1;
        self.inbox.ack_due = Some(now + ACK_DELAY);
    }

    /// Queues a message.
    pub fn send(&mut self, message: &Message, now: Duration) {
        self.out.push(message, now);
    }

    /// Takes the next message that arrived in order.
    pub fn poll_message(&mut self) -> Option<Message> {
        let (message, len) = self.inbox.early.remove(&self.inbox.next)?;
        self.inbox.bytes -= len;
        self.inbox.next += 1;
        Some(message)
    }

    /// Appends to `out` the frames that should go over `conn` now, up to about `budget` bytes.
    pub fn poll_transmit(
        &mut self,
        conn: ConnId,
        now: Duration,
        max_frame: usize,
        budget: usize,
        out: &mut Vec<u8>,
    ) {
        let again = self.inbox.ack_again.remove(&conn);
        if again || (self.carrier == Some(conn) && self.inbox.wants_ack(now)) {
            fcp_proto::frame::encode(Flag::ACK, &self.inbox.take_ack().to_be_bytes(), out);
        }
        while self.carrier == Some(conn) && out.len() < budget {
            let Some(m) = self.out.unsent.pop_front() else { break };
            Sequenced::put_frames(m.flag, &m.payload, max_frame, out);
            self.out.unacked.push_back(m);
        }
    }

    /// Whether `conn` has something to transmit now.
    pub fn has_transmit(&self, conn: ConnId, now: Duration) -> bool {
        let carries = !self.out.unsent.is_empty() || self.inbox.wants_ack(now);
        self.inbox.ack_again.contains(&conn) || (self.carrier == Some(conn) && carries)
    }

    /// When [`Link::poll_transmit`] or [`Link::handle_timeout`] should run next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let patience = self.out.patience.unwrap_or(PATIENCE);
        // Without a second connection there is nothing to pass over to.
        let since = self.out.waiting_since.filter(|_| self.conns.len() > 1);
        let patience = since.map(|t| t + patience);
        [self.inbox.ack_due, patience].into_iter().flatten().min()
    }

    /// Whether so much waits for acknowledgement that the caller should stop queueing.
    pub fn is_full(&self) -> bool {
        let waiting = self.out.unacked.len() + self.out.unsent.len();
        waiting >= MAX_UNACKED_MESSAGES / 2 || self.out.bytes >= MAX_UNACKED_BYTES
    }

    /// Whether everything queued was transmitted.
    pub fn is_flushed(&self) -> bool {
        self.out.unsent.is_empty()
    }

    /// Whether the peer has everything that was ever queued.
    pub fn is_acknowledged(&self) -> bool {
        self.is_flushed() && self.out.unacked.is_empty()
    }

    /// The connection that messages travel on now.
    pub fn carrier(&self) -> Option<ConnId> {
        self.carrier
    }

    /// The connections that live.
    pub fn each(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.conns.iter().copied()
    }

    /// How many connections live.
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    fn move_to(&mut self, carrier: Option<ConnId>) {
        self.carrier = carrier;
        while let Some(m) = self.out.unacked.pop_back() {
            self.out.unsent.push_front(m);
        }
    }
}

impl Outbox {
    fn push(&mut self, message: &Message, now: Duration) {
        let payload = Bytes::from(message.to_payload(self.next));
        self.bytes += payload.len();
        self.unsent.push_back(Outgoing { seq: self.next, flag: message.flag(), payload });
        self.next += 1;
        self.waiting_since.get_or_insert(now);
    }

    fn forget_oldest(&mut self, now: Duration) {
        if let Some(m) = self.unacked.pop_front() {
            self.bytes -= m.payload.len();
        }
        let idle = self.unacked.is_empty() && self.unsent.is_empty();
        self.waiting_since = (!idle).then_some(now);
        self.patience = None;
    }
}

impl Inbox {
    fn wants_ack(&self, now: Duration) -> bool {
        let many = self.next - self.acked >= ACK_EVERY;
        many || self.ack_now || self.ack_due.is_some_and(|due| due <= now)
    }

    fn take_ack(&mut self) -> u32 {
        self.acked = self.next;
        (self.ack_due, self.ack_now) = (None, false);
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fcp_proto::packet::RootMeta;

    const A: ConnId = ConnId(0);
    const B: ConnId = ConnId(1);
    const NOW: Duration = Duration::ZERO;

    fn link() -> Link {
        let mut link = Link::default();
        link.handle_conn_opened(A);
        link.handle_conn_opened(B);
        link
    }

    fn deliver(bytes: &[u8], to: &mut Link) {
        let mut rest = bytes;
        while let Some((frame, used)) = fcp_proto::frame::decode(rest).unwrap() {
            if frame.flag == Flag::ACK {
                to.handle_ack(u32::from_be_bytes(frame.payload.try_into().unwrap()), NOW).unwrap();
            } else {
                let m = Sequenced::from_payload(frame.flag, frame.payload).unwrap();
                to.handle_message(m, frame.payload.len(), NOW).unwrap();
            }
            rest = &rest[used..];
        }
    }

    fn sent(link: &mut Link, conn: ConnId) -> Vec<u8> {
        let mut out = Vec::new();
        link.poll_transmit(conn, NOW, 65_535, usize::MAX, &mut out);
        out
    }

    #[test]
    fn a_lost_connection_repeats_only_what_is_unacknowledged_and_nothing_is_seen_twice() {
        let (mut a, mut b) = (link(), link());
        for _ in 0..100 {
            a.send(&Message::Finish(RootMeta(None)), NOW);
        }
        let first = sent(&mut a, A);
        deliver(&first, &mut b);
        let mut got = std::iter::from_fn(|| b.poll_message()).count();
        let ack = sent(&mut b, A);
        deliver(&ack, &mut a);
        a.send(&Message::Finish(RootMeta(None)), NOW);
        let _lost = sent(&mut a, A);
        a.handle_conn_lost(A);
        deliver(&sent(&mut a, B), &mut b);
        got += std::iter::from_fn(|| b.poll_message()).count();
        assert_eq!(got, 101);
        a.handle_conn_lost(B);
        assert_eq!(a.connections(), 0);
    }

    #[test]
    fn w23_a_silent_carrier_is_passed_over() {
        let (mut a, mut b) = (link(), link());
        a.send(&Message::Finish(RootMeta(None)), NOW);
        assert!(!a.has_transmit(B, NOW));
        a.handle_timeout(PATIENCE);
        assert!(a.has_transmit(B, NOW));
        deliver(&sent(&mut a, B), &mut b);
        assert!(b.poll_message().is_some());
    }

    #[test]
    fn w23_a_repeated_message_is_acknowledged_over_every_connection() {
        let (mut a, mut b) = (link(), link());
        a.send(&Message::Finish(RootMeta(None)), NOW);
        let sent_once = sent(&mut a, A);
        deliver(&sent_once, &mut b);
        assert!(b.poll_message().is_some());
        deliver(&sent_once, &mut b);
        assert!(b.has_transmit(A, NOW) && b.has_transmit(B, NOW));
        // A is dead; b has nothing of its own that would tell it so.
        deliver(&sent(&mut b, B), &mut a);
        assert_eq!(a.poll_timeout(), None);
    }

    #[test]
    fn no_timer_stands_in_the_past() {
        let (mut a, mut b) = (link(), link());
        a.handle_conn_lost(B);
        a.send(&Message::Finish(RootMeta(None)), NOW);
        deliver(&sent(&mut a, A), &mut b);
        let late = 2 * PATIENCE;
        a.handle_timeout(late);
        b.handle_timeout(late);
        assert!(b.has_transmit(A, late));
        assert_eq!((a.poll_timeout(), b.poll_timeout()), (None, None));
    }

    #[test]
    fn an_acknowledgement_of_the_future_is_a_violation() {
        assert!(link().handle_ack(1, NOW).is_err());
    }

    #[test]
    fn a_number_beyond_the_window_is_a_violation() {
        let m = Sequenced { seq: 1 << 20, message: Message::Finish(RootMeta(None)) };
        assert!(link().handle_message(m, 4, NOW).is_err());
    }
}
