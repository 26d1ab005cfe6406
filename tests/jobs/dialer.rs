//! `dialer: system`: what the system's `ssh` asks it is told by ourselves, and by nobody else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use fcp_tests::account::Account;
use fcp_tests::process::Finished;
use fcp_tests::sshd::Options;

use crate::setup::{After, World};

const RIGHT: &str = "pl4nted#right";
const WRONG: &str = "pl4nted#wrong";

/// A server with passwords, and a file to pick up that every account may read.
fn world() -> Option<World> {
    let options = Options::without_fcpd().line("PasswordAuthentication yes");
    let world = World::without_faults(options)?;
    fs::set_permissions(world.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    world.file("a.csv", 10);
    Some(world)
}

/// Runs the job with the system's `ssh`, these lines in place of the key and maybe another user.
fn run(world: &World, user: Option<&str>, lines: &str) -> Finished {
    let yaml = fs::read_to_string(world.job(After::Kept.lines())).unwrap();
    let key = format!("key_file: \"{}\"", world.sshd.path("client_key").display());
    assert!(yaml.contains(&key));
    let mut yaml = yaml.replace(&key, &format!("{lines}\n    dialer: system"));
    if let Some(user) = user {
        let old = format!("user: \"{}\"", world.sshd.user());
        assert!(yaml.contains(&old));
        yaml = yaml.replace(&old, &format!("user: \"{user}\""));
    }
    world.write(&yaml);
    let ran = world.run();
    for secret in [RIGHT, WRONG] {
        assert!(!ran.stderr_text().contains(secret) && !ran.stdout_text().contains(secret));
    }
    ran
}

/// Forgets what was delivered.
fn anew(world: &World) {
    fs::remove_dir_all(world.path("home")).unwrap();
    fs::create_dir(world.path("home")).unwrap();
    fs::remove_dir_all(world.path("out")).unwrap();
}

#[test]
fn s24_the_systems_ssh_gets_a_passphrase_from_us() {
    let Some(world) = world() else { return };
    let key = world.sshd.locked_key(RIGHT);
    let lines = |passphrase: &str| {
        format!("key_file: \"{}\"\n    passphrase: \"{passphrase}\"", key.display())
    };
    run(&world, None, &lines(WRONG)).assert_code(10);
    assert!(world.visible("out").is_empty());
    run(&world, None, &lines(RIGHT)).assert_success();
    assert_eq!(world.visible("out"), world.visible("in"));
}

#[test]
fn s24_the_systems_ssh_gets_a_password_from_us_and_once() {
    let Some(world) = world() else { return };
    let Some(account) = Account::new(&world.sshd, "/bin/sh") else { return };
    account.set_password(RIGHT);
    let password = |text: &str| format!("password: \"{text}\"");
    run(&world, Some(account.name()), &password(WRONG)).assert_code(10);
    assert_eq!(world.sshd.log().matches("Failed password").count(), 1, "accounts get locked");
    run(&world, Some(account.name()), &password(RIGHT)).assert_success();
    assert_eq!(world.visible("out"), world.visible("in"));
}

#[test]
fn s24_the_systems_ssh_believes_a_pinned_key_only() {
    let Some(world) = world() else { return };
    let key = format!("key_file: \"{}\"", world.sshd.path("client_key").display());
    let known = fs::read_to_string(world.sshd.path("known_hosts")).unwrap();
    let words = known.lines().next().unwrap().split(' ').skip(1);
    let public = words.take(2).collect::<Vec<_>>().join(" ");
    let file = world.path("host.pub");
    fs::write(&file, &public).unwrap();
    let output = Command::new("ssh-keygen").arg("-lf").arg(&file).output().unwrap();
    let print = String::from_utf8(output.stdout).unwrap();
    let print = print.split(' ').nth(1).unwrap().to_owned();
    // A pin says it all: what is known besides does not count.
    fs::write(world.sshd.path("known_hosts"), "").unwrap();
    for pin in [print.as_str(), public.as_str()] {
        run(&world, None, &format!("{key}\n    host_key: \"{pin}\"")).assert_success();
        assert_eq!(world.visible("out"), world.visible("in"));
        anew(&world);
    }
    let other = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    run(&world, None, &format!("{key}\n    host_key: \"{other}\"")).assert_code(10);
    run(&world, None, &key).assert_code(10);
    assert!(world.visible("out").is_empty());
}
