//! Tokens: the command, the files, and who comes in with them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use fcp_common::auth::Token;

/// The program with nothing of our environment.
fn fcpd(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fcpd"));
    command.env_clear().env("HOME", home).stdin(Stdio::null());
    command
}

fn run(home: &Path, args: &[&str]) -> Output {
    fcpd(home).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What stdout says when all went well.
fn stdout(output: Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The one line that a failure is.
fn failure(output: Output) -> String {
    let stderr = text(&output.stderr);
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
    stderr
}

#[test]
fn a_token_is_added_listed_and_revoked() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().to_str().unwrap();
    let added = stdout(run(home.path(), &["token", "add", "laptop", "--root", root]));
    let secret = added.strip_prefix("laptop:").unwrap().trim();
    secret.parse::<Token>().unwrap();
    let store = home.path().join(".config/fcp/tokens.json");
    assert_eq!(fs::metadata(&store).unwrap().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(&store).unwrap().contains(secret));
    assert!(stdout(run(home.path(), &["token", "list"])).starts_with("laptop "));
    let again = failure(run(home.path(), &["token", "add", "laptop", "--root", root]));
    assert!(again.contains("revoke"), "{again}");
    stdout(run(home.path(), &["token", "revoke", "laptop"]));
    assert_eq!(stdout(run(home.path(), &["token", "list", "--json"])), "");
    let gone = failure(run(home.path(), &["token", "revoke", "laptop"]));
    assert!(gone.contains("fcpd token list"), "{gone}");
}

#[test]
fn a22_a_loose_local_token_stops_the_server_before_it_serves() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join(".config/fcp");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("token");
    let good = Token::from_random([7; 32]).to_text();
    let start = || failure(run(home.path(), &["--listen", "127.0.0.1:0"]));

    fs::write(&path, &good).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(start().contains("chmod 600"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    for bad in ["", "fcp-token-"] {
        fs::write(&path, bad).unwrap();
        assert!(start().contains("remove it"));
    }
    fs::remove_file(&path).unwrap();
    fs::write(dir.join("real"), &good).unwrap();
    symlink("real", &path).unwrap();
    assert!(start().contains("symbolic link"));
}

/// Starts the server and reads what it says until it serves.
fn start_tls(home: &Path, args: &[&str]) -> (Vec<String>, Child) {
    let mut child = fcpd(home).args(args).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let said = lines.by_ref().take(2).collect();
    let _ = child.kill();
    (said, child)
}

#[test]
fn a01_an_address_that_others_reach_needs_tls_and_a_token() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().to_str().unwrap();
    let plain = failure(run(home.path(), &["--listen", "0.0.0.0:0"]));
    assert!(plain.contains("--tls") && plain.contains("ssh"), "{plain}");
    let tls = ["--listen", "0.0.0.0:0", "--tls"];
    let none = failure(run(home.path(), &tls));
    assert!(none.contains("fcpd token add NAME --root PATH"), "{none}");
    let soon = ["token", "add", "short", "--root", root, "--expires", "1s"];
    stdout(run(home.path(), &soon));
    std::thread::sleep(Duration::from_millis(1100));
    let expired = failure(run(home.path(), &tls));
    assert!(expired.contains("expired"), "{expired}");

    stdout(run(home.path(), &["token", "add", "laptop", "--root", root]));
    let (said, mut child) = start_tls(home.path(), &tls);
    child.wait().unwrap();
    assert!(said[0].starts_with("fcpd: listening on 0.0.0.0:"), "{said:?}");
    let shown = stdout(run(home.path(), &["fingerprint"]));
    assert_eq!(said[1], format!("fcpd: the server's key is {}", shown.trim()));
    let key = home.path().join(".local/state/fcp/server.pem");
    assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600);

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(failure(run(home.path(), &tls)).contains("server.pem"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let store = home.path().join(".config/fcp/tokens.json");
    fs::set_permissions(&store, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(failure(run(home.path(), &tls)).contains("chmod 600"));
}
