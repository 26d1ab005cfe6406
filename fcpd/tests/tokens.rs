//! Tokens: the command, the files, and who comes in with them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

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
    added.parse::<Token>().unwrap();
    let store = home.path().join(".config/fcp/tokens.json");
    assert_eq!(fs::metadata(&store).unwrap().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(&store).unwrap().contains(added.trim()));
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
