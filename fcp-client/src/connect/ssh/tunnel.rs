//! `--via tunnel`: through ssh to the port of an fcpd that runs on the host.
//!
//! Whoever listens on that port need not be the user's fcpd. So the token that only the user can
//! read is fetched by the same login, and both ends prove that they have it before any path is sent.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fcp_common::auth::Token;
use fcp_proto::packet::Reply;
use fcp_proto::version::{Hello, IDLE_SECS, ReplyExtra};

use super::child::{Child, Errors};
use super::command::{Login, Run};
use super::further::{Further, Way};
use super::pipes::Pipes;
use super::preamble::read_until;
use super::route::Route;
use super::stdio::{SshSession, duplex};
use super::{Place, SshOptions};
use crate::connect::PATIENCE;
use crate::connect::greeting::{Credential, GreetError, Offer, greet};
use crate::connect::plain::{self, Purpose};
use crate::error::CliError;

/// Where fcpd keeps its own token, from the home directory.
const TOKEN_FILE: &str = ".config/fcp/token";
/// Comes back behind the token. In no token, and nothing that a shell would print.
const MARK: &[u8] = b"fcp: end of the token\n";
/// How long a login that has ended its output may take to end.
const ENDING: Duration = Duration::from_secs(5);

/// What a tunnel leads to.
#[derive(Clone, Debug)]
pub struct Tunnel<'a> {
    /// fcpd's port on the host's loopback.
    pub port: u16,
    /// For version 1 servers.
    pub purpose: &'a Purpose,
    /// What is offered: versions, features and limits.
    pub hello: &'a Hello,
    /// `--protocol`: with 1 the server is believed without a proof, as it cannot give one.
    pub protocol: Option<u16>,
}

/// Logs in at `place` and opens a session with the fcpd that runs there.
///
/// # Errors
/// [`CliError::Connect`], with what to do about it. No path was sent then, but to a version 1
/// server.
pub fn open(
    place: &Place,
    options: &SshOptions,
    tunnel: &Tunnel<'_>,
) -> Result<SshSession, CliError> {
    let began = Instant::now();
    let route = Arc::new(Route::new(place, options));
    if !options.is_openssh() {
        return Err(route.failed("a tunnel needs OpenSSH's ssh; leave -e out or --via tunnel"));
    }
    if tunnel.protocol == Some(1) {
        return open_version1(&route, tunnel, began);
    }
    // It stays open, so that the tunnel is a channel of the same login.
    let reader = route.first(Run::Command(&format!("cat {TOKEN_FILE} -")))?;
    let (token, keeper, pipes) = read_token(&route, reader)?;
    let login = began.elapsed();
    let (mut stream, first) = connect(&route, tunnel.port)?;
    let credential = Credential { name: "", token: &token, binding: [0; 32] };
    let offer = Offer { hello: tunnel.hello, credential: Some(credential), direct: None };
    let welcome = greet(&mut stream, &offer)
        .map_err(|error| route.failed(explain(&error, &first, tunnel.port)))?;
    let reply = Reply { sid: welcome.sid, agreed: Some(welcome.agreed), extra: welcome.extra };
    if route.is_shared_by_user() {
        keeper.let_go();
    }
    let mut session = assemble(&route, tunnel, reply, Vec::new(), (stream, first), login)?;
    session.kept = Some(pipes);
    Ok(session)
}

/// A session with a server that can prove nothing.
fn open_version1(
    route: &Arc<Route>,
    tunnel: &Tunnel<'_>,
    began: Instant,
) -> Result<SshSession, CliError> {
    let (first, mut stream) = route.first(Run::Forward(tunnel.port))?;
    // No deadline: somebody may be typing a password.
    let opened = plain::greet(&mut stream, tunnel.purpose, tunnel.hello, Some(1));
    let opened = opened.map_err(|reason| {
        let status = first.wait_until(Instant::now() + Duration::from_millis(100));
        route.failed(refused(status.and_then(|s| s.code()), tunnel.port).unwrap_or(reason))
    })?;
    assemble(route, tunnel, opened.reply, opened.early, (stream, first), began.elapsed())
}

fn assemble(
    route: &Arc<Route>,
    tunnel: &Tunnel<'_>,
    reply: Reply,
    early: Vec<u8>,
    (stream, first): (Pipes, Arc<Child>),
    login: Duration,
) -> Result<SshSession, CliError> {
    let Reply { sid, agreed, extra } = reply;
    let idle = Duration::from_secs(agreed.as_ref().map_or(IDLE_SECS, |a| a.idle_secs).into());
    let conn = duplex(stream, idle).map_err(|error| route.failed(error))?;
    let conn = if early.is_empty() { conn } else { conn.after(early) };
    if route.is_shared_by_user() {
        first.let_go();
    }
    let way = Way::Tunnel(tunnel.port);
    let further = Arc::new(Further::new(Arc::clone(route), way, sid, idle));
    Ok(SshSession {
        agreed,
        sid,
        extra: ReplyExtra { direct: None, ..extra },
        conns: vec![conn],
        further,
        login,
        kept: None,
        first,
        route: Arc::clone(route),
    })
}

/// Reads the token. The login stays, as the host's `cat` waits for the end of its input.
fn read_token(
    route: &Route,
    (child, mut pipes): (Arc<Child>, Pipes),
) -> Result<(Token, Arc<Child>, Pipes), CliError> {
    // Behind the file `cat` copies what it reads, so this comes back when the file is over.
    let _ = pipes.write_all(MARK);
    let text = read_until(&mut pipes, MARK).map_err(|found| match &found.error {
        Some(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let status = child.wait_until(Instant::now() + ENDING);
            route.login_failed("cat", status, &found.noise)
        }
        Some(error) => route.failed(error),
        None => route.failed("it printed too much before the token of its fcpd"),
    })?;
    let missing = || {
        route.failed(format!(
            "there is no token in ~/{TOKEN_FILE}: start fcpd -d there, which writes one; for an fcpd \
             too old for that, --protocol 1 does without"
        ))
    };
    Ok((find_token(&text).ok_or_else(missing)?, child, pipes))
}

/// The first line that is a token.
fn find_token(text: &[u8]) -> Option<Token> {
    text.split(|b| *b == b'\n').find_map(|line| std::str::from_utf8(line).ok()?.parse().ok())
}

/// Opens a channel to fcpd: of our master, else as ssh_config has it.
fn connect(route: &Route, port: u16) -> Result<(Pipes, Arc<Child>), CliError> {
    let login = route.master().map_or(Login::First(None), Login::Channel);
    let started = route.start(login, Run::Forward(port), Errors::Shown);
    let (child, mut pipes) = started.map_err(|error| route.failed(error))?;
    if route.master().is_some() {
        pipes.set_end(Some(Instant::now() + PATIENCE));
    }
    Ok((pipes, child))
}

fn explain(error: &GreetError, child: &Child, port: u16) -> String {
    let status = child.wait_until(Instant::now() + Duration::from_millis(100));
    let ssh = refused(status.and_then(|s| s.code()), port);
    ssh.unwrap_or_else(|| match error {
        GreetError::Refused(_) => format!(
            "the fcpd on port {port} there does not know the token in ~/{TOKEN_FILE} of your login; \
             it runs with another home or config directory, or is not yours"
        ),
        _ => error.to_string(),
    })
}

/// What it means that ssh itself ended.
fn refused(code: Option<i32>, port: u16) -> Option<String> {
    (code == Some(255)).then(|| {
        format!(
            "ssh could not reach port {port} there; what it said is above. Start fcpd -d on the \
             host, or leave --via tunnel out"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_found_among_what_a_shell_prints() {
        let token = Token::from_random([7; 32]);
        let text = format!("Welcome!\r\n\u{1b}[0m\nfcp-token-07\n{}\r\nbye", token.to_text());
        assert_eq!(find_token(text.as_bytes()), Some(token));
        assert_eq!(find_token(b"cat: .config/fcp/token: No such file\n\xff\n"), None);
    }
}
