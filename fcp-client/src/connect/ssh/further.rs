//! More connections of a session that is running, by logins that ask nobody.
//!
//! Each is a login of its own where keys allow that, as a connection brings its own window and its
//! own processor core. Where they do not, it is a channel of our master, whose login somebody may
//! have typed a password for; where the user has a ControlPath, ssh decides. A refused one is no
//! error: the session is slower, not wrong.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fcp_common::engine::Duplex;
use fcp_proto::SessionId;
use fcp_proto::packet::Opening;

use super::child::Errors;
use super::command::{Login, Run};
use super::pipes::Pipes;
use super::preamble::skip_noise;
use super::route::Route;
use super::stdio::duplex;

/// Logins under way at a time: sshd drops some of those beyond 10 (MaxStartups), ours and others'.
const AT_ONCE: usize = 2;
/// Further channels of one connection: sshd allows 10 sessions (MaxSessions), and a master complains
/// to the user about each that is refused.
const MAX_CHANNELS: usize = 9;
/// How long a login that nobody is asked about may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a further login runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A command that hands its streams to the session's fcpd.
    Attach(String),
    /// The port of a running fcpd.
    Tunnel(u16),
}

/// Opens further connections.
#[derive(Debug)]
pub struct Further {
    route: Arc<Route>,
    way: Way,
    sid: SessionId,
    idle: Duration,
    /// A login of its own was refused once.
    channels_only: AtomicBool,
    /// Channels that were asked for.
    channels: AtomicUsize,
}

impl Further {
    pub(super) fn new(route: Arc<Route>, way: Way, sid: SessionId, idle: Duration) -> Further {
        // A tunnel cannot tell a refused login from a slow one, so it takes what is sure.
        let sure = matches!(way, Way::Tunnel(_)) && route.master().is_some();
        let (channels_only, channels) = (AtomicBool::new(sure), AtomicUsize::new(0));
        Further { route, way, sid, idle, channels_only, channels }
    }

    /// Opens one connection. Blocks for as long as a login takes.
    ///
    /// # Errors
    /// It was refused; further ones will be, too.
    pub fn open(&self) -> io::Result<Duplex> {
        if !self.route.options.is_openssh() {
            return Err(io::Error::other("only OpenSSH can be told to ask nobody"));
        }
        let Some(master) = self.route.master() else {
            // Perhaps a channel of the user's master.
            let shared = self.route.is_shared_by_user();
            return if shared { self.channel(Login::Quiet) } else { self.attach(Login::Quiet) };
        };
        if self.channels_only.load(Ordering::Relaxed) {
            return self.channel(Login::Channel(master));
        }
        self.attach(Login::Quiet).or_else(|error| {
            tracing::info!("no further login ({error}), but perhaps a channel of the first");
            self.channels_only.store(true, Ordering::Relaxed);
            self.channel(Login::Channel(master))
        })
    }

    /// Opens up to `count` connections, two at a time, and gives each to the session as it comes.
    /// Stops at the first that is refused; answers how many there are.
    pub fn open_many(&self, count: usize, give: impl Fn(Duplex) + Sync) -> usize {
        let (begun, refused) = (AtomicUsize::new(0), AtomicBool::new(false));
        let opened = AtomicUsize::new(0);
        let work = || {
            while !refused.load(Ordering::Relaxed) && begun.fetch_add(1, Ordering::Relaxed) < count
            {
                match self.open() {
                    Ok(duplex) => {
                        opened.fetch_add(1, Ordering::Relaxed);
                        give(duplex);
                    }
                    Err(error) => {
                        refused.store(true, Ordering::Relaxed);
                        tracing::info!("no further connection: {error}");
                    }
                }
            }
        };
        std::thread::scope(|scope| (0..AT_ONCE.min(count)).for_each(|_| drop(scope.spawn(work))));
        opened.into_inner()
    }

    /// Attaches by a login that shares a connection with others.
    fn channel(&self, login: Login<'_>) -> io::Result<Duplex> {
        if self.channels.fetch_add(1, Ordering::Relaxed) >= MAX_CHANNELS {
            return Err(io::Error::other("as many channels as sshd allows"));
        }
        self.attach(login)
    }

    fn attach(&self, login: Login<'_>) -> io::Result<Duplex> {
        let run = match &self.way {
            Way::Attach(command) => Run::Command(command),
            Way::Tunnel(port) => Run::Forward(*port),
        };
        let (child, mut pipes) = self.route.start(login, run, Errors::Nowhere)?;
        let ready = self.greet(&mut pipes).and_then(|()| duplex(pipes, self.idle));
        // What did not come about is not waited for, wherever it hangs.
        ready.inspect_err(|_| child.end())
    }

    fn greet(&self, pipes: &mut Pipes) -> io::Result<()> {
        pipes.set_end(Some(Instant::now() + PATIENCE));
        let mut out = Vec::new();
        let fits = Opening::Attach(self.sid).encode(&mut out);
        fits.ok_or_else(|| io::Error::other("ATTACH does not fit a frame"))?;
        pipes.write_all(&out)?;
        if matches!(self.way, Way::Tunnel(_)) {
            return Ok(());
        }
        let refused = || io::Error::other("the login or fcpd refused");
        skip_noise(pipes).map_err(|found| found.error.unwrap_or_else(refused))
    }
}
