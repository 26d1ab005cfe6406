//! Which way leads to a server, and the session that comes of it.

use std::sync::Arc;
use std::time::Duration;

use fcp_common::engine::{Counters, Duplex, Inlet, SessionError};
use fcp_common::transfer::Help;
use fcp_proto::Fingerprint;
use fcp_proto::version::{Agreed, Hello};

use super::address;
use super::direct::{self, DirectPath, Joined, NOT_OFFERED, Wanted};
use super::grow::{self, Growth, Prepared};
use super::known_servers::KnownServers;
use super::plain::Purpose;
use super::ramp::{self, PathKind, Ramp};
use super::ssh::{self, HostFacts, Place, SshOptions, SshSession, tunnel};
use super::tls;
use super::{PATIENCE, loopback};
use crate::cli::{Direct, Family, Via};
use crate::config::{Resolved, Source};
use crate::error::CliError;
use crate::target::{self, Server};
use crate::ui;

/// Connections to a server on this machine. One is bound by one core at each end; measured with
/// `side_by_side`, more than two gain nothing on loopback.
const ON_LOOPBACK: u16 = 2;
/// Connections that a long path may come to, as its rate grows with them.
const ON_A_PATH: u16 = 16;
/// Round trips of a login: TCP, versions, keys, the user's key, the channel, the command. Only a
/// guess at the round trip comes of it, where nothing better is known.
const LOGIN_TRIPS: u32 = 10;
/// fcpd's port at the far end of a tunnel.
const TUNNEL_PORT: u16 = target::DEFAULT_PORT;

/// How a server is to be reached.
#[derive(Clone, Copy, Debug)]
pub struct Reach<'a> {
    /// What the user and the config say.
    pub config: &'a Resolved,
    /// How many times `-v`.
    pub verbose: u8,
    /// What a relay must agree on; the connections in it do not count.
    pub terms: Option<&'a Hello>,
}

/// An opened session.
pub struct Session {
    /// What was agreed; `None` with a version 1 server.
    pub agreed: Option<Agreed>,
    conns: Vec<Duplex>,
    more: Option<More>,
    ssh: Option<SshSession>,
}

/// Starts what opens further connections.
type More = Box<dyn FnOnce(grow::Session) -> Growth + Send>;

/// What goes on beside a session; keep it as long as the session runs.
#[must_use = "dropping it ends the session's ssh"]
pub struct Running {
    _growth: Option<Growth>,
    ssh: Option<SshSession>,
}

/// Opens a session with `server`.
///
/// # Errors
/// [`CliError::Connect`], with what is in the way and what to do about it; no path was sent then,
/// but to a version 1 server.
pub fn open(server: &Server, purpose: &Purpose, reach: Reach<'_>) -> Result<Session, CliError> {
    let mut session = reach.open(server, purpose)?;
    if reach.terms.is_some() {
        // Connections of a relay come in pairs, so that none can join later.
        session.more = None;
    }
    Ok(session)
}

impl Session {
    /// Takes the connections, for the engine.
    pub fn take_conns(&mut self) -> Vec<Duplex> {
        std::mem::take(&mut self.conns)
    }

    /// Starts what goes on beside the session that `inlet` leads into.
    pub fn begin(self, inlet: &Inlet, counters: &Arc<Counters>) -> Running {
        if let Some(ssh) = &self.ssh {
            ssh.cancel_on_exit(inlet.cancel());
        }
        let session =
            grow::Session { connections: inlet.connections(), counters: Arc::clone(counters) };
        Running { _growth: self.more.map(|more| more(session)), ssh: self.ssh }
    }
}

impl Running {
    /// The error of the session, told by its cause where that is ssh.
    pub fn explain(&self, error: SessionError) -> SessionError {
        let ended = self.ssh.as_ref().and_then(SshSession::ended);
        match (error, ended) {
            (SessionError::Lost(_) | SessionError::Cancelled, Some(status))
                if !crate::interrupt::was_interrupted() =>
            {
                SessionError::Lost(format!("ssh ended ({status})"))
            }
            (error, _) => error,
        }
    }
}

impl Reach<'_> {
    fn open(&self, server: &Server, purpose: &Purpose) -> Result<Session, CliError> {
        match server {
            Server::Fcp { host, port } => match target::loopback(host, *port) {
                Some(address) if !self.has_token() => {
                    let protocol = self.config.protocol.value;
                    let hello = self.hello(self.connections().unwrap_or(ON_LOOPBACK));
                    let (agreed, conns) = loopback::open(address, purpose, &hello, protocol)?;
                    Ok(Session { agreed, conns, more: None, ssh: None })
                }
                _ => self.tls(host, *port),
            },
            Server::Ssh { user, host, port } => {
                let place = Place { user: user.clone(), host: host.clone(), port: *port };
                self.ssh(&place, purpose)
            }
        }
    }

    /// Whether somebody named a token for just this server, which is for TLS only; one for all
    /// servers says nothing about those of this machine.
    fn has_token(&self) -> bool {
        match &self.config.token.source {
            Source::Flag(_) | Source::Env(_) => self.config.token.value.is_some(),
            Source::File { section, .. } => !section.contains("defaults"),
            Source::Default => false,
        }
    }

    /// The connections that somebody asked for.
    fn connections(&self) -> Option<u16> {
        self.config.connections.value
    }

    fn hello(&self, connections: u16) -> Hello {
        let ours = Hello::ours(connections);
        match self.terms {
            Some(terms) => Hello { connections: ours.connections, ..terms.clone() },
            None => ours,
        }
    }

    fn tls(&self, host: &str, port: u16) -> Result<Session, CliError> {
        let token = self.config.token.value.as_ref().map(|source| source.token());
        let token = token.transpose().map_err(CliError::Usage)?;
        let known_servers = KnownServers::of_user();
        let limit = self.connections().unwrap_or(ON_A_PATH);
        let options = tls::TlsOptions {
            hello: &self.hello(limit),
            token: token.as_ref(),
            known_servers: known_servers.as_ref(),
            family: family(self.config.family),
        };
        let session = tls::open(host, port, &options)?;
        self.tell(format_args!("{host}: TLS to port {port}, its key and the token proved"));
        let (dialer, typed) = (session.dialer, self.connections().is_some());
        let limit = limit.min(session.agreed.connections);
        let ramp = Ramp::new(PathKind::Direct, dialer.rtt(), limit, typed);
        let dial: grow::Dial = Arc::new(move || dialer.dial());
        let more: More = Box::new(|to| {
            Growth::start(to, move || Ok(Prepared { ramp, first: None, early: None, dial }))
        });
        let (agreed, conns) = (Some(session.agreed), vec![session.first]);
        Ok(Session { agreed, conns, more: Some(more), ssh: None })
    }

    fn ssh(&self, place: &Place, purpose: &Purpose) -> Result<Session, CliError> {
        let failed = |reason: &str| CliError::Connect {
            server: place.host.clone(),
            reason: reason.to_owned(),
        };
        match self.config.via.value {
            // Whoever copies goes another way before.
            Via::Sftp => Err(failed("no session goes over SFTP")),
            Via::Tunnel => self.tunnel(place, purpose),
            _ if self.config.protocol.value == Some(1) => {
                Err(failed("an fcpd that ssh starts does not speak protocol 1; use --via tunnel"))
            }
            Via::Direct if self.config.direct.value == Direct::Never => {
                Err(failed("--via direct, and direct = \"never\": one of them must give way"))
            }
            Via::Direct => self.stdio(place, Wanted::Must),
            Via::Auto if self.may_go_past_ssh() => self.stdio(place, Wanted::IfPossible),
            Via::Auto | Via::Stdio => self.stdio(place, Wanted::Never),
        }
    }

    /// Where ssh is to compress, content must go through it.
    fn may_go_past_ssh(&self) -> bool {
        let c = self.config;
        c.direct.value == Direct::Auto && self.terms.is_none() && !c.compress
    }

    fn tunnel(&self, place: &Place, purpose: &Purpose) -> Result<Session, CliError> {
        let limit = self.connections().unwrap_or(ON_A_PATH);
        let hello = self.hello(limit);
        let tunnel = tunnel::Tunnel {
            port: TUNNEL_PORT,
            purpose,
            hello: &hello,
            protocol: self.config.protocol.value,
        };
        let mut ssh = tunnel::open(place, &ssh_options(self.config, self.verbose), &tunnel)?;
        self.tell(format_args!(
            "{}: through ssh to the fcpd that runs there ({})",
            place.host,
            if ssh.agreed.is_some() { "it proved its token" } else { "protocol 1, no proof" }
        ));
        let (agreed, conns) = (ssh.agreed.clone(), std::mem::take(&mut ssh.conns));
        // The port may be somebody else's by the time of a further connection, and only the first
        // one was proved; who insists on version 1 goes without proofs anyway.
        let more = agreed.is_none().then(|| self.further(&ssh, place, limit));
        Ok(Session { agreed, conns, more, ssh: Some(ssh) })
    }

    fn stdio(&self, place: &Place, wanted: Wanted) -> Result<Session, CliError> {
        let limit = self.connections().unwrap_or(ON_A_PATH);
        let mut path = None;
        let ask = |facts: Option<&HostFacts>| -> Option<Fingerprint> {
            path = self.direct_path(wanted, place, facts);
            path.as_ref().map(DirectPath::fingerprint)
        };
        // One more than carry content: the one that is the session's beginning leaves that to them.
        let hello = self.hello(limit.saturating_add(1));
        let mut ssh =
            ssh::stdio::open(place, &ssh_options(self.config, self.verbose), &hello, ask)?;
        let Some(agreed) = ssh.agreed.clone() else { return Err(no_terms(place)) };
        let mut conns = std::mem::take(&mut ssh.conns);
        let joined = ssh.extra.direct.map(|offer| Joined {
            offer,
            sid: ssh.sid,
            idle: Duration::from_secs(agreed.idle_secs.into()),
            limit: agreed.connections.saturating_sub(1).min(limit).max(1),
            typed: self.connections().is_some(),
        });
        let more = match (path, joined) {
            (Some(path), Some(joined)) if wanted == Wanted::Must => {
                let failed = |reason| CliError::Connect { server: place.host.clone(), reason };
                let (first, dialer) = path.reach_or_fail(&joined).map_err(failed)?;
                self.tell(format_args!("{}: ssh, with content past it over TLS", place.host));
                // It promises that no content goes through ssh.
                conns = conns.into_iter().map(|c| c.spare(PATIENCE, Help::Never)).collect();
                conns.push(first);
                Box::new(move |to| direct::grow_from(dialer, &joined, to)) as More
            }
            (Some(path), Some(joined)) => {
                let rtt = self.round_trip(&ssh, place);
                let (hold, help) = (direct::hold(rtt), ramp::help(rtt));
                conns = conns.into_iter().map(|c| c.spare(hold, help)).collect();
                self.past_ssh(&ssh, place, path, joined)
            }
            _ if wanted == Wanted::Must => {
                let reason = NOT_OFFERED.to_owned();
                return Err(CliError::Connect { server: place.host.clone(), reason });
            }
            (path, _) => {
                let why = self.why_not_direct(wanted, path.is_some(), &ssh);
                self.tell(format_args!("{}: everything through ssh, as {why}", place.host));
                self.further(&ssh, place, agreed.connections)
            }
        };
        Ok(Session { agreed: Some(agreed), conns, more: Some(more), ssh: Some(ssh) })
    }

    fn direct_path(
        &self,
        wanted: Wanted,
        place: &Place,
        facts: Option<&HostFacts>,
    ) -> Option<DirectPath> {
        // Without facts the program is not OpenSSH, and its host names are its own.
        let facts = facts?;
        let path =
            DirectPath::new(wanted, &facts.hostname, facts.has_proxy, family(self.config.family));
        path.unwrap_or_else(|error| {
            tracing::warn!("no direct connections to {}: {error}", place.host);
            None
        })
    }

    fn why_not_direct(&self, wanted: Wanted, asked: bool, ssh: &SshSession) -> &'static str {
        match wanted {
            _ if asked => "the host offers no data port",
            Wanted::Never if self.config.via.value == Via::Stdio => "--via stdio says",
            Wanted::Never if self.terms.is_some() => "it is relayed",
            Wanted::Never if self.config.compress => "ssh is to compress it",
            Wanted::Never => "direct = \"never\" says",
            _ if ssh.facts().is_some_and(|facts| facts.has_proxy) => "ssh goes through a proxy",
            _ => "ssh does not tell the host's address",
        }
    }

    /// Direct connections if the port can be reached, else further ones through ssh.
    fn past_ssh(&self, ssh: &SshSession, place: &Place, path: DirectPath, joined: Joined) -> More {
        let (host, verbose) = (place.host.clone(), self.verbose);
        let ramp = self.ssh_ramp(ssh, place, joined.limit);
        let further = Arc::clone(&ssh.further);
        let (path, guess) = (Arc::new(path), self.round_trip(ssh, place));
        Box::new(move |to| {
            Growth::start(to, move || match path.prepare(&joined, guess) {
                Ok(prepared) => {
                    ui::way(verbose, format_args!("{host}: content goes past ssh, over TLS"));
                    Ok(prepared)
                }
                Err(error) => {
                    let port = joined.offer.port;
                    let text = format_args!(
                        "{host}: everything goes through ssh, as port {port} cannot be reached: \
                         {error}"
                    );
                    ui::way(verbose, text);
                    let dial: grow::Dial = Arc::new(move || further.open());
                    Ok(Prepared { ramp, first: None, early: None, dial })
                }
            })
        })
    }

    /// Further connections through ssh.
    fn further(&self, ssh: &SshSession, place: &Place, agreed: u16) -> More {
        let ramp = self.ssh_ramp(ssh, place, agreed);
        let further = Arc::clone(&ssh.further);
        let dial: grow::Dial = Arc::new(move || further.open());
        Box::new(|to| {
            Growth::start(to, move || Ok(Prepared { ramp, first: None, early: None, dial }))
        })
    }

    fn ssh_ramp(&self, ssh: &SshSession, place: &Place, agreed: u16) -> Ramp {
        let limit = self.connections().unwrap_or(ON_A_PATH).min(agreed);
        let kind = PathKind::Ssh { free_logins: true };
        Ramp::new(kind, self.round_trip(ssh, place), limit, self.connections().is_some())
    }

    /// What is known of the round trip before anything is measured.
    fn round_trip(&self, ssh: &SshSession, place: &Place) -> Duration {
        let host = ssh.facts().map_or(place.host.as_str(), |facts| &facts.hostname);
        match target::loopback(host, 1) {
            Some(_) => Duration::ZERO,
            None => ssh.login / LOGIN_TRIPS,
        }
    }

    fn tell(&self, text: std::fmt::Arguments<'_>) {
        ui::way(self.verbose, text);
    }
}

/// What the user wants of ssh.
pub fn ssh_options(config: &Resolved, verbose: u8) -> SshOptions {
    let c = config;
    let program = std::iter::once(c.rsh.value.program.clone());
    SshOptions {
        program: program.chain(c.rsh.value.arguments.iter().cloned()).collect(),
        config_file: c.ssh_config.value.clone(),
        identities: c.identity.value.clone(),
        jump: c.jump.value.clone(),
        options: c.ssh_option.value.clone(),
        port: c.port.value,
        ipv4: c.family == Some(Family::Ipv4),
        ipv6: c.family == Some(Family::Ipv6),
        compress: c.compress,
        remote_fcpd: c.remote_fcpd.value.clone(),
        verbose,
    }
}

fn family(only: Option<Family>) -> address::Family {
    match only {
        Some(Family::Ipv4) => address::Family::V4,
        Some(Family::Ipv6) => address::Family::V6,
        None => address::Family::Any,
    }
}

fn no_terms(place: &Place) -> CliError {
    let reason = "it agreed on nothing".to_owned();
    CliError::Connect { server: place.host.clone(), reason }
}
