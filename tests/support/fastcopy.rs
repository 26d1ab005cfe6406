//! fastcopy 0.1.8 from PyPI, the implementation of protocol version 1 that nobody here wrote.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Daemon, Finished, run};
use crate::venv;

/// A little more than the driver script waits itself.
const LIMIT: Duration = Duration::from_secs(90);

/// The peer, ready to run. It keeps file and directory modes and file mtimes (as f64), nothing else.
#[derive(Debug, Clone)]
pub struct Fastcopy {
    python: PathBuf,
}

impl Fastcopy {
    /// The peer, or `None` with a notice on stderr where it cannot be installed.
    pub fn find() -> Option<Self> {
        Some(Self { python: venv::python()?.to_owned() })
    }

    /// Its client pushes the contents of `src` into `dst` through the server on `port`.
    pub fn push(&self, src: &Path, dst: &Path, connections: u8, port: u16) -> Finished {
        self.client("push", src, dst, connections, port)
    }

    /// Its client pulls the contents of `src` from the server on `port` into `dst`.
    pub fn pull(&self, src: &Path, dst: &Path, connections: u8, port: u16) -> Finished {
        self.client("pull", src, dst, connections, port)
    }

    /// Its server on a free port.
    pub fn serve(&self) -> Daemon {
        Daemon::start_with(|port| {
            let mut command = self.script();
            command.args(["serve", "--port", &port.to_string()]);
            command
        })
    }

    fn client(&self, way: &str, src: &Path, dst: &Path, connections: u8, port: u16) -> Finished {
        let mut command = self.script();
        command.args([way, "--port", &port.to_string()]);
        command.args(["--connections", &connections.to_string()]).arg("--").arg(src).arg(dst);
        run(&mut command, LIMIT)
    }

    fn script(&self) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("support/fastcopy_peer.py"));
        command
    }
}
