//! What runs over one login.

use std::time::Duration;

use super::support::{Sshd, dial, file, greet};
use crate::location::Reason;

#[tokio::test]
async fn several_streams_and_commands_share_a_login_until_the_server_says_no() {
    let Some(sshd) = Sshd::start("MaxSessions 2") else { return };
    let key = sshd.key("root", "ed25519", "");
    let connection = dial(sshd.login("root", file(key))).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = connection.open_sftp().await.unwrap();
        greet(&mut stream).await.unwrap();
        streams.push(stream);
    }
    let error = connection.open_sftp().await.unwrap_err();
    assert_eq!(error.reason, Reason::Busy, "{error}");
    streams.pop();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let output = connection.exec(b"echo hello; exit 3", 100).await.unwrap();
    assert_eq!((output.status, &output.stdout[..]), (Some(3), &b"hello\n"[..]));
    assert!(connection.exec(b"yes", 100).await.is_err());
    assert!(!connection.is_closed() && connection.has_exec());
    let mut last = streams.pop().unwrap();
    drop(connection);
    assert!(last.writer.as_mut().flush_ok().await, "a stream keeps its login");
    assert_eq!(sshd.log().matches("Accepted publickey").count(), 1);
}

/// A stream that is alive answers.
trait Alive {
    async fn flush_ok(&mut self) -> bool;
}

impl<T: tokio::io::AsyncWrite + Unpin + ?Sized> Alive for T {
    async fn flush_ok(&mut self) -> bool {
        use tokio::io::AsyncWriteExt;
        // A request for the real path of ".".
        let request = [0, 0, 0, 10, 16, 0, 0, 0, 1, 0, 0, 0, 1, b'.'];
        self.write_all(&request).await.is_ok() && self.flush().await.is_ok()
    }
}

#[tokio::test]
async fn a_server_that_forces_sftp_runs_no_command_and_holds_nobody_up() {
    let Some(sshd) = Sshd::start("ForceCommand internal-sftp") else { return };
    let key = sshd.key("root", "ed25519", "");
    let connection = dial(sshd.login("root", file(key))).await.unwrap();
    let running = connection.exec(b"sha256sum /etc/passwd", 1000);
    let done = tokio::time::timeout(Duration::from_secs(10), running).await.unwrap();
    assert_eq!(done.unwrap_err().reason, Reason::Unsupported);
    assert!(!connection.has_exec());
    let mut stream = connection.open_sftp().await.unwrap();
    greet(&mut stream).await.unwrap();
}

#[tokio::test]
async fn one_command_after_another_needs_one_session() {
    let Some(sshd) = Sshd::start("MaxSessions 1") else { return };
    let key = sshd.key("root", "ed25519", "");
    let connection = dial(sshd.login("root", file(key))).await.unwrap();
    for _ in 0..20 {
        assert_eq!(connection.exec(b"echo x", 100).await.unwrap().stdout, b"x\n");
    }
}
