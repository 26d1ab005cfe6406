//! The background: the program starts itself again, detached, and waits until that one listens.
//!
//! Whatever goes wrong before then goes to the terminal, as the new process keeps stderr so long.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Command, ExitCode, Stdio};

use fcp_proto::auth::Fingerprint;

/// How the process in the background begins its one line on stdout.
const LISTENING: &str = "listening";

/// Starts the process in the background and returns once it listens.
///
/// # Errors
/// It cannot be started. What the process itself fails with it prints, and its exit code is ours.
pub(crate) fn launch() -> Result<ExitCode, String> {
    let cannot = |e: std::io::Error| format!("cannot start in the background: {e}");
    let program = std::env::current_exe().map_err(cannot)?;
    let mut child = Command::new(program)
        .arg("--detached")
        .args(std::env::args_os().skip(1))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(cannot)?;
    }
    let told = line.trim_end().strip_prefix(LISTENING).and_then(|l| l.trim_start().split_once(' '));
    if let Some((pid, addresses)) = told {
        // It runs, whether or not anybody reads this.
        let _ = writeln!(std::io::stdout(), "fcpd: listening on {addresses} (pid {pid})");
        return Ok(ExitCode::SUCCESS);
    }
    let code = child.wait().map_err(cannot)?.code();
    match code.and_then(|code| u8::try_from(code).ok()) {
        Some(0) | None => Err("the process in the background ended before it listened".to_owned()),
        Some(code) => Ok(ExitCode::from(code)),
    }
}

/// Begins a session of processes of its own, so that the terminal's signals do not come here.
pub(crate) fn leave_terminal() {
    // Fails only for the leader of a process group, who has left already.
    let _ = rustix::process::setsid();
    // So that no mounted file system is kept busy.
    let _ = std::env::set_current_dir("/");
}

/// Tells whoever waits that connections are accepted from now on; in the background, lets go of
/// what was inherited.
///
/// # Errors
/// In the background: the process that waits is gone, or there is no `/dev/null`.
pub(crate) fn announce(
    addresses: &[SocketAddr],
    key: Option<Fingerprint>,
    detached: bool,
) -> Result<(), String> {
    let shown = addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ");
    if !detached {
        eprintln!("fcpd: listening on {shown}");
        say_key(key);
        return Ok(());
    }
    // Before the one who waits: whatever comes after that line may be read by nobody.
    say_key(key);
    tracing::info!("listening on {shown} (pid {})", std::process::id());
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{LISTENING} {} {shown}", std::process::id())
        .and_then(|()| stdout.flush())
        .and_then(|()| let_go())
        .map_err(|e| format!("cannot go to the background: {e}"))
}

/// Users compare this with what their client asks them about.
fn say_key(key: Option<Fingerprint>) {
    if let Some(key) = key {
        eprintln!("fcpd: the server's key is {key}");
        tracing::info!("the server's key is {key}");
    }
}

/// What takes the place of a stream that was inherited.
pub(crate) fn null() -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/null")
}

fn let_go() -> std::io::Result<()> {
    let null = null()?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
