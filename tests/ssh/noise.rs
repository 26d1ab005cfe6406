//! What login shells and servers say before the protocol, and shells that are not bash.

use std::path::Path;

use fcp_tests::account::Account;
use fcp_tests::sshd::Options;

use crate::programs::{FCPD, ended, slashed};
use crate::setup::{World, assert_copied, at_user};

/// Start-up files that speak on both streams.
const BOURNE: &str =
    "echo 'Welcome to this host!'\necho 'and an error' >&2\nprintf '\\000\\377\\001'\n";
const C_SHELL: &str = "echo 'Welcome to this host!'\nsh -c 'echo and an error >&2'\n";

/// A tree goes to the account's home and back, over every way that ends in its shell.
#[track_caller]
fn assert_speaks(world: &World, account: &Account, tag: &str) {
    let src = world.path(format!("src-{tag}"));
    fcp_tests::tree::small(&src);
    for way in ["stdio", "auto"] {
        let there = account.home().join(format!("there-{way}"));
        let back = world.path(format!("back-{tag}-{way}"));
        let remote = at_user(account.name(), slashed(&there));
        let args = ["--via", way, "-j", "3"];
        ended(world.fcp(&["push"]).args(args).arg(slashed(&src)).arg(&remote)).assert_success();
        assert_copied(&src, &there);
        ended(world.fcp(&["pull"]).args(args).arg(&remote).arg(&back)).assert_success();
        assert_copied(&src, &back);
    }
}

#[test]
fn start_up_files_of_bash_may_print() {
    let Some(world) = World::new() else { return };
    let Some(account) = Account::new(&world.sshd, "/bin/bash") else { return };
    for file in [".bashrc", ".bash_profile", ".profile"] {
        account.write(file, BOURNE);
    }
    assert_speaks(&world, &account, "bash");
}

#[test]
fn start_up_files_of_tcsh_may_print() {
    let Some(world) = World::new() else { return };
    let Some(account) = Account::new(&world.sshd, "/bin/tcsh") else { return };
    account.write(".cshrc", C_SHELL);
    assert_speaks(&world, &account, "tcsh");
}

#[test]
fn quiet_shells_of_other_kinds_work() {
    let Some(world) = World::new() else { return };
    for shell in ["/bin/dash", "/bin/sh", "/bin/csh", "/bin/zsh", "/usr/bin/fish"] {
        let Some(account) = Account::new(&world.sshd, shell) else { continue };
        let tag = Path::new(shell).file_name().unwrap().to_str().unwrap();
        assert_speaks(&world, &account, tag);
    }
}

#[test]
fn noise_just_below_the_limit_is_skipped_and_above_it_is_told() {
    let Some(world) = World::new() else { return };
    let src = world.small("src");
    for (kib, works) in [(60, true), (80, false)] {
        let Some(account) = Account::new(&world.sshd, "/bin/bash") else { return };
        account.write(".bashrc", format!("head -c {} /dev/zero | tr '\\0' x\n", kib << 10));
        let remote = at_user(account.name(), "there/");
        let told = ended(world.fcp(&["push"]).arg(slashed(&src)).arg(remote));
        if works {
            told.assert_success();
            assert_copied(&src, &account.home().join("there"));
        } else {
            assert!(!told.timed_out && !told.status.success(), "{told:?}");
            assert!(!account.home().join("there").exists());
        }
    }
}

#[test]
fn a_shell_that_prints_and_leaves_is_told_with_what_it_said() {
    let Some(world) = World::new() else { return };
    let Some(account) = Account::new(&world.sshd, "/bin/bash") else { return };
    account.write(".bashrc", "echo 'This account is \x1b[31mclosed.'; exit 3\n");
    let src = world.small("src");
    let told = ended(world.fcp(&["push"]).arg(&src).arg(at_user(account.name(), "x")));
    assert!(!told.timed_out && !told.status.success(), "{told:?}");
    assert!(told.stderr_text().contains("This account is"), "{told:?}");
    assert!(!told.stderr.contains(&0x1b), "what a host says is escaped: {told:?}");
}

#[test]
fn banners_go_to_the_user_and_not_into_the_protocol() {
    let dir = crate::programs::scratch();
    let banner = dir.path().join("banner");
    std::fs::write(&banner, "Authorized use only.\n".repeat(20)).unwrap();
    let options = Options::with_fcpd(FCPD).line(format!("Banner {}", banner.display()));
    let Some(world) = World::with(options.line("PrintMotd yes")) else { return };
    let [pushed, _] = world.assert_works(&["--json"]);
    assert!(pushed.stdout.starts_with(b"{"), "{pushed:?}");
}
