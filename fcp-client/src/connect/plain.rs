//! The greeting over plain TCP, where a version 1 server may be: PUSH or PULL with ours inside.

use std::io::{self, Read, Write};

use fcp_common::version1::{HandshakeError, Opened, read_reply};
use fcp_proto::packet::{Opening, PullOpening, PushOpening};
use fcp_proto::version::Hello;

/// What a session is opened for; version 1 servers need to know at once.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// To send; the destination.
    Push(Vec<u8>),
    /// To receive; the sources.
    Pull(Vec<Vec<u8>>),
}

/// Greets, over a stream that has a deadline. A client that insists on `protocol` 1 says nothing that
/// a version 1 client would not.
///
/// # Errors
/// In words, for the line "cannot connect to SERVER: ...".
pub(super) fn greet(
    stream: &mut (impl Read + Write),
    purpose: &Purpose,
    offer: &Hello,
    protocol: Option<u16>,
) -> Result<Opened, String> {
    let fcp = (protocol != Some(1)).then(|| offer.clone());
    let (asked, offer) = (fcp.is_some(), fcp.clone());
    // What version 2 asks for follows in REQUEST, so that it may be what version 1 cannot say.
    let mut out = Vec::new();
    let sayable = purpose.say(fcp.clone(), &mut out);
    if sayable.is_err() && asked {
        let nothing = Purpose::Pull(Vec::new());
        nothing.say(fcp, &mut out)?;
    } else {
        sayable.clone()?;
    }
    stream.write_all(&out).map_err(|e| io_help(&e))?;
    let pull = sayable.is_err() || matches!(purpose, Purpose::Pull(_));
    let opened = read_reply(stream, pull).map_err(|error| match error {
        HandshakeError::Io(error) => io_help(&error),
        other => other.to_string(),
    })?;
    match (&opened.reply.agreed, protocol) {
        (None, Some(2)) => Err("it speaks only version 1".to_owned()),
        (Some(agreed), _) if offer.as_ref().is_some_and(|ours| !agreed.is_within(ours)) => {
            Err("it agreed on more than was offered".to_owned())
        }
        (None, _) => sayable.map(|()| opened),
        (Some(_), _) if !asked => Err("it answered with what was not asked for".to_owned()),
        (Some(_), _) if !opened.early.is_empty() => Err("it sent too much at once".to_owned()),
        _ => Ok(opened),
    }
}

impl Purpose {
    /// Appends the opening, if version 1 could be told all of it, too.
    fn say(&self, fcp: Option<Hello>, out: &mut Vec<u8>) -> Result<(), String> {
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec())
                .map_err(|_| "it speaks only version 1, which needs paths in UTF-8".to_owned())
        };
        let user = std::env::var("USER").unwrap_or_default();
        let opening = match self {
            Purpose::Push(dst) => Opening::Push(PushOpening { user, dst: text(dst)?, fcp }),
            Purpose::Pull(srcs) => Opening::Pull(PullOpening {
                user,
                srcs: srcs.iter().map(|src| text(src)).collect::<Result<_, _>>()?,
                include: "*".to_owned(),
                exclude: Vec::new(),
                fcp,
            }),
        };
        let too_long = || "it speaks only version 1, and the request is too long for that";
        Ok(opening.encode(out).ok_or_else(too_long)?)
    }
}

/// What an error of a connection means to the user.
pub(super) fn io_help(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            "it hung up; its log says why".to_owned()
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer within {} seconds", super::PATIENCE.as_secs())
        }
        _ => error.to_string(),
    }
}
