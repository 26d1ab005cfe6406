//! HELLO and what answers it, over any stream where no version 1 peer can be.
//!
//! The caller sets the stream's deadline, and knows what binds a proof to it.

use std::fmt;
use std::io::{self, Read, Write};

use fcp_common::auth::{Exchange, Token};
use fcp_proto::auth::{AuthOffer, Challenge};
use fcp_proto::coding::{DecodeError, Wire, decode_exact};
use fcp_proto::frame::{self, HEAD_LEN, Head};
use fcp_proto::packet::{Opening, Reply, WireError};
use fcp_proto::state::{Role, State, Verdict, Version, verdict};
use fcp_proto::version::{Agreed, Hello, ReplyExtra};
use fcp_proto::{ErrorCode, Fingerprint, Flag, SessionId, Violation, escape_text};
use rustix::rand::{GetRandomFlags, getrandom};

/// What the client offers and asks for.
#[derive(Clone, Debug)]
pub struct Offer<'a> {
    /// Versions, features and limits.
    pub hello: &'a Hello,
    /// What it proves; a server that cannot prove the same is not spoken to.
    pub credential: Option<Credential<'a>>,
    /// The certificate that it would show on a direct data port.
    pub direct: Option<Fingerprint>,
}

/// A token and the connection that it is proved for.
#[derive(Clone, Debug)]
pub struct Credential<'a> {
    /// The token's name; empty for the server's own.
    pub name: &'a str,
    /// The token.
    pub token: &'a Token,
    /// The TLS exporter's bytes; zeros where the transport has none.
    pub binding: [u8; 32],
}

/// A session that the server has agreed to. It proved itself, if that was asked.
#[derive(Clone, Debug)]
pub struct Welcome {
    /// The session, for ATTACH.
    pub sid: SessionId,
    /// Within what was offered.
    pub agreed: Agreed,
    /// What else the server said.
    pub extra: ReplyExtra,
}

/// Why there is no session.
#[derive(Debug)]
pub enum GreetError {
    /// The stream ended, failed or was silent.
    Io(io::Error),
    /// The server broke the protocol.
    Violation(Violation),
    /// The server refused.
    Refused(WireError),
    /// The server does not know the token that it would have to know.
    Impostor,
    /// The token's name cannot be.
    Name(DecodeError),
}

/// HELLO that was sent.
#[derive(Debug)]
pub struct Sent {
    hello: Hello,
}

/// What HELLO says.
///
/// # Errors
/// No random numbers, or a name that cannot be.
pub fn hello(offer: &Offer<'_>) -> Result<Hello, GreetError> {
    let mut hello = Hello { auth: None, direct: offer.direct, ..offer.hello.clone() };
    if let Some(credential) = &offer.credential {
        let auth = AuthOffer::new(credential.name, nonce().map_err(GreetError::Io)?);
        hello.auth = Some(auth.map_err(GreetError::Name)?);
    }
    Ok(hello)
}

/// Sends HELLO. The answer may be awaited later.
///
/// # Errors
/// The stream's.
pub fn say_hello(stream: &mut impl Write, hello: Hello) -> Result<Sent, GreetError> {
    let mut out = Vec::new();
    let fits = Opening::Hello(hello.clone()).encode(&mut out);
    fits.ok_or_else(|| GreetError::Io(io::Error::other("HELLO does not fit a frame")))?;
    stream.write_all(&out).and_then(|()| stream.flush()).map_err(GreetError::Io)?;
    Ok(Sent { hello })
}

/// Reads the answer to HELLO, proves what was offered, and reads not one byte behind ACCEPT.
///
/// # Errors
/// See [`GreetError`]; nothing but HELLO and the proof was sent then.
pub fn await_welcome(
    stream: &mut (impl Read + Write),
    sent: &Sent,
    credential: Option<&Credential<'_>>,
) -> Result<Welcome, GreetError> {
    let exchange = match (&sent.hello.auth, credential) {
        (Some(auth), Some(credential)) => Some((prove(stream, auth, credential)?, credential)),
        _ => None,
    };
    let (flag, payload) = read_frame(stream, State::ExpectAccept)?;
    let frame = frame::Frame { flag, payload: &payload };
    let reply = Reply::decode(frame).map_err(GreetError::Violation)?;
    let broken = |rule| GreetError::Violation(Violation::rule(flag, rule));
    let agreed = reply.agreed.ok_or_else(|| broken("agrees on nothing"))?;
    if !agreed.is_within(&sent.hello) {
        return Err(broken("agrees on more than was offered"));
    }
    match (&exchange, &reply.extra.auth) {
        (None, None) => {}
        (Some((exchange, credential)), Some(signature))
            if exchange.server_knows(credential.token, signature) => {}
        (None, Some(_)) => return Err(broken("proves what nobody asked for")),
        _ => return Err(GreetError::Impostor),
    }
    if reply.extra.direct.is_some() && sent.hello.direct.is_none() {
        return Err(broken("offers a data port that nobody asked for"));
    }
    Ok(Welcome { sid: reply.sid, agreed, extra: reply.extra })
}

/// [`say_hello`] and [`await_welcome`].
///
/// # Errors
/// Theirs.
pub fn greet(stream: &mut (impl Read + Write), offer: &Offer<'_>) -> Result<Welcome, GreetError> {
    let sent = say_hello(stream, hello(offer)?)?;
    await_welcome(stream, &sent, offer.credential.as_ref())
}

/// Reads CHALLENGE and answers PROOF.
fn prove<'a>(
    stream: &mut (impl Read + Write),
    auth: &AuthOffer,
    credential: &Credential<'a>,
) -> Result<Exchange<'a>, GreetError> {
    let (flag, payload) = read_frame(stream, State::ExpectChallenge)?;
    let challenge: Challenge = decode_exact(&payload)
        .map_err(|error| GreetError::Violation(Violation::Decode { flag, error }))?;
    let exchange = Exchange {
        binding: credential.binding,
        name: credential.name,
        client_nonce: auth.nonce,
        server_nonce: challenge.nonce,
    };
    let mut proof = Vec::new();
    exchange.proof(credential.token).encode(&mut proof);
    let mut out = Vec::new();
    frame::encode(Flag::PROOF, &proof, &mut out);
    stream.write_all(&out).and_then(|()| stream.flush()).map_err(GreetError::Io)?;
    Ok(exchange)
}

/// Reads one frame that may come in `state`; an ERROR is an error.
fn read_frame(stream: &mut impl Read, state: State) -> Result<(Flag, Vec<u8>), GreetError> {
    let mut head = [0; HEAD_LEN];
    stream.read_exact(&mut head).map_err(GreetError::Io)?;
    let Head { flag, len, .. } = Head::from_bytes(head);
    if verdict(Version::Two, Role::Client, state, flag) != Verdict::Allowed {
        let expected = if state == State::ExpectChallenge { "CHALLENGE" } else { "ACCEPT" };
        return Err(GreetError::Violation(Violation::Unexpected { got: flag, expected }));
    }
    let mut bytes = head.to_vec();
    bytes.resize(HEAD_LEN + usize::from(len), 0);
    stream.read_exact(&mut bytes[HEAD_LEN..]).map_err(GreetError::Io)?;
    frame::decode(&bytes).map_err(|error| GreetError::Violation(error.into()))?;
    let payload = bytes.split_off(HEAD_LEN);
    if flag != Flag::ERROR {
        return Ok((flag, payload));
    }
    Err(match decode_exact(&payload) {
        Ok(error) => GreetError::Refused(error),
        Err(error) => GreetError::Violation(Violation::Decode { flag, error }),
    })
}

/// Random bytes that nobody can foresee.
fn nonce() -> io::Result<[u8; 32]> {
    let mut nonce = [0; 32];
    let mut filled = 0;
    while filled < nonce.len() {
        filled += getrandom(&mut nonce[filled..], GetRandomFlags::empty())?;
    }
    Ok(nonce)
}

/// In words, for the line "cannot connect to SERVER: ...".
impl fmt::Display for GreetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GreetError::Io(error) => match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe => f.write_str("it hung up; its log says why"),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    f.write_str("it does not answer")
                }
                _ => error.fmt(f),
            },
            GreetError::Violation(violation) => violation.fmt(f),
            GreetError::Refused(error) if error.code == ErrorCode::VERSION => {
                write!(f, "fcp and fcpd share no version: {}", escape_text(&error.text))
            }
            GreetError::Refused(error) => {
                write!(f, "the server refused: {}", escape_text(&error.text))
            }
            GreetError::Impostor => f.write_str(
                "whoever answers there does not know the token, so it is not the fcpd that it \
                 should be; nothing was sent",
            ),
            GreetError::Name(_) => f.write_str("the token's name cannot be"),
        }
    }
}

impl std::error::Error for GreetError {}

#[cfg(test)]
mod tests {
    use super::*;
    use fcp_proto::auth::{DirectOffer, Proof, Signature};
    use fcp_proto::version::negotiate;
    use std::os::unix::net::UnixStream;
    use std::thread;

    const SID: SessionId = SessionId([7; 16]);

    fn token() -> Token {
        Token::from_random([9; 32])
    }

    fn send(stream: &mut UnixStream, flag: Flag, payload: &[u8]) {
        let mut out = Vec::new();
        frame::encode(flag, payload, &mut out);
        let _ = stream.write_all(&out);
    }

    fn read(stream: &mut UnixStream) -> Vec<u8> {
        let mut head = [0; HEAD_LEN];
        stream.read_exact(&mut head).unwrap();
        let mut payload = vec![0; Head::from_bytes(head).len.into()];
        stream.read_exact(&mut payload).unwrap();
        payload
    }

    fn accept(stream: &mut UnixStream, agreed: Agreed, extra: ReplyExtra) {
        let mut out = Vec::new();
        Reply { sid: SID, agreed: Some(agreed), extra }.encode(Flag::ACCEPT, &mut out);
        let _ = stream.write_all(&out);
    }

    /// Greets a server that does this once HELLO has come.
    fn against(
        credential: Option<Credential<'_>>,
        server: impl FnOnce(&mut UnixStream, Hello) + Send,
    ) -> Result<Welcome, GreetError> {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                let hello = decode_exact(&read(&mut theirs)).unwrap();
                server(&mut theirs, hello);
            });
            let greeted =
                greet(&mut ours, &Offer { hello: &Hello::ours(4), credential, direct: None });
            drop(ours);
            greeted
        })
    }

    fn credential(token: &Token) -> Option<Credential<'_>> {
        Some(Credential { name: "", token, binding: [0; 32] })
    }

    fn exchange(hello: &Hello) -> Exchange<'static> {
        let client_nonce = hello.auth.as_ref().unwrap().nonce;
        Exchange { binding: [0; 32], name: "", client_nonce, server_nonce: [3; 32] }
    }

    #[test]
    fn both_ends_prove_themselves() {
        let token = token();
        let welcome = against(credential(&token), |stream, hello| {
            send(stream, Flag::CHALLENGE, &[3; 32]);
            let proof: Proof = decode_exact(&read(stream)).unwrap();
            let auth = exchange(&hello).verify(&self::token().verifier(), &proof);
            let agreed = negotiate(&hello, &Hello::ours(9)).unwrap();
            accept(stream, agreed, ReplyExtra { auth, direct: None });
        });
        let welcome = welcome.unwrap();
        assert_eq!((welcome.sid, welcome.agreed.connections), (SID, 4));
    }

    #[test]
    fn a21_a_squatter_that_does_not_know_the_token_is_not_spoken_to() {
        let token = token();
        for auth in [None, Some(Signature([1; 32]))] {
            let error = against(credential(&token), |stream, hello| {
                send(stream, Flag::CHALLENGE, &[3; 32]);
                read(stream);
                let agreed = negotiate(&hello, &Hello::ours(9)).unwrap();
                accept(stream, agreed, ReplyExtra { auth, direct: None });
                assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "nothing follows");
            });
            assert!(matches!(error, Err(GreetError::Impostor)));
        }
    }

    #[test]
    fn a23_a_server_that_skips_the_challenge_or_sends_the_proof_back_is_refused() {
        let token = token();
        let error = against(credential(&token), |stream, hello| {
            let agreed = negotiate(&hello, &Hello::ours(9)).unwrap();
            accept(stream, agreed, ReplyExtra::default());
        });
        assert!(matches!(error, Err(GreetError::Violation(_))));
        let error = against(credential(&token), |stream, hello| {
            send(stream, Flag::CHALLENGE, &[3; 32]);
            let proof: Proof = decode_exact(&read(stream)).unwrap();
            let agreed = negotiate(&hello, &Hello::ours(9)).unwrap();
            let auth = Some(Signature(proof.0));
            accept(stream, agreed, ReplyExtra { auth, direct: None });
        });
        assert!(matches!(error, Err(GreetError::Impostor)));
    }

    #[test]
    fn w32_what_goes_beyond_the_offer_is_refused() {
        let error = against(None, |stream, _| {
            let agreed = negotiate(&Hello::ours(5), &Hello::ours(5)).unwrap();
            accept(stream, agreed, ReplyExtra::default());
        });
        assert!(matches!(error, Err(GreetError::Violation(_))));
        let direct = Some(DirectOffer { port: 1, fingerprint: Fingerprint([0; 32]) });
        for extra in [
            ReplyExtra { auth: None, direct },
            ReplyExtra { auth: Some(Signature([0; 32])), direct: None },
        ] {
            let error = against(None, |stream, hello| {
                accept(stream, negotiate(&hello, &hello).unwrap(), extra);
            });
            assert!(matches!(error, Err(GreetError::Violation(_))));
        }
    }

    #[test]
    fn a_refusal_is_told_in_escaped_words_and_other_answers_are_violations() {
        let error = against(None, |stream, _| {
            let mut payload = Vec::new();
            WireError::new(ErrorCode::REFUSED, "no\x1b[2J").encode(&mut payload);
            send(stream, Flag::ERROR, &payload);
        });
        assert_eq!(error.unwrap_err().to_string(), "the server refused: no\\033[2J");
        for flag in [Flag::SID, Flag::KEEPALIVE, Flag(0x47)] {
            let error = against(None, |stream, _| send(stream, flag, &[0; 40]));
            assert!(matches!(error, Err(GreetError::Violation(_))), "{flag}");
        }
        let error = against(None, |stream, _| drop(stream.write_all(&[0x11, 0, 0])));
        assert_eq!(error.unwrap_err().to_string(), "it hung up; its log says why");
    }
}
