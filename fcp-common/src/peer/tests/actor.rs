//! A process under another uid that does with sockets what it is told, a line at a time.
//!
//! It is this test binary again, running [`actor_process`] only; a copy of it, as another uid may
//! not be able to reach the build directory.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;

const ROLE: &str = "FCP_PEER_ACTOR";
const MARK: &str = "actor:";

/// Says so and gives false when the tests cannot take on other uids.
pub(super) fn can_become_others(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("{test}: skipped, needs root to act as other users");
    }
    root
}

pub(super) struct Actor {
    child: Child,
    orders: ChildStdin,
    replies: BufReader<ChildStdout>,
    _program: TempDir,
}

impl Actor {
    pub(super) fn with_uid(uid: u32) -> Actor {
        // A fork while another test's copy is open for writing makes that copy "text file busy".
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let program = program();
        let mut child = Command::new(program.path().join("actor"))
            .args(["--exact", "peer::tests::actor::actor_process", "--nocapture"])
            .env(ROLE, "1")
            .current_dir("/")
            .uid(uid)
            .gid(uid)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        drop(turn);
        let orders = child.stdin.take().unwrap();
        let replies = BufReader::new(child.stdout.take().unwrap());
        Actor { child, orders, replies, _program: program }
    }

    /// Gives an order and waits for its reply.
    pub(super) fn ask(&mut self, order: &str) -> String {
        self.start(order);
        self.reply()
    }

    pub(super) fn start(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    pub(super) fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.replies.read_line(&mut line).unwrap() > 0, "the actor died");
            // The test harness of the child may print before it on the same line.
            if let Some((_, reply)) = line.split_once(MARK) {
                return reply.trim().to_owned();
            }
        }
    }

    /// Connects from `from` (port 0: any) to `to`; gives the address it got.
    pub(super) fn connect(&mut self, from: SocketAddr, to: SocketAddr) -> SocketAddr {
        let reply = self.ask(&format!("connect {from} {to}"));
        reply.parse().unwrap_or_else(|_| panic!("connect: {reply}"))
    }

    /// Listens on `at`; gives the address it got.
    pub(super) fn listen(&mut self, at: SocketAddr) -> SocketAddr {
        let reply = self.ask(&format!("listen {at}"));
        reply.parse().unwrap_or_else(|_| panic!("listen: {reply}"))
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let copy = dir.path().join("actor");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).unwrap();
    dir
}

#[test]
fn actor_process() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let mut props = Props::default();
    for line in std::io::stdin().lines() {
        let reply = props.obey(&line.unwrap()).unwrap_or_else(|e| format!("error {e}"));
        println!("{MARK}{reply}");
        std::io::stdout().flush().unwrap();
    }
    std::process::exit(0);
}

#[derive(Default)]
struct Props {
    stream: Option<TcpStream>,
    listener: Option<TcpListener>,
}

impl Props {
    fn obey(&mut self, line: &str) -> std::io::Result<String> {
        let words: Vec<&str> = line.split(' ').collect();
        match *words.as_slice() {
            ["connect", from, to] => {
                let stream = connect(from.parse().unwrap(), to.parse().unwrap())?;
                let addr = stream.local_addr()?;
                self.stream = Some(stream);
                return Ok(addr.to_string());
            }
            ["listen", at] => {
                let listener = TcpListener::bind(at)?;
                let addr = listener.local_addr()?;
                self.listener = Some(listener);
                return Ok(addr.to_string());
            }
            ["accept"] => self.stream = Some(self.listener.as_ref().unwrap().accept()?.0),
            ["unlisten"] => self.listener = None,
            ["send", text] => self.stream.as_mut().unwrap().write_all(text.as_bytes())?,
            ["shutdown"] => self.stream.as_ref().unwrap().shutdown(std::net::Shutdown::Write)?,
            ["close"] => self.stream = None,
            ["reset"] => reset(self.stream.take().unwrap())?,
            ["hammer", from, to, text, until] => {
                hammer(from.parse().unwrap(), to.parse().unwrap(), text, until);
            }
            _ => panic!("unknown order {line:?}"),
        }
        Ok("ok".to_owned())
    }
}

fn connect(from: SocketAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(from), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(from))?;
    socket.connect_timeout(&SockAddr::from(to), Duration::from_secs(5))?;
    Ok(socket.into())
}

fn reset(stream: TcpStream) -> std::io::Result<()> {
    Socket::from(stream).set_linger(Some(Duration::ZERO))
}

/// Connects, sends `text`, waits a little (too short for a look-up, or long enough) and resets, over
/// and over, until the file `until` is there.
fn hammer(from: SocketAddr, to: SocketAddr, text: &str, until: &str) {
    let mut holds =
        [0, 0, 20, 50, 100, 300, 1_000, 30_000].map(Duration::from_micros).into_iter().cycle();
    while !std::path::Path::new(until).exists() {
        let socket = Socket::new(Domain::for_address(from), Type::STREAM, None).unwrap();
        let _ = socket.set_reuse_address(true);
        let _ = socket.set_linger(Some(Duration::ZERO));
        let bound = socket.bind(&SockAddr::from(from));
        let timeout = Duration::from_millis(20);
        if bound.and_then(|()| socket.connect_timeout(&SockAddr::from(to), timeout)).is_ok() {
            let mut stream = TcpStream::from(socket);
            let _ = stream.write_all(text.as_bytes());
            let start = Instant::now();
            let hold = holds.next().unwrap_or_default();
            while start.elapsed() < hold {
                std::thread::yield_now();
            }
        }
    }
}
