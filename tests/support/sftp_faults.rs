//! An SFTP server with faults: OpenSSH's own `sftp-server`, with a hand in what goes by.
//!
//! The program `sftp-faults` stands in sshd_config as the subsystem and reads [`Faults`]' folder,
//! so that a test can count requests, answer them falsely, cut the session or kill the client at
//! any of them, whichever connection it comes over.
//!
//! A plan is lines of `ACTION REQUEST [NTH]`: the request by its name, such as `rename` or
//! `fsync@openssh.com`, or `*`; the NTH of them (1 is the first) counted over all sessions, or each
//! one without it. Actions:
//! `kill` the client dies by SIGKILL before the server sees the request,
//! `cut` the session ends before, `cut-after` behind the server's work and before its answer,
//! `stall` nothing is answered from then on, `delay` it is, but 5 ms later,
//! `fail` the answer is "failure", `deny` it is "permission denied", and the server sees nothing,
//! `hide` the extension is not announced, and refused,
//! `touch` the file named in the folder's `touched` grows by a byte before the server sees it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::fs::FlockOperation;
use tempfile::TempDir;

use crate::process::kill9_any;

/// Where Debian, Fedora and macOS have it.
const SERVERS: [&str; 3] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
];
const STATUS: u8 = 101;
const EXTENDED: u8 = 200;
const VERSION: u8 = 2;
const FAILURE: u32 = 4;
const DENIED: u32 = 3;
const UNSUPPORTED: u32 = 8;
/// Far more than any client here asks for at once.
const MAX_PACKET: usize = 1 << 20;
const NAMES: [(u8, &str); 19] = [
    (1, "init"),
    (3, "open"),
    (4, "close"),
    (5, "read"),
    (6, "write"),
    (7, "lstat"),
    (8, "fstat"),
    (9, "setstat"),
    (10, "fsetstat"),
    (11, "opendir"),
    (12, "readdir"),
    (13, "remove"),
    (14, "mkdir"),
    (15, "rmdir"),
    (16, "realpath"),
    (17, "stat"),
    (18, "rename"),
    (19, "readlink"),
    (20, "symlink"),
];

/// The folder through which a test and its `sftp-faults` programs know of each other.
#[derive(Debug)]
pub struct Faults {
    dir: TempDir,
}

impl Default for Faults {
    fn default() -> Self {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("plan"), "").unwrap();
        Self { dir }
    }
}

impl Faults {
    /// What sshd_config says of the subsystem; `program` is `sftp-faults`.
    pub fn subsystem(&self, program: &str) -> String {
        format!("Subsystem sftp {program} {}", self.dir.path().display())
    }

    /// From now on this plan holds, with all counts at zero.
    pub fn plan(&self, lines: &str) {
        fs::write(self.path("plan"), lines).unwrap();
        let _ = fs::remove_file(self.path("seen"));
        let _ = fs::remove_file(self.path("client"));
    }

    /// Who is meant by `kill`.
    pub fn client(&self, pid: u32) {
        fs::write(self.path("client.new"), pid.to_string()).unwrap();
        fs::rename(self.path("client.new"), self.path("client")).unwrap();
    }

    /// The names of all requests so far, in the order of their coming.
    pub fn seen(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("seen")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// How many requests of this name have come.
    pub fn count(&self, name: &str) -> usize {
        self.seen().iter().filter(|seen| *seen == name).count()
    }

    /// Which file `touch` changes.
    pub fn touches(&self, file: &Path) {
        fs::write(self.path("touched"), file.as_os_str().as_encoded_bytes()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Whether there is a server to put faults into; says so where there is none.
pub fn is_installed() -> bool {
    let found = server().is_some();
    if !found {
        eprintln!("SKIPPED what needs sftp-server: OpenSSH's is not installed");
    }
    found
}

/// The program `sftp-faults FOLDER`.
pub fn main_impl(folder: &Path) -> ExitCode {
    match relay(folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sftp-faults: {error}");
            ExitCode::FAILURE
        }
    }
}

fn server() -> Option<&'static str> {
    SERVERS.into_iter().find(|path| Path::new(path).is_file())
}

fn relay(folder: &Path) -> io::Result<()> {
    let plan = Plan::read(folder)?;
    let server = server().ok_or(io::ErrorKind::NotFound)?;
    let mut child = Command::new(server).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let to_server = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let from_server = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let hidden = plan.hidden();
    let out = Arc::new(Mutex::new(Out::default()));
    let answers = Arc::clone(&out);
    thread::spawn(move || {
        let _ = forward_answers(from_server, &answers, &hidden);
        // Whoever waits for the rest of the requests waits for a client that may not come.
        std::process::exit(0);
    });
    let ended = forward_requests(folder, plan, to_server, &out);
    reap(&mut child);
    ended
}

fn reap(child: &mut Child) {
    for _ in 0..100 {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// What goes back to the client.
#[derive(Debug, Default)]
struct Out {
    /// Nothing goes any more.
    stalled: bool,
    /// The session ends instead of the answer to this request.
    cut_at: Option<[u8; 4]>,
}

impl Out {
    fn send(&self, packet: &[u8]) -> io::Result<()> {
        if self.stalled {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        out.write_all(&(packet.len() as u32).to_be_bytes())?;
        out.write_all(packet)?;
        out.flush()
    }
}

fn forward_answers(from: ChildStdout, out: &Mutex<Out>, hidden: &[String]) -> io::Result<()> {
    let mut from = BufReader::with_capacity(MAX_PACKET, from);
    while let Some(mut packet) = next_packet(&mut from)? {
        if packet.first() == Some(&VERSION) {
            packet = without_extensions(&packet, hidden);
        }
        let out = out.lock().unwrap();
        if out.cut_at.is_some_and(|id| packet.get(1..5) == Some(&id)) {
            std::process::exit(1);
        }
        out.send(&packet)?;
    }
    Ok(())
}

fn forward_requests(
    folder: &Path,
    mut plan: Plan,
    mut to: ChildStdin,
    out: &Mutex<Out>,
) -> io::Result<()> {
    let mut from = BufReader::with_capacity(MAX_PACKET, io::stdin());
    while let Some(packet) = next_packet(&mut from)? {
        let id: [u8; 4] = packet.get(1..5).and_then(|id| id.try_into().ok()).unwrap_or_default();
        match plan.verdict(folder, &name_of(&packet))? {
            Verdict::Go => {}
            Verdict::Kill => kill_client(folder),
            Verdict::Cut => return Ok(()),
            Verdict::CutAfter => out.lock().unwrap().cut_at = Some(id),
            Verdict::Delay => thread::sleep(Duration::from_millis(5)),
            Verdict::Stall => out.lock().unwrap().stalled = true,
            Verdict::Answer(code) => {
                out.lock().unwrap().send(&status(id, code))?;
                continue;
            }
            Verdict::Touch => touch(folder)?,
        }
        to.write_all(&(packet.len() as u32).to_be_bytes())?;
        to.write_all(&packet)?;
    }
    Ok(())
}

fn next_packet(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        done => done?,
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_PACKET {
        return Err(io::Error::other(format!("a packet of {length} bytes")));
    }
    let mut packet = vec![0; length];
    from.read_exact(&mut packet)?;
    Ok(Some(packet))
}

/// The request's name; of an extended one that of the extension.
fn name_of(packet: &[u8]) -> String {
    let kind = packet.first().copied().unwrap_or_default();
    if kind == EXTENDED {
        let length = packet.get(5..9).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
        let name = packet.get(9..9 + length as usize).unwrap_or_default();
        return String::from_utf8_lossy(name).into_owned();
    }
    let known = NAMES.iter().find(|(number, _)| *number == kind);
    known.map_or_else(|| kind.to_string(), |(_, name)| (*name).to_owned())
}

fn status(id: [u8; 4], code: u32) -> Vec<u8> {
    let text = b"a fault of the test";
    let mut packet = vec![STATUS];
    packet.extend(id);
    packet.extend(code.to_be_bytes());
    packet.extend((text.len() as u32).to_be_bytes());
    packet.extend(text);
    packet.extend(0_u32.to_be_bytes());
    packet
}

fn without_extensions(packet: &[u8], hidden: &[String]) -> Vec<u8> {
    let (mut kept, mut rest) = (packet[..5].to_vec(), &packet[5..]);
    while let Some((name, value, behind)) = pair(rest) {
        if !hidden.iter().any(|hide| hide.as_bytes() == name) {
            kept.extend(&rest[..rest.len() - behind.len()]);
        }
        let _ = value;
        rest = behind;
    }
    kept
}

fn pair(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, rest) = string(bytes)?;
    let (value, rest) = string(rest)?;
    Some((name, value, rest))
}

fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

fn kill_client(folder: &Path) -> ! {
    for _ in 0..1000 {
        let pid = fs::read_to_string(folder.join("client")).ok();
        if let Some(pid) = pid.and_then(|pid| pid.trim().parse().ok()) {
            kill9_any(pid);
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    std::process::exit(1)
}

fn touch(folder: &Path) -> io::Result<()> {
    let path = fs::read_to_string(folder.join("touched"))?;
    OpenOptions::new().append(true).open(path)?.write_all(b"!")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Go,
    Kill,
    Cut,
    CutAfter,
    Stall,
    Delay,
    Answer(u32),
    Touch,
}

/// The test's wishes and the counts of all sessions, which share a file.
#[derive(Debug)]
struct Plan {
    rules: Vec<Rule>,
    seen: File,
}

#[derive(Debug)]
struct Rule {
    verdict: Verdict,
    hides: bool,
    name: String,
    nth: Option<usize>,
}

impl Plan {
    fn read(folder: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(folder.join("plan"))?;
        let rules = text.lines().map(Rule::parse).collect::<Option<Vec<_>>>();
        let rules = rules.ok_or_else(|| io::Error::other("a bad plan"))?;
        let mut options = OpenOptions::new();
        let seen = options.read(true).append(true).create(true).open(folder.join("seen"))?;
        Ok(Self { rules, seen })
    }

    fn hidden(&self) -> Vec<String> {
        self.rules.iter().filter(|rule| rule.hides).map(|rule| rule.name.clone()).collect()
    }

    fn verdict(&mut self, folder: &Path, name: &str) -> io::Result<Verdict> {
        rustix::fs::flock(&self.seen, FlockOperation::LockExclusive)?;
        let before = fs::read_to_string(folder.join("seen"))?;
        writeln!(self.seen, "{name}")?;
        rustix::fs::flock(&self.seen, FlockOperation::Unlock)?;
        let verdicts = self.rules.iter().filter(|rule| rule.fits(&before, name));
        Ok(verdicts.map(|rule| rule.verdict).next().unwrap_or(Verdict::Go))
    }
}

impl Rule {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (action, name) = (words.next()?, words.next()?.to_owned());
        let nth = words.next().map(str::parse).transpose().ok()?;
        let verdict = match action {
            "kill" => Verdict::Kill,
            "cut" => Verdict::Cut,
            "cut-after" => Verdict::CutAfter,
            "stall" => Verdict::Stall,
            "delay" => Verdict::Delay,
            "fail" => Verdict::Answer(FAILURE),
            "deny" => Verdict::Answer(DENIED),
            "hide" => Verdict::Answer(UNSUPPORTED),
            "touch" => Verdict::Touch,
            _ => return None,
        };
        Some(Self { verdict, hides: action == "hide", name, nth })
    }

    fn fits(&self, before: &str, name: &str) -> bool {
        let is_meant = |seen: &str| self.name == "*" || self.name == seen;
        let seen = || before.lines().filter(|line| is_meant(line)).count() + 1;
        is_meant(name) && self.nth.is_none_or(|nth| nth == seen())
    }
}
