//! `fcp://host[:port]/path` beyond this machine: TLS to an fcpd with tokens.
//!
//! Both ends prove themselves before any path moves: the server's key is the one that is pinned, or
//! the first one that it ever showed, and it knows the token that we prove to have on this very
//! connection. So even a first connection is not open to somebody in between.

use std::io;
use std::time::{Duration, Instant};

use fcp_common::engine::Duplex;
use fcp_common::tls::{Identity, ServerPin, client_config};
use fcp_proto::version::{Agreed, Hello};
use fcp_proto::{ErrorCode, Fingerprint};

use super::PATIENCE;
use super::address::{self, Family};
use super::channel::{Channel, Dialer};
use super::greeting::{Credential, GreetError, Offer, Welcome, greet};
use super::known_servers::{KnownServers, KnownServersError, ServerName, Verdict};
use crate::config::NamedToken;
use crate::error::CliError;

/// What is needed to reach a server.
#[derive(Clone, Copy, Debug)]
pub struct TlsOptions<'a> {
    /// What is offered: versions, features and limits.
    pub hello: &'a Hello,
    /// What we prove to have; without it there is no session.
    pub token: Option<&'a NamedToken>,
    /// Where keys are pinned; without it there is no session.
    pub known_servers: Option<&'a KnownServers>,
    /// `-4`, `-6`.
    pub family: Family,
}

/// An opened session.
pub struct TlsSession {
    /// What was agreed.
    pub agreed: Agreed,
    /// Its first connection.
    pub first: Duplex,
    /// For more; their ramp is [`PathKind::Direct`](super::ramp::PathKind) with one existing.
    pub dialer: Dialer,
}

/// Opens a session with the fcpd at `host`, a name or an address without brackets.
///
/// # Errors
/// [`CliError::Connect`]. The server was told no path then, and nothing at all but the greeting of
/// TLS when its key is not the pinned one.
pub fn open(host: &str, port: u16, options: &TlsOptions<'_>) -> Result<TlsSession, CliError> {
    open_until(host, port, options, Instant::now() + PATIENCE)
}

fn open_until(
    host: &str,
    port: u16,
    options: &TlsOptions<'_>,
    end: Instant,
) -> Result<TlsSession, CliError> {
    let server = format!("fcp://{}", ServerName::shown(host, port));
    let failed = |reason: String| CliError::Connect { server: server.clone(), reason };
    let token = options.token.ok_or_else(|| failed(no_token()))?;
    let known = options.known_servers.ok_or_else(|| failed(no_home()))?;
    let name = ServerName::new(host, port).ok_or_else(|| failed("no host's name".to_owned()))?;
    let addresses = address::resolve(host, port, options.family, end);
    let addresses = addresses.map_err(|error| failed(error.to_string()))?;
    let connected = address::race(addresses, end, address::connect);
    let (server, (stream, rtt)) = connected.map_err(|error| failed(connect_help(&error)))?;
    let identity = Identity::fresh().map_err(|error| failed(error.to_string()))?;
    let any = client_config(&identity, ServerPin::Any).map_err(|e| failed(e.to_string()))?;
    let channel = Channel::open(stream, any, end).map_err(|error| failed(tls_help(&error)))?;
    let found = Found { known, name: &name, channel };
    let (welcome, fingerprint, channel) = found.prove(options.hello, token).map_err(&failed)?;
    let config = client_config(&identity, ServerPin::Exactly(fingerprint));
    let config = config.map_err(|error| failed(error.to_string()))?;
    let idle = Duration::from_secs(welcome.agreed.idle_secs.into());
    let first = channel.into_duplex(idle).map_err(|error| failed(error.to_string()))?;
    let dialer = Dialer { server, config, sid: welcome.sid, idle, rtt };
    Ok(TlsSession { agreed: welcome.agreed, first, dialer })
}

/// A server that showed a key.
struct Found<'a> {
    known: &'a KnownServers,
    name: &'a ServerName,
    channel: Channel,
}

impl Found<'_> {
    /// Lets both ends prove themselves, and pins the key of a new server.
    fn prove(
        mut self,
        hello: &Hello,
        token: &NamedToken,
    ) -> Result<(Welcome, Fingerprint, Channel), String> {
        let shown = self.channel.fingerprint().ok_or("it showed no key")?;
        let verdict = self.known.check(self.name, shown).map_err(|error| error.to_string())?;
        let binding = self.channel.binding().map_err(|error| error.to_string())?;
        let credential = Credential { name: &token.name, token: &token.token, binding };
        let offer = Offer { hello, credential: Some(credential), direct: None };
        let welcome = greet(&mut self.channel, &offer).map_err(|error| greet_help(&error))?;
        if verdict == Verdict::New {
            self.pin(shown)?;
        }
        Ok((welcome, shown, self.channel))
    }

    /// A file that cannot be written is no reason to stop: the server proved itself by the token.
    fn pin(&self, shown: Fingerprint) -> Result<(), String> {
        match self.known.pin(self.name, shown) {
            Ok(()) => crate::ui::error(&format!(
                "{} is known from now on by its key {shown}; compare: fcpd fingerprint",
                self.name
            )),
            Err(error @ KnownServersError::File(_)) => tracing::warn!("{error}"),
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }
}

fn no_token() -> String {
    "it wants a token. On its machine, run `fcpd token add NAME --root DIR`; keep the line that it \
     prints in a file that only you can read (chmod 600), and name that with --token-file or in the \
     config"
        .to_owned()
}

fn no_home() -> String {
    "there is no place for the file of known servers: set HOME or XDG_CONFIG_HOME".to_owned()
}

fn connect_help(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!("nobody listens there ({error}); start it with: fcpd --listen ADDR --tls")
        }
        io::ErrorKind::TimedOut => {
            format!("no answer within {} seconds; a firewall?", PATIENCE.as_secs())
        }
        _ => error.to_string(),
    }
}

fn tls_help(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::InvalidData => format!("it does not speak fcp over TLS ({error})"),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            "it hung up at the greeting of TLS; is it an fcpd with --tls?".to_owned()
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no greeting of TLS within {} seconds", PATIENCE.as_secs())
        }
        _ => error.to_string(),
    }
}

/// A server refuses all tokens in the same words; these say what may be wrong with ours.
fn greet_help(error: &GreetError) -> String {
    match error {
        GreetError::Refused(refusal) if refusal.code == ErrorCode::REFUSED => format!(
            "{error} (the token may be another server's, expired or revoked; its log says which)"
        ),
        GreetError::Io(io) if io.kind() == io::ErrorKind::InvalidData => {
            format!("TLS broke off: {io}")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};

    use fcp_common::auth::Token;
    use fcp_common::tls::ClientPin;
    use fcp_proto::Flag;
    use fcp_proto::auth::Signature;
    use fcp_proto::version::ReplyExtra;

    use super::super::testing::{SID, black_hole, serve};
    use super::*;

    /// A home with a token in it.
    struct Home {
        dir: tempfile::TempDir,
        known: KnownServers,
        token: NamedToken,
    }

    fn home() -> Home {
        let dir = tempfile::tempdir().unwrap();
        let known = KnownServers::at(dir.path().join("known_servers"));
        let token = NamedToken { name: "laptop".to_owned(), token: secret() };
        Home { dir, known, token }
    }

    fn secret() -> Token {
        Token::from_random([5; 32])
    }

    impl Home {
        fn open(&self, server: SocketAddr) -> Result<TlsSession, String> {
            self.open_within(server, Duration::from_secs(10))
        }

        fn open_within(&self, at: SocketAddr, time: Duration) -> Result<TlsSession, String> {
            let options = TlsOptions {
                hello: &Hello::ours(8),
                token: Some(&self.token),
                known_servers: Some(&self.known),
                family: Family::Any,
            };
            open_until("127.0.0.1", at.port(), &options, Instant::now() + time)
                .map_err(|error| error.to_string())
        }

        fn pins(&self) -> Option<String> {
            std::fs::read_to_string(self.dir.path().join("known_servers")).ok()
        }
    }

    #[test]
    fn both_ends_prove_themselves_and_the_key_is_pinned() {
        let (home, identity) = (home(), Identity::fresh().unwrap());
        let (at, heard) = serve(&identity, ClientPin::Any, |client| {
            (client.fingerprint(), client.greet("laptop", &secret().verifier()))
        });
        for _ in 0..2 {
            let session = home.open(at).unwrap();
            assert!(heard.recv().unwrap().1);
            assert_eq!(session.agreed.connections, 8);
            assert!(session.dialer.rtt() < Duration::from_secs(1));
        }
        let pin = format!("127.0.0.1:{} {}\n", at.port(), identity.fingerprint());
        assert!(home.pins().unwrap().ends_with(&pin), "{pin}");
    }

    #[test]
    fn further_connections_are_of_the_same_client_and_attach() {
        let (home, identity) = (home(), Identity::fresh().unwrap());
        let (at, heard) = serve(&identity, ClientPin::Any, |client| {
            (client.fingerprint(), client.first_frame("laptop", &secret().verifier()))
        });
        let session = home.open(at).unwrap();
        let (client, _) = heard.recv().unwrap();
        let more = [session.dialer.dial().unwrap(), session.dialer.dial().unwrap()];
        for _ in &more {
            let (same, (flag, payload)) = heard.recv().unwrap();
            assert_eq!((same, flag), (client, Flag::ATTACH));
            assert_eq!(payload, SID.0);
        }
    }

    #[test]
    fn a02_a_changed_key_ends_it_before_a_word_is_said() {
        let (home, identity) = (home(), Identity::fresh().unwrap());
        let (at, heard) = serve(&identity, ClientPin::Any, |client| {
            let mut said = Vec::new();
            let _ = client.tls.read_to_end(&mut said);
            said
        });
        let name = ServerName::new("127.0.0.1", at.port()).unwrap();
        home.known.pin(&name, Fingerprint([1; 32])).unwrap();
        let before = home.pins();
        let error = home.open(at).err().unwrap();
        assert!(error.contains(&format!("THE KEY OF {name} HAS CHANGED")), "{error}");
        assert!(error.contains(&identity.fingerprint().to_string()), "{error}");
        assert_eq!(heard.recv().unwrap(), b"");
        assert_eq!(home.pins(), before);
    }

    #[test]
    fn a21_a_server_that_does_not_know_the_token_is_not_pinned() {
        for signature in [None, Some(Signature([9; 32]))] {
            let (home, identity) = (home(), Identity::fresh().unwrap());
            let (at, heard) = serve(&identity, ClientPin::Any, move |client| {
                let hello = client.challenge().unwrap().hello;
                client.accept(&hello, ReplyExtra { auth: signature, direct: None });
                client.frame()
            });
            let error = home.open(at).err().unwrap();
            assert!(error.contains("does not know the token"), "{error}");
            assert_eq!(heard.recv().unwrap(), None, "nothing more is said");
            assert_eq!(home.pins(), None);
        }
    }

    #[test]
    fn a23_what_one_server_was_proved_is_nothing_to_another() {
        let real = Identity::fresh().unwrap();
        let (there, _) =
            serve(&real, ClientPin::Any, |client| client.greet("laptop", &secret().verifier()));
        // In between, with its own key: it passes every frame on, as the client's own would go.
        let (at, _) = serve(&Identity::fresh().unwrap(), ClientPin::Any, move |client| {
            let us = Identity::fresh().unwrap();
            let config = client_config(&us, ServerPin::Any).unwrap();
            let end = Instant::now() + Duration::from_secs(10);
            let (stream, _) = address::connect(there, end).unwrap();
            let mut server = Channel::open(stream, config, end).unwrap();
            while let Some((flag, payload)) = client.frame() {
                let mut out = Vec::new();
                fcp_proto::frame::encode(flag, &payload, &mut out);
                server.write_all(&out).unwrap();
                server.flush().unwrap();
                let mut back = [0; 4096];
                let n = server.read(&mut back).unwrap_or(0);
                let _ = client.tls.write_all(&back[..n]);
                let _ = client.tls.flush();
            }
        });
        let home = home();
        let error = home.open(at).err().unwrap();
        assert!(error.contains("the server refused"), "{error}");
        assert_eq!(home.pins(), None);
    }

    #[test]
    fn a_wrong_token_is_told_with_what_may_be_wrong() {
        let (home, identity) = (home(), Identity::fresh().unwrap());
        let other = Token::from_random([6; 32]).verifier();
        let (at, _) = serve(&identity, ClientPin::Any, move |c| c.greet("laptop", &other));
        let error = home.open(at).err().unwrap();
        assert!(error.contains("expired or revoked"), "{error}");
        assert_eq!(home.pins(), None);
    }

    #[test]
    fn a_server_that_refuses_our_certificate_is_told_apart() {
        let (home, identity) = (home(), Identity::fresh().unwrap());
        let pin = ClientPin::Exactly(Fingerprint([1; 32]));
        let (at, _) = serve(&identity, pin, |_| ());
        let error = home.open(at).err().unwrap();
        assert!(error.contains("TLS broke off") || error.contains("hung up"), "{error}");
    }

    #[test]
    fn without_a_token_nobody_is_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (home, port) = (home(), listener.local_addr().unwrap().port());
        let options = TlsOptions {
            hello: &Hello::ours(1),
            token: None,
            known_servers: Some(&home.known),
            family: Family::Any,
        };
        let error = open("127.0.0.1", port, &options).err().unwrap().to_string();
        assert!(error.contains("fcpd token add NAME") && error.contains("--token-file"), "{error}");
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn whoever_does_not_answer_is_left_in_time() {
        let (home, time) = (home(), Duration::from_millis(400));
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let (hole, _queued, _listener) = black_hole();
        for (at, why) in [(silent.local_addr().unwrap(), "greeting of TLS"), (hole, "firewall")] {
            let started = Instant::now();
            let error = home.open_within(at, time).err().unwrap();
            assert!(error.contains(why), "{error}");
            assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        }
    }

    #[test]
    fn a_server_that_greets_late_is_left_in_time() {
        let (home, identity) = (home(), Identity::fresh().unwrap());
        let (at, _) = serve(&identity, ClientPin::Any, |client| {
            client.challenge().unwrap();
            std::thread::sleep(Duration::from_secs(2));
        });
        let started = Instant::now();
        let error = home.open_within(at, Duration::from_millis(600)).err().unwrap();
        assert!(error.contains("does not answer"), "{error}");
        assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
    }

    #[test]
    fn a_port_of_something_else_says_so() {
        let home = home();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(home.open(closed).err().unwrap().contains("fcpd --listen"));
        let web = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = web.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = web.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            stream
        });
        let error = home.open(at).err().unwrap();
        assert!(error.contains("does not speak fcp over TLS"), "{error}");
        drop(server.join());
    }
}
