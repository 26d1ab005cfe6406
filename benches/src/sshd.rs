//! A real sshd of our own, on loopback or in a network namespace.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The name of the server in the config files made here.
pub const HOST: &str = "fcp-bench";
const START_LIMIT: Duration = Duration::from_secs(10);
const SSHD: &str = "/usr/sbin/sshd";

/// Where the two ends are.
#[derive(Debug, Clone)]
pub struct Place {
    /// The address that sshd listens on.
    pub address: IpAddr,
    /// The network namespaces of client and server; none is this process's own.
    pub netns: Option<(String, String)>,
}

impl Place {
    /// Both ends here.
    pub fn loopback() -> Self {
        Self { address: Ipv4Addr::LOCALHOST.into(), netns: None }
    }

    /// A command at the client's end.
    pub fn at_client(&self, program: &Path) -> Command {
        command_in(self.netns.as_ref().map(|(client, _)| client), program)
    }

    fn at_server(&self, program: &Path) -> Command {
        command_in(self.netns.as_ref().map(|(_, server)| server), program)
    }
}

/// `ip netns exec` becomes the program, so that its process id and its CPU time are the program's.
fn command_in(netns: Option<&String>, program: &Path) -> Command {
    let Some(netns) = netns else { return Command::new(program) };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", netns]).arg(program);
    command
}

/// A running server and its clients' config; killed on drop.
#[derive(Debug)]
pub struct Server {
    child: Child,
    place: Place,
    dir: PathBuf,
    port: u16,
    master: bool,
}

impl Server {
    /// Starts one below `dir`; its sessions find the `fcpd` of `bin_dir`.
    pub fn start(place: Place, dir: &Path, bin_dir: &Path) -> io::Result<Self> {
        let dir = dir.join("sshd");
        let _ = fs::remove_dir_all(&dir);
        lay_out(&dir, bin_dir)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        write_configs(&dir, &place, port)?;
        let mut command = place.at_server(Path::new(SSHD));
        command.arg("-D").arg("-f").arg(dir.join("sshd_config")).arg("-E").arg(dir.join("log"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let server = Self { child, place, dir, port, master: false };
        server.wait_until_it_listens()?;
        Ok(server)
    }

    /// Where its ends are.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A file of its folder: `client_key`, `known_hosts`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The client's config file; `live` is one with a ControlMaster, see [`Server::open_master`].
    pub fn config(&self, live: bool) -> PathBuf {
        self.dir.join(if live { "ssh_config_live" } else { "ssh_config" })
    }

    /// Logs in once; whoever uses the live config shares that login.
    pub fn open_master(&mut self) -> io::Result<()> {
        if !self.master {
            self.master_command(&["-M", "-N", "-f"])?;
            self.master = true;
        }
        Ok(())
    }

    fn master_command(&self, args: &[&str]) -> io::Result<()> {
        let mut command = self.place.at_client(Path::new("ssh"));
        command.arg("-F").arg(self.config(true)).args(args).arg(HOST);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status()?;
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("ssh {} ended with {status}", args.join(" "))))
    }

    fn wait_until_it_listens(&self) -> io::Result<()> {
        let clock = Instant::now();
        let log = || fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        while !log().contains("Server listening on ") {
            if clock.elapsed() > START_LIMIT {
                return Err(io::Error::other(format!("sshd does not listen: {}", log())));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.master {
            // Without an answer it has ended already.
            let _ = self.master_command(&["-O", "exit"]);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lay_out(dir: &Path, bin_dir: &Path) -> io::Result<()> {
    // A home of its own: what stands in a user's start-up files is no cost of a tool.
    for name in ["bin", "home"] {
        fs::create_dir_all(dir.join(name))?;
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    symlink(std::path::absolute(bin_dir)?.join("fcpd"), dir.join("bin/fcpd"))?;
    if rustix::process::getuid().is_root() {
        // sshd wants it, and only an init system makes it.
        fs::create_dir_all("/run/sshd")?;
    }
    for key in ["host_key", "client_key"] {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(key));
        let status = keygen.status()?;
        if !status.success() {
            return Err(io::Error::other(format!("ssh-keygen ended with {status}")));
        }
    }
    fs::copy(dir.join("client_key.pub"), dir.join("authorized_keys")).map(drop)
}

fn write_configs(dir: &Path, place: &Place, port: u16) -> io::Result<()> {
    let (at, address) = (dir.display(), place.address);
    let key = fs::read_to_string(dir.join("host_key.pub"))?;
    fs::write(dir.join("known_hosts"), format!("[{address}]:{port} {key}"))?;
    let server = format!(
        "ListenAddress {address}\nPort {port}\nHostKey {at}/host_key\nUsePAM no\nStrictModes no\n\
         AuthorizedKeysFile {at}/authorized_keys\nPidFile none\nUseDNS no\nPrintMotd no\n\
         Subsystem sftp internal-sftp\nSetEnv PATH={at}/bin:/usr/local/bin:/usr/bin:/bin HOME={at}/home\n"
    );
    fs::write(dir.join("sshd_config"), server)?;
    let client = format!(
        "Host {HOST}\nHostName {address}\nPort {port}\nIdentityFile {at}/client_key\n\
         IdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile {at}/known_hosts\n\
         GlobalKnownHostsFile /dev/null\nStrictHostKeyChecking yes\n"
    );
    fs::write(dir.join("ssh_config"), format!("{client}ControlPath none\n"))?;
    fs::write(dir.join("ssh_config_live"), format!("{client}ControlPath {at}/master\n"))
}
