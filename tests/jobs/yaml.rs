//! The file that users of the format have, run as it is.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use fcp_tests::account::Account;
use fcp_tests::sshd::Options;

use crate::programs::ended;
use crate::setup::{After, Originals, World, YEAR, age, done};

/// As its users write it: upper-case values, trailing comments, quoted names, a password with `#`.
fn epsilon(world: &World, account: &Account, done: &str) -> String {
    let port = world.sshd.address().port();
    let (user, base, out) = (account.name(), account.home().join("SDR"), world.path("out"));
    format!(
        r#"EPSILON:
  name: "EPSILON"
  description: "SDR EPSILON FILES"
  source:
    type: SFTP                  # LOCAL | SFTP
    host: "127.0.0.1"
    port: {port}
    user: "{user}"
    password: "pass232_#"
    base_path: "{}"
  destination:
    type: LOCAL                 # LOCAL | SFTP (then host, port, user, password, base_path)
    path: "{}"
  file_pattern: "sdr.bn4k.BorderNet-SBC.itsegh2vsbc"   # regex
  transfer:
    large_file_threshold_mb: 500
    chunk_size_mb: 32
    resume_enabled: true
    verify_integrity: false
    show_progress: true
    retry_attempts: 3
    retry_delay_seconds: 10
{done}  min_file_age_minutes: 30
  max_workers: 5
"#,
        base.display(),
        out.display()
    )
}

fn set_password(account: &Account) {
    let mut child = Command::new("chpasswd").stdin(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{}:pass232_#", account.name()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_format_runs_unchanged_with_every_action() {
    let options = Options::without_fcpd().line("PasswordAuthentication yes");
    let Some(world) = World::without_faults(options) else { return };
    let Some(account) = Account::new(&world.sshd, "/bin/sh") else { return };
    set_password(&account);
    for after in After::ALL {
        let month = account.home().join("SDR/2024/202411");
        fs::create_dir_all(month.join("DONE")).unwrap();
        let names = [1, 2, 3].map(|n| format!("sdr.bn4k.BorderNet-SBC.itsegh2vsbc.{n}.csv"));
        for name in &names {
            fs::write(month.join(name), format!("{after:?} {name}\n").repeat(1000)).unwrap();
            age(&month.join(name), 3600);
        }
        fs::write(month.join("other.csv"), "not ours").unwrap();
        fs::write(month.join("sdr.bn4k.BorderNet-SBC.itsegh2vsbc.young"), "not yet").unwrap();
        let mut chown = Command::new("chown");
        chown.arg("-R").arg(account.name()).arg(account.home());
        assert!(chown.status().unwrap().success());

        world.write(&epsilon(&world, &account, after.lines()));
        let ran = ended(&mut world.command(&["run", "EPSILON", YEAR]));
        ran.assert_success();

        for name in &names {
            let to = world.path("out/2024/202411").join(name);
            let content = format!("{after:?} {name}\n").repeat(1000);
            assert_eq!(fs::read_to_string(to).unwrap(), content, "{after:?}");
            let kept = month.join(name).exists();
            assert_eq!(kept, after == After::Kept, "{after:?} {name}");
            assert_eq!(month.join(done(name)).exists(), after == After::Moved);
            assert_eq!(month.join(done(&format!("{name}.zip"))).exists(), after == After::Zipped);
        }
        assert!(month.join("other.csv").exists());
        assert!(!world.path("out/2024/202411/other.csv").exists());
        assert!(month.join("sdr.bn4k.BorderNet-SBC.itsegh2vsbc.young").exists());
        fs::remove_dir_all(account.home().join("SDR")).unwrap();
        fs::remove_dir_all(world.path("out")).unwrap();
        fs::create_dir(world.path("out")).unwrap();
    }
}

#[test]
fn all_four_combinations_deliver() {
    let Some(world) = World::new() else { return };
    world.file("a.csv", 100_000);
    world.file("empty", 0);
    world.file("b \u{e9}'\"$(x).csv", 3_000_000);
    let originals = Originals::of(&world);
    type Job = fn(&World, &str) -> std::path::PathBuf;
    let local: Job = |world, more| {
        let (from, to) = (world.path("in"), world.path("out"));
        world.write(&format!(
            "J:\n  source: {{type: local, path: \"{}\"}}\n  destination: {{type: local, path: \"{}\"}}\n{more}",
            from.display(),
            to.display()
        ))
    };
    for (name, job) in [
        ("down", World::job as Job),
        ("up", World::upload),
        ("across", World::across),
        ("local", local),
    ] {
        job(&world, After::Kept.lines());
        // Each combination has a ledger of its own.
        let ran = ended(world.command(&["run", "J", YEAR]).env("XDG_STATE_HOME", world.path(name)));
        ran.assert_success();
        originals.assert_delivered(&world, After::Kept);
        fs::remove_dir_all(world.path("out")).unwrap();
        fs::create_dir(world.path("out")).unwrap();
    }
}
