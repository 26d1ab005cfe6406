//! The tools that go over ssh, what each copies, and how it is called.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fcp_benches::measure::{Sample, measure};
use fcp_benches::sshd::{HOST, Server};
use fcp_benches::workload::{Source, Workload};

/// One way to copy to a host behind ssh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// `fcp push`, which finds the best way.
    Fcp,
    /// `fcp push --via stdio --direct never`: all of it through ssh.
    FcpStdio,
    /// `scp` with ssh's default cipher.
    Scp,
    /// `scp` with the cipher that processors do best.
    ScpGcm,
    /// `rsync -a`.
    Rsync,
    /// `mscp`, several ssh connections.
    Mscp,
    /// `ssh HOST true`: one handshake and nothing else.
    Ssh,
}

impl Tool {
    pub(crate) const ALL: [Self; 7] =
        [Self::Fcp, Self::FcpStdio, Self::Scp, Self::ScpGcm, Self::Rsync, Self::Mscp, Self::Ssh];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fcp => "fcp",
            Self::FcpStdio => "fcp-stdio",
            Self::Scp => "scp",
            Self::ScpGcm => "scp-aes128-gcm",
            Self::Rsync => "rsync",
            Self::Mscp => "mscp",
            Self::Ssh => "ssh-true",
        }
    }

    /// The command as a reader would type it.
    pub(crate) fn command_line(self) -> &'static str {
        match self {
            Self::Fcp => "fcp push -F CONFIG SRC HOST:DST/",
            Self::FcpStdio => "fcp push -F CONFIG --via stdio --direct never SRC HOST:DST/",
            Self::Scp => "scp -q -rp -F CONFIG SRC HOST:DST/",
            Self::ScpGcm => "scp -q -rp -F CONFIG -c aes128-gcm@openssh.com SRC HOST:DST/",
            Self::Rsync => "rsync -a -e 'ssh -F CONFIG' SRC HOST:DST/",
            Self::Mscp => "mscp -q -p -F CONFIG SRC HOST:DST/",
            Self::Ssh => "ssh -F CONFIG HOST true",
        }
    }

    pub(crate) fn is_fcp(self) -> bool {
        matches!(self, Self::Fcp | Self::FcpStdio)
    }

    /// Whether it is measured on this case.
    pub(crate) fn runs(self, case: Case) -> bool {
        match case.workload {
            Workload::L0 => matches!(self, Self::Fcp | Self::Scp | Self::Rsync | Self::Ssh),
            _ if self == Self::Ssh => false,
            // Its connections are its own; and it cannot keep the times of directories.
            _ if self == Self::Mscp => !case.live && !case.workload.counts_files(),
            // A round trip for every file: minutes, and nobody's choice.
            _ if case.workload.counts_files() => !matches!(self, Self::Scp | Self::ScpGcm),
            _ => true,
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Fcp | Self::FcpStdio => "fcp",
            Self::Scp | Self::ScpGcm => "scp",
            Self::Rsync => "rsync",
            Self::Mscp => "mscp",
            Self::Ssh => "ssh",
        }
    }

    /// Its program, if it is installed; fcp's stands in `bin_dir`.
    pub(crate) fn find(self, bin_dir: &Path) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs: Vec<PathBuf> = match self.is_fcp() {
            true => vec![std::path::absolute(bin_dir).ok()?],
            false => std::env::split_paths(&path).collect(),
        };
        dirs.iter().map(|dir| dir.join(self.program())).find(|program| program.is_file())
    }
}

/// What is copied, and whether a login is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) workload: Workload,
    /// On a live ControlMaster instead of a login of its own.
    pub(crate) live: bool,
}

impl Case {
    pub(crate) fn name(self) -> String {
        format!("{}{}", self.workload.name(), if self.live { "-live" } else { "" })
    }
}

/// One tool's turn.
pub(crate) struct Turn<'a> {
    pub(crate) server: &'a Server,
    pub(crate) bin_dir: &'a Path,
    pub(crate) tool: Tool,
    pub(crate) case: Case,
    pub(crate) fcp_args: &'a [String],
}

impl Turn<'_> {
    /// Copies what [`subject`] says into the folder, which exists, and measures it.
    pub(crate) fn run(&self, source: &Source, target: &Path) -> io::Result<Sample> {
        let mut command = self.command(&subject(source), target)?;
        command.stdin(Stdio::null()).stdout(Stdio::null());
        measure(Some(self.server.pid()), Vec::new(), || Ok(vec![command.spawn()?]))
    }

    fn command(&self, source: &Path, target: &Path) -> io::Result<Command> {
        let missing = || io::Error::other(format!("{} is not installed", self.tool.name()));
        let program = self.tool.find(self.bin_dir).ok_or_else(missing)?;
        let config = self.server.config(self.case.live);
        let to = format!("{HOST}:{}/", target.display());
        let mut command = self.server.place().at_client(&program);
        match self.tool {
            Tool::Fcp | Tool::FcpStdio => {
                command.args(["push", "-F"]).arg(config).args(self.fcp_args);
                if self.tool == Tool::FcpStdio {
                    command.args(["--via", "stdio", "--direct", "never"]);
                }
                command.arg(source).arg(to);
            }
            Tool::Scp | Tool::ScpGcm => {
                command.args(["-q", "-rp", "-F"]).arg(config);
                if self.tool == Tool::ScpGcm {
                    command.args(["-c", "aes128-gcm@openssh.com"]);
                }
                command.arg(source).arg(to);
            }
            Tool::Rsync => {
                command.arg("-a").arg("-e").arg(format!("ssh -F {}", config.display()));
                command.arg(source).arg(to);
            }
            Tool::Mscp => {
                command.args(["-q", "-p", "-F"]).arg(config).arg(source).arg(to);
            }
            Tool::Ssh => {
                command.arg("-F").arg(config).args([HOST, "true"]);
            }
        }
        Ok(command)
    }
}

/// What is copied: the tree, or the only file of one.
pub(crate) fn subject(source: &Source) -> PathBuf {
    if source.files == 1 { source.path.join("f000000") } else { source.path.clone() }
}
