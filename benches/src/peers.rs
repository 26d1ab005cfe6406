//! The tools a run compares, and how each is called.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::measure::{Sample, measure};
use crate::workload::Workload;

const START_LIMIT: Duration = Duration::from_secs(10);

/// One way to copy a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// `fcp push` to an `fcpd` on loopback.
    FcpPush,
    /// `rsync -a` to an rsync daemon on loopback.
    RsyncDaemon,
    /// `tar` through `nc` on loopback.
    TarNc,
    /// `fcp SRC/ DST`.
    FcpLocal,
    /// `cp -a`; with `-u` where nothing is to be done.
    Cp,
    /// `rsync -a` between two folders.
    RsyncLocal,
}

impl Tool {
    /// All tools, as the tables list them.
    pub const ALL: [Self; 6] =
        [Self::FcpPush, Self::RsyncDaemon, Self::TarNc, Self::FcpLocal, Self::Cp, Self::RsyncLocal];

    /// The name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::FcpPush => "fcp-push",
            Self::RsyncDaemon => "rsync-daemon",
            Self::TarNc => "tar-nc",
            Self::FcpLocal => "fcp-local",
            Self::Cp => "cp-a",
            Self::RsyncLocal => "rsync-local",
        }
    }

    /// The command as a reader would type it.
    pub fn command_line(self) -> &'static str {
        match self {
            Self::FcpPush => "fcp push SRC/ fcp://127.0.0.1:PORT/DST, fcpd --listen 127.0.0.1:PORT",
            Self::RsyncDaemon => "rsync -a SRC/ rsync://127.0.0.1:PORT/bench/DST/",
            Self::TarNc => {
                "tar cf - -C SRC . | nc -N 127.0.0.1 PORT, nc -d -l 127.0.0.1 PORT | tar xpf - -C DST"
            }
            Self::FcpLocal => "fcp SRC/ DST",
            Self::Cp => "cp -a SRC/. DST (cp -au for W4)",
            Self::RsyncLocal => "rsync -a SRC/ DST/",
        }
    }

    /// Whether it is fcp itself.
    pub fn is_fcp(self) -> bool {
        matches!(self, Self::FcpPush | Self::FcpLocal)
    }

    /// Whether source and destination are two folders of one process's machine, with no socket between.
    pub fn is_local(self) -> bool {
        matches!(self, Self::FcpLocal | Self::Cp | Self::RsyncLocal)
    }

    /// Whether the tool can do the workload: tar has no way to leave out what is there already.
    pub fn can(self, workload: Workload) -> bool {
        self != Self::TarNc || !workload.is_no_op()
    }

    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::FcpPush => &["fcp", "fcpd"],
            Self::FcpLocal => &["fcp"],
            Self::RsyncDaemon | Self::RsyncLocal => &["rsync"],
            Self::TarNc => &["tar", "nc"],
            Self::Cp => &["cp"],
        }
    }

    /// The first of its programs that is not installed.
    pub fn missing_program(self, bin_dir: &Path) -> Option<&'static str> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let installed = |name: &&&str| {
            if self.is_fcp() {
                return bin_dir.join(name).is_file();
            }
            std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
        };
        self.programs().iter().find(|name| !installed(name)).copied()
    }
}

/// The daemons of a run and what the calls need to know; dropping it stops the daemons.
#[derive(Debug)]
pub struct Peers {
    bin_dir: PathBuf,
    fcp_args: Vec<String>,
    copies: PathBuf,
    rsyncd: Option<Daemon>,
    fcpd: Option<Daemon>,
}

impl Peers {
    /// Starts the daemons that `tools` need. Copies go to `<copies>/<tool>`.
    pub fn start(
        tools: &[Tool],
        dir: &Path,
        copies: &Path,
        bin_dir: &Path,
        fcp_args: &[String],
    ) -> io::Result<Self> {
        let wants = |tool| tools.contains(&tool);
        let fcpd = || Daemon::start(|port| fcpd_command(bin_dir, dir, port));
        Ok(Self {
            bin_dir: bin_dir.to_owned(),
            fcp_args: fcp_args.to_vec(),
            copies: copies.to_owned(),
            rsyncd: wants(Tool::RsyncDaemon)
                .then(|| Daemon::start(|port| rsyncd_command(dir, copies, port)))
                .transpose()?,
            fcpd: wants(Tool::FcpPush).then(fcpd).transpose()?,
        })
    }

    /// Where a tool's copy stands.
    pub fn copy_of(&self, tool: Tool) -> PathBuf {
        self.copies.join(tool.name())
    }

    /// Copies `source` into the tool's folder, which exists, and measures it.
    pub fn run(&self, tool: Tool, source: &Path, workload: Workload) -> io::Result<Sample> {
        let target = self.copy_of(tool);
        let slashed = |path: &Path| format!("{}/", path.display());
        let (from, to) = (slashed(source), slashed(&target));
        match tool {
            Tool::TarNc => tar_nc(source, &target),
            Tool::Cp => {
                let flags = if workload.is_no_op() { "-au" } else { "-a" };
                one(None, Command::new("cp").arg(flags).arg(source.join(".")).arg(&target))
            }
            Tool::RsyncLocal => one(None, Command::new("rsync").args(["-a", &from, &to])),
            Tool::RsyncDaemon => {
                let daemon = running(&self.rsyncd)?;
                let url = format!("rsync://127.0.0.1:{}/bench/{}/", daemon.port, tool.name());
                one(Some(daemon), Command::new("rsync").args(["-a", &from, &url]))
            }
            Tool::FcpLocal => one(None, self.fcp().args([&from, &to])),
            Tool::FcpPush => {
                let daemon = running(&self.fcpd)?;
                let url = format!("fcp://127.0.0.1:{}{}", daemon.port, target.display());
                one(Some(daemon), self.fcp().args(["push", &from, &url]))
            }
        }
    }

    fn fcp(&self) -> Command {
        let mut command = Command::new(self.bin_dir.join("fcp"));
        command.args(&self.fcp_args);
        command
    }
}

fn running(daemon: &Option<Daemon>) -> io::Result<&Daemon> {
    daemon.as_ref().ok_or_else(|| io::Error::other("its daemon was not started"))
}

fn one(daemon: Option<&Daemon>, command: &mut Command) -> io::Result<Sample> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    measure(daemon.map(|d| d.child.id()), Vec::new(), || Ok(vec![command.spawn()?]))
}

fn tar_nc(source: &Path, target: &Path) -> io::Result<Sample> {
    let port = free_port()?.to_string();
    let host = "127.0.0.1";
    let listener =
        Command::new("nc").args(["-d", "-l", host, &port]).stdout(Stdio::piped()).spawn()?;
    let unpack = ["xpf", "-", "-C"];
    let receiver = pipe_into(listener, Command::new("tar").args(unpack).arg(target))?;
    wait_listening(&port)?;
    measure(None, receiver, || {
        let mut pack = Command::new("tar");
        let pack =
            pack.args(["cf", "-", "-C"]).arg(source).arg(".").stdout(Stdio::piped()).spawn()?;
        pipe_into(pack, Command::new("nc").args(["-N", host, &port]).stdout(Stdio::null()))
    })
}

fn pipe_into(mut first: Child, second: &mut Command) -> io::Result<Vec<Child>> {
    let output = first.stdout.take().map_or_else(Stdio::null, Stdio::from);
    let second = second.stdin(output).spawn()?;
    Ok(vec![first, second])
}

/// Waits until the kernel lists the port as listening; to connect would use up `nc`'s only accept.
fn wait_listening(port: &str) -> io::Result<()> {
    let number: u16 = port.parse().map_err(io::Error::other)?;
    let local = format!(":{number:04X}");
    wait_for("nc", || {
        let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        table.lines().any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            fields.next().is_some_and(|a| a.ends_with(&local)) && fields.nth(1) == Some("0A")
        })
    })
}

fn wait_for(what: &str, mut ready: impl FnMut() -> bool) -> io::Result<()> {
    let clock = Instant::now();
    while !ready() {
        if clock.elapsed() > START_LIMIT {
            return Err(io::Error::other(format!("{what} does not listen")));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn fcpd_command(bin_dir: &Path, dir: &Path, port: u16) -> io::Result<Command> {
    let mut command = Command::new(bin_dir.join("fcpd"));
    command.args(["--listen", &format!("127.0.0.1:{port}")]);
    command.stderr(fs::File::create(dir.join("fcpd.log"))?);
    Ok(command)
}

fn rsyncd_command(dir: &Path, copies: &Path, port: u16) -> io::Result<Command> {
    let config = dir.join("rsyncd.conf");
    // A root daemon would become "nobody" and could neither write nor keep modes.
    let user = if rustix::process::getuid().is_root() { "uid = 0\ngid = 0\n" } else { "" };
    let text = format!(
        "use chroot = no\n{user}[bench]\npath = {}\nread only = no\nlog file = /dev/null\n",
        copies.display()
    );
    fs::write(&config, text)?;
    let mut command = Command::new("rsync");
    command.args(["--daemon", "--no-detach", "--address=127.0.0.1"]);
    command.arg(format!("--port={port}")).arg(format!("--config={}", config.display()));
    Ok(command)
}

/// A server in the foreground; killed on drop.
#[derive(Debug)]
struct Daemon {
    child: Child,
    port: u16,
}

impl Daemon {
    fn start(command: impl FnOnce(u16) -> io::Result<Command>) -> io::Result<Self> {
        let port = free_port()?;
        let mut command = command(port)?;
        let name = command.get_program().display().to_string();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let daemon = Self { child, port };
        wait_for(&name, || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())?;
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have died already; either way nobody is left to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
