//! fcpd as the forced command of a key: what the client asks for decides nothing about its limits.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use fcp_tests::process::{Finished, run};
use fcp_tests::sentinel::Sentinel;
use fcp_tests::sshd::HOST;

use crate::programs::{LIMIT, assert_unchanged, ended, slashed, snapshot};
use crate::setup::{World, assert_copied, assert_empty, assert_same_file, at};

/// A world whose key may do no more than this below `box`.
fn restricted(options: &str) -> Option<World> {
    let world = World::new()?;
    fs::create_dir(world.path("box")).unwrap();
    let root = world.path("box");
    let forced =
        format!("command=\"fcpd --stdio --restrict {} {options}\",restrict", root.display());
    world.sshd.authorize(world.sshd.user(), &forced);
    Some(world)
}

fn ssh(world: &World, remote: &str) -> Finished {
    let mut command = Command::new("ssh");
    run(command.arg("-F").arg(&world.ssh_config).args([HOST, remote]), LIMIT)
}

#[test]
fn reading_below_the_root_works_whatever_the_path_looks_like() {
    let Some(world) = restricted("--read-only") else { return };
    let src = world.small("box/src");
    for (n, path) in ["src/", "/src/", "~/src/", "./src/"].iter().enumerate() {
        let back = world.path(format!("back{n}"));
        ended(&mut world.pull(&["-j", "4"], path, &back)).assert_success();
        assert_copied(&src, &back);
    }
}

#[test]
fn read_only_means_that_nothing_changes() {
    let Some(world) = restricted("--read-only") else { return };
    let src = world.small("src");
    world.small("box/there");
    fs::write(world.path("box/there/one"), "other").unwrap();
    let before = snapshot(&world.path("box"));
    for (args, dst) in [(&[][..], "there/"), (&["--mkpath"], "new/deep/er"), (&["-c"], "there")] {
        let told = ended(&mut world.push(args, &src, dst));
        assert!(!told.timed_out && !told.status.success(), "{told:?}");
        assert!(told.stderr_text().contains("read"), "{told:?}");
    }
    assert_unchanged(&before, &world.path("box"));
}

#[test]
fn writing_stays_below_the_root() {
    let Some(world) = restricted("") else { return };
    let sentinel = Sentinel::plant(&world.path("outside/secret"));
    let src = world.small("src");
    ended(&mut world.push(&["-j", "4"], &slashed(&src), "there")).assert_success();
    assert_copied(&src, &world.path("box/there"));
    ended(&mut world.push(&["--mkpath"], &slashed(&src), "/absolute/there")).assert_success();
    assert_copied(&src, &world.path("box/absolute/there"));
    symlink("../outside", world.path("box/link")).unwrap();
    symlink(world.path("outside"), world.path("box/absolute-link")).unwrap();
    let before = snapshot(&world.path("box"));
    for dst in
        ["../outside", "link", "link/x", "absolute-link/", "there/../../outside", "..", "/.."]
    {
        let told = ended(&mut world.push(&[], &src.join("one"), dst));
        let landed = !told.status.success();
        // `/..` of a root is the root itself.
        assert!(landed || dst == "/.." || dst == "..", "{dst}: {told:?}");
    }
    sentinel.assert_untouched();
    assert_eq!(fs::read_dir(world.path("outside")).unwrap().count(), 1);
    assert!(before.keys().all(|path| path.symlink_metadata().is_ok()));
}

#[test]
fn nothing_beside_the_root_can_be_read() {
    let Some(world) = restricted("") else { return };
    fs::create_dir(world.path("outside")).unwrap();
    fs::write(world.path("outside/secret"), "secret").unwrap();
    symlink("../outside", world.path("box/link")).unwrap();
    symlink("../outside/secret", world.path("box/file-link")).unwrap();
    symlink("/", world.path("box/slash")).unwrap();
    fs::create_dir(world.path("got")).unwrap();
    let absolute = world.path("outside/secret");
    let operands = [
        "../outside/secret",
        "../outside/*",
        "../*/secret",
        "link/secret",
        "link/*",
        "slash/etc/passwd",
        "slash/etc/pass*",
        "/etc/passwd",
        "~root/.profile",
        absolute.to_str().unwrap(),
    ];
    for operand in operands {
        let told = ended(&mut world.pull(&[], operand, &world.path("got/")));
        assert!(!told.timed_out && !told.status.success(), "{operand}: {told:?}");
        assert_empty(&world.path("got"));
    }
}

#[test]
fn the_original_command_is_not_trusted() {
    let Some(world) = restricted("--read-only") else { return };
    fs::write(world.path("secret"), "the secret").unwrap();
    let (secret, pwned) = (world.path("secret"), world.path("pwned"));
    let commands = [
        format!("cat {}", secret.display()),
        format!("touch {}", pwned.display()),
        format!("fcpd --stdio; touch {}", pwned.display()),
        "fcpd --stdio --restrict /".into(),
        "fcpd --help".into(),
        "fcpd --listen 127.0.0.1:0".into(),
        String::new(),
    ];
    for command in commands {
        let told = ssh(&world, &command);
        assert!(!told.timed_out, "{command}: {told:?}");
        let said = told.stdout_text() + &told.stderr_text();
        assert!(!said.contains("the secret") && !said.contains("Usage"), "{command}: {said}");
    }
    // What the client asks of the remote shell changes nothing either.
    let remote = format!("touch {}; fcpd --restrict /", pwned.display());
    let args = ["--remote-fcpd", &remote];
    let told = ended(&mut world.pull(&args, &secret, &world.path("got")));
    assert!(!told.status.success() && !world.path("got").exists(), "{told:?}");
    let mut push = world.fcp(&["push"]);
    push.args(args).arg(&secret).arg(at(HOST, "new"));
    assert!(!ended(&mut push).status.success());
    assert!(!pwned.exists() && !world.path("box/new").exists());
}

#[test]
fn a_single_file_goes_in_and_out() {
    let Some(world) = restricted("") else { return };
    let src = world.file("src", 200_000);
    ended(&mut world.push(&[], &src, "dst")).assert_success();
    assert_same_file(&src, &world.path("box/dst"));
    ended(&mut world.pull(&[], "/dst", &world.path("back"))).assert_success();
    assert_same_file(&src, &world.path("back"));
}
