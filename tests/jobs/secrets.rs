//! J06: what was planted as a secret is found nowhere, whatever fails and however much is said.

use std::fs;
use std::path::Path;
use std::process::Command;

use fcp_tests::process::start;
use fcp_tests::sshd::Options;

use crate::programs::ended;
use crate::setup::{After, World, YEAR};

const SECRETS: [&str; 4] =
    ["pl4nted#pass", "pl4nted#from-env", "pl4nted#from-file", "pl4nted#from-cmd"];

/// The secret as it is, percent-encoded and in base64.
fn spellings(secret: &str) -> [Vec<u8>; 3] {
    let percent = secret.replace('#', "%23");
    let script = format!("printf '%s' '{secret}' | base64");
    let base64 = Command::new("sh").arg("-c").arg(script).output().unwrap().stdout;
    [secret.into(), percent.into(), base64.trim_ascii_end().to_vec()]
}

fn assert_absent(what: &str, bytes: &[u8]) {
    for spelling in SECRETS.iter().flat_map(|secret| spellings(secret)) {
        let found = bytes.windows(spelling.len()).any(|window| window == spelling);
        assert!(!found, "{what} holds {}", String::from_utf8_lossy(&spelling));
    }
}

fn assert_absent_below(dir: &Path, but: &[&Path]) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_absent_below(&path, but);
        } else if !but.contains(&path.as_path()) {
            assert_absent(&path.display().to_string(), &fs::read(&path).unwrap_or_default());
        }
    }
}

#[test]
fn j06_no_secret_is_found_anywhere() {
    let options = Options::without_fcpd().line("PasswordAuthentication yes");
    let Some(world) = World::without_faults(options) else { return };
    world.file("a.csv", 10);
    let secret_file = world.path("password");
    fs::write(&secret_file, format!("{}\n", SECRETS[2])).unwrap();
    let chmod = Command::new("chmod").arg("600").arg(&secret_file).status().unwrap();
    assert!(chmod.success());
    let ways = [
        format!("password: \"{}\"", SECRETS[0]),
        "password_env: FCP_TEST_SECRET".to_owned(),
        format!("password_file: \"{}\"", secret_file.display()),
        format!("password_command: \"printf %s '{}'\"", SECRETS[3]),
    ];
    for dialer in ["builtin", "system"] {
        for way in &ways {
            let path = world.job(After::Kept.lines());
            let yaml = fs::read_to_string(&path).unwrap();
            let key = format!("key_file: \"{}\"", world.sshd.path("client_key").display());
            assert!(yaml.contains(&key));
            world.write(&yaml.replace(&key, &format!("{way}\n    dialer: {dialer}")));
            let mut command = world.command(&["run", "J", YEAR, "-vvv"]);
            command.env("RUST_LOG", "trace");
            if way.contains("_env") {
                command.env("FCP_TEST_SECRET", SECRETS[1]);
            }
            let run = start(&mut command);
            let mut seen = Vec::new();
            while let Ok(line) = fs::read(format!("/proc/{}/cmdline", run.pid()))
                && !line.is_empty()
                && seen.len() < 200
            {
                for pid in fcp_tests::processes::descendants(run.pid()) {
                    let of = |name: &str| fs::read(format!("/proc/{pid}/{name}"));
                    let (line, env) = (of("cmdline"), of("environ"));
                    // The shell of a command that prints the secret has it, as its user wrote it.
                    if !way.contains("_command") {
                        seen.push(line.unwrap_or_default());
                    }
                    if !way.contains("_env") {
                        seen.push(env.unwrap_or_default());
                    }
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            let ran = run.finish(std::time::Duration::from_secs(60));
            // None of them is the right one: the refusal is the interesting text.
            ran.assert_code(10);
            assert_absent(way, &ran.stderr);
            assert_absent(way, &ran.stdout);
            seen.iter().for_each(|bytes| assert_absent("a process", bytes));
            assert_absent_below(&world.path("home"), &[]);
            for args in [["list", "--json"], ["check", "-v"]] {
                let mut command = world.command(&args);
                let told = ended(command.env("FCP_TEST_SECRET", SECRETS[1]));
                assert_absent("what job tells", &told.stderr);
                assert_absent("what job tells", &told.stdout);
            }
        }
    }
}

#[test]
fn j05_a_password_that_others_can_read_is_refused_with_what_mends_it() {
    use std::os::unix::fs::PermissionsExt;
    let Some(world) = World::new() else { return };
    let path = world.job(After::Kept.lines());
    let yaml = fs::read_to_string(&path).unwrap();
    world.write(&yaml.replacen("    user:", "    password: \"x\"\n    user:", 1));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let ran = world.run();
    ran.assert_code(1);
    assert!(ran.stderr_text().contains("chmod 600"), "{}", ran.stderr_text());
}

#[test]
fn s19_an_unknown_or_changed_server_gets_nothing() {
    let Some(world) = World::new() else { return };
    world.file("a.csv", 10);
    world.job(After::Kept.lines());
    let known = fs::read_to_string(world.sshd.path("known_hosts")).unwrap();
    fs::write(world.path("none"), "").unwrap();
    let run_with = |file: &str| {
        let mut command = world.command(&["run", "J", YEAR]);
        ended(command.env("FCP_KNOWN_HOSTS", world.path(file)))
    };
    run_with("none").assert_code(10);
    // The client's key in the place of the server's.
    let other = fs::read_to_string(world.sshd.path("client_key.pub")).unwrap();
    let name = known.split(' ').next().unwrap();
    fs::write(world.path("changed"), format!("{name} {other}")).unwrap();
    let ran = run_with("changed");
    ran.assert_code(10);
    assert!(ran.stderr_text().to_lowercase().contains("changed"), "{}", ran.stderr_text());
    assert_eq!(world.sshd.logins(), 0);
    run_with("absent").assert_code(10);
}
