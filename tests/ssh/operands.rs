//! What stands behind `host:`: no shell reads it, home directories and globs are the server's.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use fcp_tests::account::Account;
use fcp_tests::sshd::HOST;

use crate::programs::ended;
use crate::setup::{World, assert_copied, assert_same_file, assert_told, at, at_user, bytes};

/// Names that a shell, an option parser or a glob reads as something else.
const NAMES: [&[u8]; 20] = [
    b"with space",
    b" around ",
    b"quote'\"",
    b"$(touch pwned)",
    b"`touch pwned`",
    b"$HOME",
    b"{a,b}",
    b"new\nline",
    b"\xff\xfe",
    b"latin-\xe9",
    b"-rf",
    b"--delete",
    b";&|<>()!#",
    b"back\\slash",
    b"*?[a-z]",
    b"~root",
    b"host:path",
    b"per%2fcent",
    b"tab\t",
    b"\x01\x1b[31m",
];

#[test]
fn names_need_no_quoting_for_the_remote_shell() {
    let Some(world) = World::new() else { return };
    let src = world.file("src", 1_000);
    fs::create_dir(world.path("there")).unwrap();
    for name in NAMES {
        let there = world.path("there").join(bytes(name));
        ended(&mut world.push(&[], &src, &there)).assert_success();
        assert_same_file(&src, &there);
        let back = world.path("back");
        ended(&mut world.pull(&[], &there, &back)).assert_success();
        // What looks like a pattern might be many names, and so wants a directory.
        let may_be_many = name.iter().any(|byte| b"*?[\\".contains(byte));
        assert_eq!(back.is_dir(), may_be_many, "{}", name.escape_ascii());
        let arrived = if may_be_many { back.join(bytes(name)) } else { back.clone() };
        assert_same_file(&src, &arrived);
        fs::remove_file(&arrived).unwrap();
        let _ = fs::remove_dir(&back);
    }
    let names = fs::read_dir(world.path("there")).unwrap().count();
    assert_eq!(names, NAMES.len());
}

#[test]
fn directories_of_any_name_go_there_and_back() {
    let Some(world) = World::new() else { return };
    let src = world.small("src");
    for name in NAMES {
        let there = world.path("there").join(bytes(name));
        ended(&mut world.push(&["--mkpath"], &src.join(""), there.join(""))).assert_success();
        assert_copied(&src, &there);
    }
}

#[test]
fn relative_paths_and_tildes_are_below_the_home_directory() {
    let Some(world) = World::new() else { return };
    let Some(account) = Account::new(&world.sshd, "/bin/bash") else { return };
    let Some(other) = Account::new(&world.sshd, "/bin/sh") else { return };
    let file = world.file("file", 1_000);
    let push = |dst: OsString| {
        ended(world.fcp(&["push", "--mkpath"]).arg(&file).arg(at_user(account.name(), dst)))
            .assert_success();
    };
    let below_home = |path: &str| account.home().join(path);
    push("".into());
    assert_same_file(&file, &below_home("file"));
    let cases: [(&str, &str); 9] = [
        ("plain", "plain"),
        ("sub/leaf", "sub/leaf"),
        ("~/tilde", "tilde"),
        ("./~dotted", "~dotted"),
        ("-rf", "-rf"),
        ("$(id)", "$(id)"),
        ("with space", "with space"),
        ("sub/~inner", "sub/~inner"),
        ("~/$HOME", "$HOME"),
    ];
    for (operand, path) in cases {
        push(operand.into());
        assert_same_file(&file, &below_home(path));
    }
    push(format!("~{}/named", account.name()).into());
    assert_same_file(&file, &below_home("named"));
    // Somebody else's home is found, and theirs is what is read.
    other.write("theirs", "of another");
    let pull = [at_user(account.name(), format!("~{}/theirs", other.name()))];
    ended(world.fcp(&["pull"]).args(pull).arg(world.path("theirs"))).assert_success();
    assert_eq!(fs::read(world.path("theirs")).unwrap(), b"of another");
    let unknown = at_user(account.name(), "~nobody-has-this-name/x");
    let told = ended(world.fcp(&["pull"]).arg(unknown).arg(world.path("none")));
    assert!(!told.status.success() && !world.path("none").exists(), "{told:?}");
}

#[test]
fn the_host_expands_globs_and_nothing_else() {
    let Some(world) = World::new() else { return };
    let there = world.path("there");
    fs::create_dir(&there).unwrap();
    for name in ["a.txt", "b.txt", ".hidden.txt", "c.bin", "{a,b}.txt", "[x].txt"] {
        fs::write(there.join(name), name).unwrap();
    }
    let pull = |patterns: &[&str], to: &str| {
        fs::create_dir(world.path(to)).unwrap();
        let operands = patterns.iter().map(|p| at(HOST, there.join(p)));
        ended(world.fcp(&["pull"]).args(operands).arg(world.path(to).join("")))
    };
    let names = |to: &str| {
        let entries = fs::read_dir(world.path(to)).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names.iter().map(|n| n.to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    pull(&["*.txt"], "all").assert_success();
    assert_eq!(names("all"), ["[x].txt", "a.txt", "b.txt", "{a,b}.txt"]);
    pull(&["[ab].txt"], "class").assert_success();
    assert_eq!(names("class"), ["a.txt", "b.txt"]);
    // A name that exists is that file.
    pull(&["{a,b}.txt", "[x].txt"], "literal").assert_success();
    assert_eq!(names("literal"), ["[x].txt", "{a,b}.txt"]);
    let told = pull(&["*.none", "a.txt"], "partly");
    assert_told(&told, 23, &["*.none"]);
    assert_eq!(names("partly"), ["a.txt"]);
}

#[test]
fn urls_name_hosts_behind_ssh_too() {
    let Some(world) = World::new() else { return };
    let file = world.file("with space", 1_000);
    let url = |path: &std::path::Path| {
        let path = path.to_str().unwrap().replace(' ', "%20");
        format!("ssh://{}@{HOST}:{}{path}", world.sshd.user(), world.sshd.address().port())
    };
    let there = world.path("there is");
    ended(world.fcp(&["push"]).arg(&file).arg(url(&there))).assert_success();
    ended(world.fcp(&["pull"]).arg(url(&there)).arg(world.path("back"))).assert_success();
    assert_same_file(&file, &world.path("back"));
}

#[test]
fn a_colon_behind_a_slash_is_a_local_name() {
    let Some(world) = World::new() else { return };
    let file = world.file("file", 1_000);
    ended(world.fcp(&[]).arg(&file).arg("./a:b").current_dir(world.dir.path())).assert_success();
    assert_same_file(&file, &world.path("a:b"));
    assert_eq!(world.sshd.logins(), 0);
}

#[test]
fn hosts_and_users_that_a_shell_or_ssh_would_obey_are_refused() {
    let Some(mut world) = World::new() else { return };
    // Where a name reaches a ProxyCommand, a shell reads it.
    world.ssh_lines("ProxyCommand sh -c 'touch %h %r; exit 1'");
    let file = world.file("file", 10);
    let pwned = world.path("pwned");
    let operands = [
        "-oProxyCommand=touch pwned:x",
        "-v:x",
        "-lroot@fcptest:x",
        "ssh://-oProxyCommand=x/y",
        "a;touch pwned@fcptest:x",
        "$(touch pwned)@fcptest:x",
        "`touch pwned`:x",
        "fcptest|touch pwned:x",
        "fcptest\ntouch pwned:x",
        "user'@fcptest:x",
    ];
    for operand in operands {
        for args in [["push", "--"], ["push", "-v"]] {
            if args[1] != "--" && operand.starts_with('-') {
                continue;
            }
            let mut command = world.fcp(&args);
            command.arg(&file).arg(operand).current_dir(world.dir.path());
            let told = ended(&mut command);
            assert_eq!(told.code(), Some(1), "{operand:?}: {told:?}");
            assert!(!told.stderr.contains(&0x1b), "{told:?}");
        }
    }
    assert!(!pwned.exists());
    let names = fs::read_dir(world.dir.path()).unwrap().map(|e| e.unwrap().file_name());
    let names: Vec<_> = names.filter(|n| !n.as_bytes().starts_with(b"home")).collect();
    assert_eq!(names, ["file"], "somebody obeyed");
}
