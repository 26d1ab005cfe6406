//! Two sessions joined by their client: what a server sends another one receives.
//!
//! ```text
//!   source (sender)            relay (client of both)             sink (receiver)
//!   message n   ----------->   checked, renumbered   ----------->  message n + 1
//!   ACK n - 1   <-----------                         <-----------  ACK n
//!   message n+1 <-----------   observed, renumbered  <-----------  message n
//!   DATA, BLOCK, WHOLE  --->   unread                ----------->
//! ```
//!
//! In both sessions number 0 of the client's direction is the client's own REQUEST, so everything
//! that is passed on gets the next higher number. The ends' machines talk to each other: they
//! acknowledge, repeat and flow-control end to end, and the relay keeps nothing to repeat.
//! Connection i of one session is tied to connection i of the other: content is not numbered, so
//! that the loss of one must be seen as a loss at both ends.
//!
//! Names are checked as in a pull before the sink sees them: the source may be hostile. A message
//! that is repeated must be the same, or the sink could be shown another one than was checked.
//!
//! The sink is asked only after the first announcement, as its REQUEST says whether the one thing
//! that comes is a directory; what came before is held back.

mod lane;
mod ledger;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use fcp_proto::coding::{Wire, decode_exact};
use fcp_proto::frame::{self, Frame};
use fcp_proto::limits::MAX_UNACKED_BYTES;
use fcp_proto::packet::{Message, Options, Request, Sequenced, Summary, WireError};
use fcp_proto::version::Agreed;
use fcp_proto::{ConnId, Flag, Violation};

use crate::transfer::{Admits, Announced, ReceiveEvent};
pub use lane::Lane;
use ledger::Ledger;
use stream::Stream;

/// Messages held back before the sink is asked without knowing what comes.
const MAX_HELD: usize = 1024;
/// Bytes of them.
const MAX_HELD_BYTES: usize = MAX_UNACKED_BYTES / 4;

/// One of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// It sends: a pull for the client.
    Source,
    /// It receives: a push for the client.
    Sink,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Side {
        match self {
            Side::Source => Side::Sink,
            Side::Sink => Side::Source,
        }
    }
}

/// What was asked of both.
pub struct Config {
    /// What both sessions agreed on.
    pub agreed: Agreed,
    /// What the sink is asked; SINGLE is set here once it is known.
    pub sink_request: Request,
    /// The source was asked for one thing, so one entry comes below the root.
    pub one_thing: bool,
    /// The source was asked for a directory's contents, so that it may tell its mode and time.
    pub contents: bool,
    /// Whether the source may announce this path; the second argument says that it is a directory.
    pub admits: Option<Admits>,
}

/// Why one of the servers ends the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It broke the protocol.
    Violation(Violation),
    /// It said ERROR.
    Error(WireError),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Stop {
        Stop::Violation(violation)
    }
}

/// Frames that follow from what came.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Passing {
    /// For the other server, over the connection tied to the one that it came on.
    pub on: Vec<u8>,
    /// For the one that it came from, over the same connection.
    pub back: Vec<u8>,
}

/// Both sessions' common state: numbers, checks, what became of entries.
pub struct Relay {
    /// Messages of the source.
    up: Stream,
    /// Messages of the sink.
    down: Stream,
    ledger: Ledger,
    sink_request: Request,
    one_thing: bool,
    max_frame: usize,
    /// By the connection that they came on, as its loss makes the source repeat them.
    held: BTreeMap<ConnId, Vec<u8>>,
    held_messages: usize,
    held_bytes: usize,
    /// The sink may be asked now.
    due: bool,
    started: bool,
    closed: Option<Summary>,
    /// Nothing is passed on any more: what broke a rule could be repeated, and repeats are not
    /// looked at.
    stopped: Option<Stop>,
}

impl Relay {
    /// A relay of nothing so far.
    pub fn new(config: Config) -> Relay {
        let Config { agreed, sink_request, one_thing, contents, admits } = config;
        let links = sink_request.options.has(Options::LINKS);
        Relay {
            up: Stream::default(),
            down: Stream::default(),
            max_frame: agreed.max_frame.into(),
            ledger: Ledger::new(&agreed, (one_thing, contents), links, admits),
            sink_request,
            one_thing,
            held: BTreeMap::new(),
            held_messages: 0,
            held_bytes: 0,
            due: false,
            started: false,
            closed: None,
            stopped: None,
        }
    }

    /// A frame other than content came over a connection whose direction is `lane`.
    ///
    /// # Errors
    /// The server that sent it has ended the relay, or must be cut off.
    pub fn handle_frame(
        &mut self,
        lane: &mut Lane,
        frame: Frame<'_>,
        out: &mut Passing,
    ) -> Result<(), Stop> {
        if self.stopped.is_none() {
            self.stopped = self.take_frame(lane, frame, out).err();
        }
        self.stopped.clone().map_or(Ok(()), Err)
    }

    /// The source is slow to announce anything: the sink is asked with what is known.
    ///
    /// Answers whether that was possible: where one thing was asked for, only the source knows
    /// what it is.
    pub fn handle_impatience(&mut self) -> bool {
        self.due |= !self.one_thing;
        self.due || self.started || self.closed.is_some()
    }

    /// Frames for the sink's connections, once: for the first its REQUEST, for all what was held
    /// back.
    pub fn poll_start(&mut self) -> Option<BTreeMap<ConnId, Vec<u8>>> {
        if self.started || !self.due || self.closed.is_some() {
            return None;
        }
        self.started = true;
        let single = self.one_thing && self.ledger.first_is_no_dir();
        self.sink_request.options = self.sink_request.options.with(Options::SINGLE, single);
        let mut first = self.request_frames();
        let mut all = std::mem::take(&mut self.held);
        first.append(all.entry(ConnId(0)).or_default());
        all.insert(ConnId(0), first);
        Some(all)
    }

    /// The sink's REQUEST again, after the connection that carried it is lost; `None` when the sink
    /// has it or was not asked yet. What was passed on with it the source repeats.
    pub fn repeat_request(&self) -> Option<Vec<u8>> {
        let unsure = self.started && !self.up.is_known() && self.down.is_empty();
        unsure.then(|| self.request_frames())
    }

    /// The next thing the user should know.
    pub fn poll_event(&mut self) -> Option<ReceiveEvent> {
        self.ledger.poll_event()
    }

    /// What is to come, as far as it is known.
    pub fn announced(&self) -> Announced {
        self.ledger.announced()
    }

    /// Whether the sink was asked.
    pub fn is_started(&self) -> bool {
        self.started
    }

    /// The sink's account, once everything is there.
    pub fn closed(&self) -> Option<&Summary> {
        self.closed.as_ref()
    }

    fn take_frame(
        &mut self,
        lane: &mut Lane,
        frame: Frame<'_>,
        out: &mut Passing,
    ) -> Result<(), Stop> {
        let Frame { flag, payload } = frame;
        lane.check_between(flag)?;
        match flag {
            Flag::PART => lane.handle_part(payload)?,
            _ if flag.is_message() => {
                let joined = lane.join(flag, payload)?;
                self.handle_message(lane, flag, joined.as_deref().unwrap_or(payload), out)?;
            }
            Flag::ACK => self.handle_ack(lane.from, payload, &mut out.on)?,
            Flag::ERROR => {
                let error = decode_exact::<WireError>(payload);
                return Err(Stop::Error(error.map_err(|e| Violation::Decode { flag, error: e })?));
            }
            Flag::KEEPALIVE if self.started => frame::encode(flag, &[], &mut out.on),
            // What neither end agreed on is not passed on.
            _ if flag.is_ignorable() => {}
            got => {
                let expected = "a version 2 session frame";
                return Err(Violation::Unexpected { got, expected }.into());
            }
        }
        Ok(())
    }

    fn request_frames(&self) -> Vec<u8> {
        let request = Message::Request(self.sink_request.clone());
        let mut out = Vec::new();
        Sequenced::put_frames(request.flag(), &request.to_payload(0), self.max_frame, &mut out);
        out
    }

    fn handle_ack(
        &mut self,
        from: Side,
        payload: &[u8],
        on: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        let flag = Flag::ACK;
        let next = payload.try_into().map(u32::from_be_bytes);
        let next = next.map_err(|_| Violation::rule(flag, "is not four bytes long"))?;
        // Of the other one's messages, which have one number less where they come from.
        let stream = if from == Side::Sink { &mut self.up } else { &mut self.down };
        if let Some(next) = stream.handle_ack(next)? {
            frame::encode(flag, &next.to_be_bytes(), on);
        }
        Ok(())
    }

    fn handle_message(
        &mut self,
        lane: &Lane,
        flag: Flag,
        payload: &[u8],
        out: &mut Passing,
    ) -> Result<(), Violation> {
        let from = lane.from;
        check_direction(from, flag)?;
        if from == Side::Sink && !self.started {
            return Err(Violation::rule(flag, "comes before it was asked for anything"));
        }
        let stream = if from == Side::Source { &mut self.up } else { &mut self.down };
        let (number, is_new) = stream.take(flag, payload)?;
        if is_new && self.closed.is_none() {
            self.observe(flag, payload, out)?;
        }
        let start = out.on.len();
        put_renumbered(flag, number, payload, self.max_frame, &mut out.on);
        if !self.started {
            self.hold(lane.conn, &out.on[start..]);
            out.on.truncate(start);
        }
        Ok(())
    }

    /// Before the sink was asked, nothing is passed on.
    fn hold(&mut self, conn: ConnId, frames: &[u8]) {
        self.held.entry(conn).or_default().extend_from_slice(frames);
        self.held_messages += 1;
        self.held_bytes += frames.len();
        // Only PROBLEM can come so often: more than one thing was asked for.
        self.due |= self.held_messages >= MAX_HELD || self.held_bytes >= MAX_HELD_BYTES;
    }

    fn observe(&mut self, flag: Flag, payload: &[u8], out: &mut Passing) -> Result<(), Violation> {
        let unread = [Flag::WANT, Flag::WRITTEN, Flag::DIGESTS, Flag::DIGESTS_WANTED];
        if unread.contains(&flag) {
            // The other end checks it, and it means nothing here.
            return Ok(());
        }
        match Sequenced::from_payload(flag, payload)?.message {
            Message::Entries(list) => list.into_iter().try_for_each(|e| self.ledger.announce(e))?,
            Message::DirsEnd(list) => list.into_iter().try_for_each(|d| self.ledger.end(d))?,
            Message::Problem(problem) => self.ledger.problem(problem),
            Message::Replaced(old, entry) => self.ledger.replace(old, entry)?,
            Message::Gone(id, error) => self.ledger.gone(id, error)?,
            Message::Finish(root) => {
                self.ledger.finish(root)?;
                let nothing = self.ledger.announced().entries == 0 && root.0.is_none();
                if nothing && !self.started {
                    self.close_alone(&mut out.back);
                } else {
                    self.due = true;
                }
            }
            Message::Results(list) => list.into_iter().try_for_each(|r| self.ledger.result(r))?,
            Message::Close(summary) => {
                self.ledger.close()?;
                self.closed = Some(summary);
            }
            _ => {}
        }
        self.due |= self.closed.is_none() && self.ledger.announced().entries > 0;
        Ok(())
    }

    /// The source has nothing: the sink need not be asked, as it would make an empty directory.
    fn close_alone(&mut self, back: &mut Vec<u8>) {
        let close = Message::Close(Summary::default());
        Sequenced::put_frames(close.flag(), &close.to_payload(1), self.max_frame, back);
        self.closed = Some(Summary::default());
    }
}

/// Appends a message under the number that it has at the other end.
fn put_renumbered(flag: Flag, number: u32, payload: &[u8], max_frame: usize, out: &mut Vec<u8>) {
    let body = payload.get(size_of::<u32>()..).unwrap_or_default();
    if payload.len() <= max_frame {
        return frame::encode_with(flag, out, |out| {
            out.extend_from_slice(&number.to_be_bytes());
            out.extend_from_slice(body);
        });
    }
    let joined = [&number.to_be_bytes()[..], body].concat();
    Sequenced::put_frames(flag, &joined, max_frame, out);
}

fn check_direction(from: Side, flag: Flag) -> Result<(), Violation> {
    const UP: [Flag; 7] = [
        Flag::ENTRIES,
        Flag::DIRS_END,
        Flag::DIGESTS,
        Flag::PROBLEM,
        Flag::REPLACED,
        Flag::GONE,
        Flag::FINISH,
    ];
    const DOWN: [Flag; 5] =
        [Flag::WANT, Flag::RESULTS, Flag::WRITTEN, Flag::DIGESTS_WANTED, Flag::CLOSE];
    let (may, expected): (&[Flag], _) = match from {
        Side::Source => (&UP, "a sender's message"),
        Side::Sink => (&DOWN, "a receiver's message"),
    };
    if may.contains(&flag) { Ok(()) } else { Err(Violation::Unexpected { got: flag, expected }) }
}

/// The frame that tells a server why the relay ends.
pub fn error_frame(error: &WireError) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode_with(Flag::ERROR, &mut out, |out| error.encode(out));
    out
}
