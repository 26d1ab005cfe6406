//! A direct data port of a host that ssh reached: TLS with both keys told over ssh, so that content
//! goes past ssh's windows and its one core.
//!
//! The address is the one that ssh itself uses; the server names only a port. Whoever answers there
//! must have the key that the server told over ssh, and gets nothing before that is proved.

use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use fcp_common::engine::Duplex;
use fcp_common::tls::{Identity, ServerPin, client_config};
use fcp_proto::auth::DirectOffer;
use fcp_proto::{Fingerprint, SessionId};

use super::address::{self, Family};
use super::channel::{Channel, Dialer};
use super::grow::{self, Early, Growth, Prepared, Session};
use super::ramp::{PathKind, Ramp};

/// How long the first connection may take while ssh could carry the content.
const BESIDE: Duration = Duration::from_secs(1);
/// How long it may take where it must.
const MUST: Duration = Duration::from_secs(10);

/// What `--via direct` says to an ACCEPT that offers no port.
pub const NOT_OFFERED: &str = "it offers no data port, as with direct = \"never\" or --no-direct \
                               there; --via stdio sends everything through ssh";

/// Whether direct connections are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Wanted {
    /// `direct = never`: HELLO says nothing of them.
    Never,
    /// Where nothing is in the way.
    #[default]
    IfPossible,
    /// `--via direct`: or there is no session.
    Must,
}

/// The way past ssh that a client would take; made before HELLO, which tells its key.
pub struct DirectPath {
    identity: Identity,
    host: String,
    family: Family,
}

/// The session to which direct connections are added.
#[derive(Clone, Copy, Debug)]
pub struct Joined {
    /// As in ACCEPT.
    pub offer: DirectOffer,
    /// As in ACCEPT.
    pub sid: SessionId,
    /// As agreed.
    pub idle: Duration,
    /// How many direct connections there may be: what was agreed, less the one over ssh.
    pub limit: u16,
    /// Whether the user typed that number.
    pub typed: bool,
}

impl DirectPath {
    /// The way to `hostname`, the name or address that ssh connects to (`ssh -G`); `None` where it
    /// is not wanted, or where ssh goes through a proxy, so that its address may be another host's
    /// here.
    ///
    /// # Errors
    /// No key can be made.
    pub fn new(
        wanted: Wanted,
        hostname: &str,
        has_proxy: bool,
        family: Family,
    ) -> io::Result<Option<DirectPath>> {
        let is_open = match wanted {
            Wanted::Never => false,
            Wanted::IfPossible => !has_proxy,
            Wanted::Must => true,
        };
        if !is_open {
            return Ok(None);
        }
        Ok(Some(DirectPath { identity: Identity::fresh()?, host: hostname.to_owned(), family }))
    }

    /// What HELLO tells.
    pub fn fingerprint(&self) -> Fingerprint {
        self.identity.fingerprint()
    }

    /// Opens the first direct connection, and says how more are opened. It blocks, for a second at
    /// most, all addresses together.
    ///
    /// # Errors
    /// Nobody can be reached there, or it is somebody else.
    pub fn reach(&self, joined: &Joined) -> io::Result<(Duplex, Dialer)> {
        self.reach_until(joined, Instant::now() + BESIDE)
    }

    fn reach_until(&self, joined: &Joined, end: Instant) -> io::Result<(Duplex, Dialer)> {
        let config = client_config(&self.identity, ServerPin::Exactly(joined.offer.fingerprint))?;
        let addresses = address::resolve(&self.host, joined.offer.port, self.family, end)?;
        let shared = Arc::clone(&config);
        // Another host may answer at one of the addresses, so the race is for the right key; only
        // the winner joins.
        let (server, (channel, rtt)) = address::race(addresses, end, move |server, end| {
            let (stream, rtt) = address::connect(server, end)?;
            Ok((Channel::open(stream, Arc::clone(&shared), end)?, rtt))
        })?;
        let dialer = Dialer { server, config, sid: joined.sid, idle: joined.idle, rtt };
        Ok((dialer.join(channel)?, dialer))
    }

    /// Tries it while the session runs over ssh already: the first connection, others at the same
    /// time if the `guess` at the round trip calls for them, and how more are opened.
    ///
    /// # Errors
    /// As [`DirectPath::reach`].
    pub fn prepare(self: &Arc<Self>, joined: &Joined, guess: Duration) -> io::Result<Prepared> {
        let early = self.reach_more(joined, guess);
        let (first, dialer) = self.reach(joined)?;
        Ok(Prepared { early: Some(early), ..prepared(Some(first), dialer, joined) })
    }

    /// One after the other they would take twice as many round trips.
    fn reach_more(self: &Arc<Self>, joined: &Joined, guess: Duration) -> Early {
        let ramp = Ramp::new(PathKind::Direct, guess, joined.limit, joined.typed);
        let count = ramp.initial().saturating_sub(1);
        let (give, come) = mpsc::channel();
        for _ in 0..count {
            let (path, joined, give) = (Arc::clone(self), *joined, give.clone());
            grow::spawn("fcp-dial", move || {
                // The first one tells why it cannot be; with the session over, nobody listens.
                if let Ok((duplex, _)) = path.reach(&joined) {
                    let _ = give.send(duplex);
                }
            });
        }
        Early { count, come }
    }

    /// For `--via direct`: the first connection before the session begins. [`grow_from`] opens the
    /// others.
    ///
    /// # Errors
    /// In words: what is in the way.
    pub fn reach_or_fail(&self, joined: &Joined) -> Result<(Duplex, Dialer), String> {
        self.reach_until(joined, Instant::now() + MUST).map_err(|error| {
            let (port, why) = (joined.offer.port, reason(&error));
            format!(
                "its data port {port} cannot be reached ({why}), as where a firewall lets only ssh \
                 through; --via stdio sends everything through ssh"
            )
        })
    }
}

/// Opens further connections beside the `existing` first one, which the session has already.
pub fn grow_from(dialer: Dialer, joined: &Joined, session: Session) -> Growth {
    let prepared = prepared(None, dialer, joined);
    Growth::start(session, move || Ok(prepared))
}

fn prepared(first: Option<Duplex>, dialer: Dialer, joined: &Joined) -> Prepared {
    let ramp = Ramp::new(PathKind::Direct, dialer.rtt(), joined.limit, joined.typed);
    Prepared { ramp, first, early: None, dial: Arc::new(move || dialer.dial()) }
}

/// How long the connection over ssh leaves most content to direct ones that may come
/// ([`Duplex::spare`]), on a path with this round trip: TCP and TLS take two.
pub fn hold(rtt: Duration) -> Duration {
    (rtt * 3).clamp(Duration::from_millis(30), BESIDE)
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no answer".to_owned(),
        io::ErrorKind::InvalidData => format!("somebody else answers there: {error}"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc::Receiver;

    use fcp_common::engine::Inlet;
    use fcp_common::tls::ClientPin;
    use fcp_proto::Flag;

    use super::super::testing::{SID, black_hole, serve};
    use super::*;

    type Heard = Receiver<Option<(Flag, Vec<u8>)>>;

    fn path(wanted: Wanted) -> DirectPath {
        DirectPath::new(wanted, "127.0.0.1", false, Family::Any).unwrap().unwrap()
    }

    fn joined(port: u16, fingerprint: Fingerprint) -> Joined {
        let offer = DirectOffer { port, fingerprint };
        Joined { offer, sid: SID, idle: Duration::from_secs(60), limit: 16, typed: false }
    }

    /// A data port for the client of `path`.
    fn data_port(path: &DirectPath) -> (Joined, Heard) {
        let identity = Identity::fresh().unwrap();
        let pin = ClientPin::Exactly(path.fingerprint());
        let (at, heard) = serve(&identity, pin, |client| client.frame());
        (joined(at.port(), identity.fingerprint()), heard)
    }

    fn attach() -> Option<(Flag, Vec<u8>)> {
        Some((Flag::ATTACH, SID.0.to_vec()))
    }

    fn soon(heard: &Heard) -> Option<(Flag, Vec<u8>)> {
        heard.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    #[test]
    fn the_right_key_gets_attach_and_as_many_connections_as_wanted() {
        let path = path(Wanted::IfPossible);
        let (joined, heard) = data_port(&path);
        let (_first, dialer) = path.reach(&joined).unwrap();
        assert_eq!(soon(&heard), attach());
        let _more = [dialer.dial().unwrap(), dialer.dial().unwrap()];
        assert_eq!([soon(&heard), soon(&heard)], [attach(), attach()]);
    }

    #[test]
    fn another_key_gets_nothing() {
        let path = path(Wanted::Must);
        let (mut joined, heard) = data_port(&path);
        joined.offer.fingerprint = Fingerprint([1; 32]);
        let error = path.reach(&joined).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let error = path.reach_or_fail(&joined).err().unwrap();
        assert!(
            error.contains("somebody else answers") && error.contains("--via stdio"),
            "{error}"
        );
        assert!(heard.recv_timeout(Duration::from_millis(100)).is_err());
    }

    #[test]
    fn ports_that_nobody_reaches_cost_a_second_at_most() {
        let path = path(Wanted::IfPossible);
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let (hole, _queued, _listener) = black_hole();
        for (at, kind) in [
            (closed, io::ErrorKind::ConnectionRefused),
            (silent.local_addr().unwrap(), io::ErrorKind::TimedOut),
            (hole, io::ErrorKind::TimedOut),
        ] {
            let started = Instant::now();
            let error = path.reach(&joined(at.port(), Fingerprint([1; 32]))).err().unwrap();
            assert_eq!(error.kind(), kind);
            let limit = if at == closed { 500 } else { 1500 };
            assert!(started.elapsed() < Duration::from_millis(limit), "{:?}", started.elapsed());
        }
    }

    #[test]
    fn a_port_that_must_be_reached_says_what_is_in_the_way() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let joined = joined(closed.port(), Fingerprint([1; 32]));
        let error = path(Wanted::Must).reach_or_fail(&joined).err().unwrap();
        assert!(error.contains(&closed.port().to_string()), "{error}");
        assert!(error.contains("firewall") && error.contains("--via stdio"), "{error}");
    }

    #[test]
    fn who_is_asked_for_a_port_at_all() {
        let is_open = |wanted, has_proxy| {
            DirectPath::new(wanted, "h", has_proxy, Family::Any).unwrap().is_some()
        };
        assert!(!is_open(Wanted::Never, false));
        assert!(is_open(Wanted::IfPossible, false));
        assert!(!is_open(Wanted::IfPossible, true), "the address may be another host's");
        assert!(is_open(Wanted::Must, true));
    }

    #[test]
    fn beside_a_session_they_come_by_themselves() {
        let path = path(Wanted::IfPossible);
        let (mut joined, heard) = data_port(&path);
        (joined.limit, joined.typed) = (5, true);
        let inlet = Inlet::new();
        let session = Session { connections: inlet.connections(), counters: Arc::default() };
        let path = Arc::new(path);
        let growth = Growth::start(session.clone(), move || path.prepare(&joined, Duration::ZERO));
        (0..5).for_each(|_| assert_eq!(soon(&heard), attach()));
        drop(growth);

        let path = self::path(Wanted::Must);
        let (joined, heard) = data_port(&path);
        let (_first, dialer) = path.reach_or_fail(&joined).unwrap();
        let growth = grow_from(dialer, &joined, session);
        assert_eq!([soon(&heard), soon(&heard)], [attach(), attach()]);
        assert!(heard.recv_timeout(Duration::from_secs(1)).is_err(), "two do on a short path");
        drop(growth);
    }

    #[test]
    fn ssh_waits_as_long_as_it_may_be_worth() {
        for (rtt, expected) in [(0, 30), (10, 30), (50, 150), (5000, 1000)] {
            assert_eq!(hold(Duration::from_millis(rtt)), Duration::from_millis(expected));
        }
    }
}
