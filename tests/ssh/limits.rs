//! Servers that let few in, and users who are asked once.

use std::fs;
use std::time::Duration;

use fcp_tests::askpass::Askpass;
use fcp_tests::proxy::{Lane, Plan};
use fcp_tests::sshd::Options;

use crate::programs::{FCPD, ended};
use crate::setup::{MIB, World, assert_same_file, assert_told};

const STDIO: [&str; 4] = ["--via", "stdio", "--direct", "never"];

/// A file goes there and back over ssh alone with `-j 8`, slowly enough that more connections are
/// wanted.
#[track_caller]
fn assert_works_with_few(options: Options<'_>) {
    let Some(mut world) = World::with(options) else { return };
    let lane = Lane { delay: Duration::from_millis(10), ..Lane::default() };
    let _proxy = world.through_proxy(Plan::both(lane));
    let src = world.file("src", 24 * MIB);
    let args = [&STDIO[..], &["-j", "8"]].concat();
    let told = ended(&mut world.push(&args, &src, world.path("there")));
    told.assert_success();
    // A master of ssh complains itself about a channel that sshd refuses.
    let text = told.stderr_text();
    let ours = text.lines().filter(|line| !line.starts_with("channel "));
    assert_eq!(ours.count(), 0, "a refused connection is not worth a word: {text}");
    assert_same_file(&src, &world.path("there"));
    ended(&mut world.pull(&args, &src, &world.path("back"))).assert_success();
    assert_same_file(&src, &world.path("back"));
}

#[test]
fn a_server_that_drops_all_but_one_login_at_a_time_is_enough() {
    assert_works_with_few(Options::with_fcpd(FCPD).line("MaxStartups 1:100:1"));
}

#[test]
fn a_server_with_one_session_a_connection_is_enough() {
    assert_works_with_few(Options::with_fcpd(FCPD).line("MaxSessions 1"));
}

#[test]
fn both_limits_together_are_enough() {
    let options = Options::with_fcpd(FCPD).line("MaxSessions 1").line("MaxStartups 1:100:1");
    assert_works_with_few(options);
}

/// A world whose only key has a passphrase.
fn locked() -> Option<(World, Askpass)> {
    let mut world = World::new()?;
    let key = world.sshd.locked_key("secret");
    fs::rename(key, world.sshd.path("client_key")).unwrap();
    // Without it ssh could still be asked for a key that is in the file's clear part.
    world.ssh_lines("PreferredAuthentications publickey");
    Some((world, Askpass::answering("secret")))
}

#[test]
fn a_passphrase_is_asked_for_once_whatever_the_number_of_connections() {
    for args in [&STDIO[..], &[]] {
        let Some((mut world, askpass)) = locked() else { return };
        let lane = Lane { delay: Duration::from_millis(10), ..Lane::default() };
        let _proxy = world.through_proxy(Plan::both(lane));
        let src = world.file("src", 24 * MIB);
        let mut command = world.push(&[args, &["-j", "8"]].concat(), &src, world.path("dst"));
        askpass.serve(&mut command);
        ended(&mut command).assert_success();
        assert_same_file(&src, &world.path("dst"));
        assert_eq!(askpass.prompts().len(), 1, "{:?}", askpass.prompts());
    }
}

#[test]
fn batch_mode_asks_nobody() {
    let Some((world, askpass)) = locked() else { return };
    let src = world.file("src", 10);
    let mut command = world.push(&["-o", "BatchMode=yes"], &src, world.path("dst"));
    askpass.serve(&mut command);
    let told = ended(&mut command);
    assert_told(&told, 10, &["permission denied"]);
    assert!(askpass.prompts().is_empty(), "{:?}", askpass.prompts());
    assert!(!world.path("dst").exists());
}

#[test]
fn a_wrong_passphrase_is_an_end_and_not_a_loop() {
    let Some((world, _)) = locked() else { return };
    let wrong = Askpass::answering("wrong");
    let src = world.file("src", 10);
    let mut command = world.push(&[], &src, world.path("dst"));
    wrong.serve(&mut command);
    let told = ended(&mut command);
    assert_told(&told, 10, &[]);
    // ssh asks three times for one key; a second ssh would ask three times more.
    assert!(wrong.prompts().len() <= 3, "{:?}", wrong.prompts());
}
