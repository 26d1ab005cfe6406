//! The tools that speak SFTP, and how each is called.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fcp_benches::measure::{Sample, measure};
use fcp_benches::sshd::{HOST, Server};
use fcp_benches::workload::Workload;

/// One way to copy over SFTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// `fcp job run`, action KEEP, `verify_integrity: false`.
    Job,
    /// `fcp job run`, action MOVE: every copy is proven by a hash and durable.
    JobMove,
    /// `fcp push` or `pull` with `--via sftp`.
    Fcp,
    /// `sftp` with ssh's default cipher.
    Sftp,
    /// `sftp` with the cipher that processors do best.
    SftpGcm,
    /// `rclone copy`.
    Rclone,
    /// `lftp mirror`.
    Lftp,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Down,
    Up,
}

/// What is copied, and which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) workload: Workload,
    pub(crate) way: Way,
}

impl Case {
    pub(crate) fn name(self) -> String {
        format!("{}-{}", self.workload.name(), if self.way == Way::Up { "up" } else { "down" })
    }
}

impl Tool {
    pub(crate) const ALL: [Self; 7] =
        [Self::Job, Self::JobMove, Self::Fcp, Self::Sftp, Self::SftpGcm, Self::Rclone, Self::Lftp];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Job => "fcp-job",
            Self::JobMove => "fcp-job-move",
            Self::Fcp => "fcp-via-sftp",
            Self::Sftp => "sftp",
            Self::SftpGcm => "sftp-aes128-gcm",
            Self::Rclone => "rclone",
            Self::Lftp => "lftp",
        }
    }

    /// The command as a reader would type it.
    pub(crate) fn command_line(self) -> &'static str {
        match self {
            Self::Job => {
                "fcp job -c JOBS.yaml run J 2024 -q (KEEP, verify_integrity: false, 5 workers)"
            }
            Self::JobMove => "fcp job -c JOBS.yaml run J 2024 -q (MOVE: proven by hash, durable)",
            Self::Fcp => "fcp push|pull -F CONFIG --via sftp SRC/ DST/",
            Self::Sftp => "sftp -q -F CONFIG -b BATCH HOST (get -r | put -r)",
            Self::SftpGcm => "sftp -q -F CONFIG -c aes128-gcm@openssh.com -b BATCH HOST",
            Self::Rclone => {
                "rclone copy --transfers 5 --sftp-chunk-size 255k --sftp-concurrency 64 SRC DST"
            }
            Self::Lftp => {
                "lftp -e 'set sftp:connect-program ssh -a -x -F CONFIG -c aes128-gcm@openssh.com; mirror [-R] -P 5 SRC DST'"
            }
        }
    }

    pub(crate) fn is_fcp(self) -> bool {
        matches!(self, Self::Job | Self::JobMove | Self::Fcp)
    }

    fn program(self) -> &'static str {
        match self {
            Self::Job | Self::JobMove | Self::Fcp => "fcp",
            Self::Sftp | Self::SftpGcm => "sftp",
            Self::Rclone => "rclone",
            Self::Lftp => "lftp",
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

/// One tool's turn.
pub(crate) struct Turn<'a> {
    pub(crate) server: &'a Server,
    pub(crate) bin_dir: &'a Path,
    pub(crate) tool: Tool,
    pub(crate) case: Case,
    /// Where the tool may keep its files; empty before each turn.
    pub(crate) state: &'a Path,
}

impl Turn<'_> {
    /// Copies the source into the folder, which exists, and measures it.
    pub(crate) fn run(&self, source: &Path, target: &Path) -> io::Result<Sample> {
        let mut command = self.command(source, target)?;
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.env("HOME", self.state).env("XDG_STATE_HOME", self.state.join("state"));
        command.env("FCP_KNOWN_HOSTS", self.server.path("known_hosts")).env_remove("SSH_AUTH_SOCK");
        measure(Some(self.server.pid()), Vec::new(), || Ok(vec![command.spawn()?]))
    }

    fn command(&self, source: &Path, target: &Path) -> io::Result<Command> {
        let missing = || io::Error::other(format!("{} is not installed", self.tool.name()));
        let program = self.tool.find(self.bin_dir).ok_or_else(missing)?;
        let mut command = self.server.place().at_client(&program);
        match self.tool {
            Tool::Job | Tool::JobMove => {
                let yaml = self.jobs_yaml(source, target)?;
                command.args(["job", "-c"]).arg(yaml).args(["run", "J", "2024", "-q"]);
            }
            Tool::Fcp => self.fcp(&mut command, source, target),
            Tool::Sftp | Tool::SftpGcm => self.sftp(&mut command, source, target)?,
            Tool::Rclone => self.rclone(&mut command, source, target),
            Tool::Lftp => self.lftp(&mut command, source, target),
        }
        Ok(command)
    }

    fn fcp(&self, command: &mut Command, source: &Path, target: &Path) {
        let remote = |path: &Path| format!("{HOST}:{}/", path.display());
        let config = self.server.config(false);
        match self.case.way {
            Way::Up => command
                .arg("push")
                .arg("-F")
                .arg(config)
                .args(["--via", "sftp"])
                .args([format!("{}/", source.display()), remote(target)]),
            Way::Down => command
                .arg("pull")
                .arg("-F")
                .arg(config)
                .args(["--via", "sftp"])
                .args([remote(source), format!("{}/", target.display())]),
        };
    }

    fn sftp(&self, command: &mut Command, source: &Path, target: &Path) -> io::Result<()> {
        let batch = self.state.join("batch");
        let verb = if self.case.way == Way::Up { "put" } else { "get" };
        let (from, to) = (source.display(), target.display());
        fs::write(&batch, format!("{verb} -r -p {from}/2024 {to}\n"))?;
        command.args(["-q", "-F"]).arg(self.server.config(false));
        if self.tool == Tool::SftpGcm {
            command.args(["-c", "aes128-gcm@openssh.com"]);
        }
        command.arg("-b").arg(batch).arg(HOST);
        Ok(())
    }

    fn rclone(&self, command: &mut Command, source: &Path, target: &Path) {
        let address = self.server.place().address;
        let remote = |path: &Path| format!(":sftp:{}", path.display());
        command.args(["copy", "--transfers", "5", "--config", "/dev/null"]);
        command.arg("--sftp-host").arg(address.to_string());
        command.arg("--sftp-port").arg(self.server.port().to_string());
        command
            .args(["--sftp-user", "root", "--sftp-key-file"])
            .arg(self.server.path("client_key"));
        command.args(["--sftp-chunk-size", "255k", "--sftp-concurrency", "64"]);
        match self.case.way {
            Way::Up => command.arg(source).arg(remote(target)),
            Way::Down => command.arg(remote(source)).arg(target),
        };
    }

    fn lftp(&self, command: &mut Command, source: &Path, target: &Path) {
        let reverse = if self.case.way == Way::Up { "-R " } else { "" };
        let config = self.server.config(false);
        let (from, to) = (source.display(), target.display());
        command.arg("-e").arg(format!(
            "set sftp:connect-program \"ssh -a -x -F {} -c aes128-gcm@openssh.com\"; \
             set net:connection-limit 0; open sftp://root:x@{HOST}; \
             mirror {reverse}-P 5 {from} {to}; exit",
            config.display()
        ));
    }

    fn jobs_yaml(&self, source: &Path, target: &Path) -> io::Result<PathBuf> {
        let remote = |path: &Path| {
            format!(
                "type: SFTP\n    host: \"{}\"\n    port: {}\n    user: root\n    key_file: \"{}\"\n    \
                 base_path: \"{}\"",
                self.server.place().address,
                self.server.port(),
                self.server.path("client_key").display(),
                path.display()
            )
        };
        let local = |path: &Path| format!("type: LOCAL\n    path: \"{}\"", path.display());
        let (from, to) = match self.case.way {
            Way::Up => (local(source), remote(target)),
            Way::Down => (remote(source), local(target)),
        };
        let action = if self.tool == Tool::JobMove { "MOVE" } else { "KEEP" };
        let yaml = format!(
            "J:\n  source:\n    {from}\n  destination:\n    {to}\n  file_pattern: \".\"\n  transfer:\n    \
             large_file_threshold_mb: 64\n    chunk_size_mb: 32\n    verify_integrity: false\n  done:\n    \
             action: {action}\n  max_workers: 5\n"
        );
        let path = self.state.join("jobs.yaml");
        fs::write(&path, yaml)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }
}
