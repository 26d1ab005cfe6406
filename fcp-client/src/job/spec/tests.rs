//! Cases J01 to J13 of job files, S27 and S28 where they concern them.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::file::understand;
use super::*;
use crate::location::sftp::dial::{Credential, Dialer, HostKeyRule};

/// As it stands in the issue and in its users' files.
const EXAMPLE: &str = r#"
EPSILON:
  name: "EPSILON"
  description: "SDR EPSILON FILES"
  source:
    type: SFTP                  # LOCAL | SFTP
    host: "127.0.0.1"
    port: 22
    user: "user21"
    password: "pass232_#"
    base_path: "/F:/FROM_251/EPSILON/SDR"
  destination:
    type: LOCAL                 # LOCAL | SFTP (then host, port, user, password, base_path)
    path: "/CDR/SBC/EPSILON"
  file_pattern: "sdr.bn4k.BorderNet-SBC.itsegh2vsbc"   # regex
  transfer:
    large_file_threshold_mb: 500
    chunk_size_mb: 32
    resume_enabled: true
    verify_integrity: false
    show_progress: true
    retry_attempts: 3
    retry_delay_seconds: 10
  done:
    action: MOVE                # MOVE | DELETE | KEEP
    zip_before_move: true
  min_file_age_minutes: 30
  max_workers: 5
"#;

const SOURCE: &str = "  source: {type: SFTP, host: h, user: u, base_path: /in}\n";
const DESTINATION: &str = "  destination: {type: LOCAL, path: /out}\n";

fn env(name: &str) -> Option<OsString> {
    match name {
        "HOME" => Some("/home/a".into()),
        "PASS" => Some("from-env".into()),
        _ => None,
    }
}

fn read(yaml: &str) -> Result<JobFile, SpecError> {
    understand(Path::new("/etc/j/jobs.yaml"), yaml.as_bytes(), true, &env)
}

/// A job with these lines besides source and destination.
fn with(lines: &str) -> String {
    format!("A:\n{SOURCE}{DESTINATION}  {}\n", lines.replace('\n', "\n  "))
}

fn spec(yaml: &str) -> JobSpec {
    let mut file = read(yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"));
    file.jobs.remove(0).spec.unwrap_or_else(|e| panic!("{yaml}: {e:?}"))
}

/// All that is wrong with the first job, or with the file.
fn why(yaml: &str) -> String {
    match read(yaml) {
        Err(error) => error.to_string(),
        Ok(mut file) => {
            let errors = file.jobs.remove(0).spec.err().unwrap_or_default();
            errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        }
    }
}

fn refused(lines: &str, text: &str) {
    let error = why(&with(lines));
    assert!(error.contains(text), "{lines:?} gives {error:?} and not {text:?}");
}

/// A source with these keys besides its type.
fn source(keys: &str) -> String {
    format!("A:\n  source: {{type: sftp, {keys}}}\n{DESTINATION}")
}

fn login(keys: &str) -> LoginSpec {
    match spec(&source(&format!("host: h, base_path: /x, {keys}"))).source {
        End::Sftp { login, .. } => *login,
        End::Local { .. } => panic!("no sftp"),
    }
}

fn password(keys: &str) -> Result<String, String> {
    let login = login(keys).resolve_with(&env).map_err(|e| e.to_string())?;
    match &login.credentials[..] {
        [Credential::Password(secret)] => Ok(secret.reveal().to_owned()),
        other => Err(format!("{other:?}")),
    }
}

fn base_path(path: &str) -> Result<String, String> {
    let yaml = source(&format!("host: h, base_path: '{path}'"));
    match read(&yaml).expect("a file").jobs.remove(0).spec {
        Ok(JobSpec { source: End::Sftp { base_path, .. }, .. }) => {
            Ok(String::from_utf8(base_path).expect("text"))
        }
        _ => Err(why(&yaml)),
    }
}

#[test]
fn the_file_of_the_issue_is_read_as_it_is() {
    let job = spec(EXAMPLE);
    assert_eq!((job.key.as_str(), job.name.as_str()), ("EPSILON", "EPSILON"));
    assert_eq!(job.description, "SDR EPSILON FILES");
    assert!(
        matches!(&job.destination, End::Local { path } if *path == Path::new("/CDR/SBC/EPSILON"))
    );
    let End::Sftp { login, base_path } = &job.source else { panic!("no sftp") };
    assert_eq!(base_path, b"/F:/FROM_251/EPSILON/SDR");
    assert_eq!((login.host.as_str(), login.port), ("127.0.0.1", Some(22)));
    assert_eq!(login.user.as_deref(), Some("user21"));
    let login = login.resolve().expect("a login");
    assert!(
        matches!(&login.credentials[..], [Credential::Password(p)] if p.reveal() == "pass232_#")
    );
    assert_eq!((login.host_key, login.dialer), (HostKeyRule::Known, Dialer::Auto));
    assert!(job.file_pattern.is_match(b"x.sdr.bn4k.BorderNet-SBC.itsegh2vsbc.7"));
    let mib = 1 << 20;
    let transfer = Transfer {
        large_file_threshold: 500 * mib,
        chunk_size: 32 * mib,
        resume: true,
        verify_integrity: false,
        show_progress: true,
        attempts: 3,
        retry_delay: Duration::from_secs(10),
    };
    assert_eq!(job.transfer, transfer);
    assert_eq!(job.done, Done { action: Action::Move, zip: true, folder: "DONE".into() });
    assert_eq!((job.min_age, job.max_workers), (Duration::from_secs(1800), 5));
    // The defaults are the same.
    assert_eq!(spec(&with("")).transfer, transfer);
}

#[test]
fn defaults_are_those_of_the_table() {
    let job = spec(&with(""));
    assert_eq!((job.name.as_str(), job.description.as_str()), ("A", ""));
    assert_eq!(job.done, Done { action: Action::Keep, zip: false, folder: "DONE".into() });
    assert_eq!((job.layout, job.overwrite), (Layout::Tree, Overwrite::Larger));
    assert_eq!((job.min_age, job.stable, job.clock), Default::default());
    assert_eq!((job.max_workers, job.max_connections), (5, 4));
    assert_eq!(job.folder_pattern.to_string(), "{yyyy}/{yyyy}{mm}");
    assert_eq!(job.log_dir, Path::new("/home/a/.local/state/fcp"));
    assert_eq!((job.marker, job.on_success, job.on_failure), (None, None, None));
    assert!(job.file_pattern.is_match(b"anything"));
}

#[test]
fn all_four_combinations_and_any_case() {
    let ends = ["{type: Sftp, host: h, base_path: /1}", "{type: local, path: /2}"];
    for from in ends {
        for to in ["{type: SFTP, host: g, base_path: /3}", "{type: LOCAL, path: /4}"] {
            spec(&format!("A: {{source: {from}, destination: {to}}}"));
        }
    }
    for action in ["MOVE", "move", "Move"] {
        assert_eq!(spec(&with(&format!("done: {{action: {action}}}"))).done.action, Action::Move);
    }
    let job = spec(&with("layout: FLAT\noverwrite: Newer\nclock: OURS\ntransfer:\ndone:"));
    assert_eq!(
        (job.layout, job.overwrite, job.clock),
        (Layout::Flat, Overwrite::Newer, ClockRule::Ours)
    );
    spec(&format!("A:\n{SOURCE}  destination: {{type: LOCAL, base_path: /out}}"));
    spec(&format!("A:\n  source: {{type: SFTP, host: h, path: /in}}\n{DESTINATION}"));
}

#[test]
fn keys_that_users_have_in_three_places() {
    for place in ["", "done", "transfer"] {
        let keys = "zip_before_move: true\nmin_file_age_minutes: 2\nmax_workers: 7";
        let keys = match place {
            "" => keys.to_owned(),
            place => format!("{place}:\n  {}", keys.replace('\n', "\n  ")),
        };
        let action = if place == "done" { "\n  action: MOVE" } else { "\ndone: {action: MOVE}" };
        let job = spec(&with(&(keys + action)));
        assert!(job.done.zip, "{place}");
        assert_eq!((job.min_age, job.max_workers), (Duration::from_secs(120), 7), "{place}");
    }
    spec(&with("max_workers: 3\ndone: {max_workers: 3}"));
    refused(
        "max_workers: 3\ndone: {max_workers: 4}",
        "done.max_workers: it says another thing than max_workers",
    );
    refused("done: {max_workers: 3}\ntransfer: {max_workers: 4}", "than done.max_workers");
    let file = read(&with("zip_before_move: yes")).expect("a file");
    assert!(file.jobs[0].warnings.iter().any(|w| w.contains("not MOVE")));
}

#[test]
fn j01_what_is_missing_or_unknown_is_named() {
    let error = why(&with("max_worker: 3"));
    assert_eq!(
        error,
        "/etc/j/jobs.yaml:4: job A: max_worker: unknown key; did you mean max_workers?"
    );
    refused("chunk_size_mb: 3", "it belongs under transfer");
    refused(
        "transfer: {chunk_size: 3}",
        "transfer.chunk_size: unknown key; did you mean chunk_size_mb?",
    );
    refused("done: {Action: MOVE}", "did you mean action?");
    refused("host: h", "it belongs under source or destination");
    assert!(why(&format!("A:\n{SOURCE}")).contains("job A: destination: it is missing"));
    assert!(why(&format!("A:\n{DESTINATION}")).contains("source: it is missing"));
    assert!(
        why(&format!("A:\n  source: {{host: h}}\n{DESTINATION}"))
            .contains("source.type: it is missing")
    );
    assert!(why(&source("base_path: /x")).contains("source.host: it is missing"));
    assert!(why(&source("host: h")).contains("source.base_path: it is missing"));
    assert!(why(&source("host: h, base_path: /x, path: /x")).contains("keep one"));
    let local = format!("A:\n  source: {{type: LOCAL, path: /x, password: p}}\n{DESTINATION}");
    assert!(why(&local).contains("source.password: it belongs to an end with `type: SFTP`"));
    // All mistakes at once.
    assert_eq!(why(&with("a1: 1\nb2: 2\nmax_workers: x")).lines().count(), 3);
}

#[test]
fn j01_wrong_types_say_what_is_expected() {
    refused("max_workers: many", "max_workers: a whole number from 1 to 64 is needed");
    refused("max_workers: [3]", "max_workers: one value is needed here, not a list");
    refused("max_workers: {a: 3}", "not keys and values");
    refused("max_workers:", "a value is missing");
    refused("transfer: 3", "transfer: keys and values are needed here");
    refused(
        "transfer: {resume_enabled: maybe}",
        "transfer.resume_enabled: true or false is needed",
    );
    refused("done: {action: MOV}", "one of MOVE, DELETE, KEEP is needed; did you mean MOVE?");
    refused("done: MOVE", "keys and values are needed");
    refused("layout: trees", "did you mean tree?");
    assert!(why("A: [1]\n").contains("unknown key"));
    assert!(why("- a\n- b\n").contains("jobs are needed"));
    assert!(why("hello").contains("jobs are needed"));
    assert!(read("").expect("empty").jobs.is_empty());
    assert!(read("# nothing\n").expect("empty").jobs.is_empty());
}

#[test]
fn j01_jobs_and_keys_that_are_there_twice() {
    refused(
        "max_workers: 3\nmax_workers: 3",
        ":5: job A: max_workers: it is there twice, in line 4",
    );
    let twice = with("") + &with("");
    assert!(why(&twice).contains("A is there twice, in line 1"), "{}", why(&twice));
    assert!(
        why(&source("host: h, host: g, base_path: /x")).contains("source.host: it is there twice")
    );
    assert!(why("log_dir: /a\nlog_dir: /b\n").contains("twice"));
}

#[test]
fn j01_the_top_has_jobs_and_a_log_dir() {
    let job = spec(&format!("log_dir: /var/log/x\n{}", with("")));
    assert_eq!(job.log_dir, Path::new("/var/log/x"));
    let job = spec(&format!("log_dir: /var/log/x\n{}", with("log_dir: ~/l")));
    assert_eq!(job.log_dir, Path::new("/home/a/l"));
    assert_eq!(spec(&with("log_dir: logs")).log_dir, Path::new("/etc/j/logs"));
    assert!(why("log_dirs: /x\n").contains("did you mean log_dir?"));
    assert!(why("max_workers: 3\n").contains("unknown key"));
    assert!(why("host: h\n").contains("is it indented?"));
    assert!(why("log_dir: [1]\n").contains("log_dir: a directory"));
}

#[test]
fn one_bad_job_does_not_stop_the_others() {
    let file =
        read(&(with("file_pattern: '('") + &with("").replace("A:\n", "B:\n"))).expect("read");
    assert!(file.job("A").expect("A").spec.is_err());
    assert!(file.job("B").expect("B").spec.is_ok());
    let error = file.job("BB").expect_err("none").to_string();
    assert!(
        error.contains("there is no job BB") && error.contains("The jobs are: A, B"),
        "{error}"
    );
    let error = file.job("../../x").expect_err("none").to_string();
    assert!(error.contains("no job ../../x"), "{error}");
}

#[test]
fn j02_a_pattern_that_is_none_or_too_much() {
    refused("file_pattern: '(a'", "file_pattern: not a regex that can be used: unclosed group");
    refused("file_pattern: 'a{1000}{1000}'", "not a regex that can be used");
    refused("file_pattern: '(?=x)'", "look-around");
    refused(&format!("file_pattern: {}", "a".repeat(5000)), "at most 4096 bytes");
    refused(&format!("file_pattern: '{}{}'", "(".repeat(1000), ")".repeat(1000)), "not a regex");
    let job = spec(&with("file_pattern: '(a+)+$'"));
    let (name, began) = (vec![b'a'; 1 << 20], Instant::now());
    assert!(!job.file_pattern.is_match(&[name, vec![b'!']].concat()));
    assert!(began.elapsed() < Duration::from_secs(5));
    // Unanchored, on bytes, with what people write.
    for (pattern, name, fits) in [
        ("b", &b"abc"[..], true),
        ("^b", b"abc", false),
        (r"\d{4}\.csv$", b"x2024.csv", true),
        ("(?i)ABC", b"xabcx", true),
        (".", b"\xff", true),
        ("ö", "xöx".as_bytes(), true),
    ] {
        let job = spec(&with(&format!("file_pattern: '{pattern}'")));
        assert_eq!(job.file_pattern.is_match(name), fits, "{pattern}");
    }
}

#[test]
fn j03_texts_stay_texts() {
    for (written, is) in [
        ("no", "no"),
        ("0123", "0123"),
        ("1e5", "1e5"),
        ("0x1F", "0x1F"),
        ("12:30", "12:30"),
        ("true", "true"),
        ("pass232_#", "pass232_#"),
        ("'it''s'", "it's"),
        ("\"a\\tb\"", "a\tb"),
        ("!!str 12", "12"),
        ("\"null\"", "null"),
    ] {
        let yaml = format!(
            "A:\n  source:\n    type: SFTP\n    host: h\n    base_path: /x\n    password: {written}\n{DESTINATION}"
        );
        let End::Sftp { login, .. } = spec(&yaml).source else { panic!("no sftp") };
        let login = login.resolve_with(&env).expect(written);
        assert!(
            matches!(&login.credentials[..], [Credential::Password(p)] if p.reveal() == is),
            "{written}"
        );
    }
    assert_eq!(login("user: no").user.as_deref(), Some("no"));
}

#[test]
fn j03_numbers_that_are_read_in_two_ways() {
    assert!(why(&source("host: h, base_path: /x, port: 022")).contains("octal"));
    for bad in ["0x16", "0o26", "2_2", "+22", "22.0", "'22 '", "1e1", ".inf", "２２"] {
        let error = why(&source(&format!("host: h, base_path: /x, port: {bad}")));
        assert!(error.contains("source.port: a whole number from 1 to 65535"), "{bad}: {error}");
    }
    assert_eq!(login("port: '22'").port, Some(22));
}

#[test]
fn j03_yaml_that_is_none_or_too_much() {
    let text = |yaml: &str| why(yaml);
    assert!(
        text("A:\n\tsource: x\n").contains("a tab in the indentation"),
        "{}",
        text("A:\n\tb: x\n")
    );
    assert!(text("A: &a [*a]\n").contains("jobs.yaml:1: "), "{}", text("A: &a [*a]\n"));
    assert!(text("A: *nobody\n").contains("unknown anchor"));
    assert!(text("A: b: c\n").contains(":1: not YAML"));
    assert!(text("A: !!python/object:os.system x\n").contains("a tag"));
    assert!(text("A: !include /etc/passwd\n").contains("a tag"));
    assert!(text("%YAML 1.1\n---\nA: 1\n").contains("not YAML"));
    assert!(text("A: 1\n---\nB: 1\n").contains("a second document"));
    assert!(text("? [a]\n: b\n").contains("a key must be"));
    assert!(text("A: \"x\0y\"\n").contains(":1: a control character (U+0000)"));
    assert!(text("A: x\n\0B: y\n").contains(":2: a control character"));
    assert!(text("A: @x\n").contains("needs quotes"));
    let bytes = understand(Path::new("f"), b"A: 1\nB: \xff\n", true, &env).expect_err("utf-8");
    assert_eq!(bytes.to_string(), "f:2: it is not UTF-8");
    spec(&format!("\u{feff}{}", with("").replace('\n', "\r\n")));
    spec(&format!("---\n{}...\n", with("")));
}

#[test]
fn j03_bombs_do_not_go_off() {
    let mut bomb = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("b{level}: &a{level} [{aliases}]\n");
    }
    let began = Instant::now();
    assert!(why(&bomb).contains("with its aliases"), "{}", why(&bomb));
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 1000].join(","));
    assert!(why(&long).contains("with its aliases"));
    for deep in ["[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000)] {
        assert!(read(&deep).is_err());
    }
    let keys: String = (0..100_000).map(|n| format!("{n}: \n")).collect();
    assert!(read(&keys).is_err());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn j03_anchors_and_merges_are_for_what_jobs_share() {
    let yaml = format!(
        "A:\n{SOURCE}{DESTINATION}  transfer: &t {{chunk_size_mb: 8, retry_attempts: 2}}\n\
         B:\n{SOURCE}{DESTINATION}  transfer:\n    <<: *t\n    chunk_size_mb: 4\n"
    );
    let file = read(&yaml).expect("read");
    let b = file.job("B").expect("B").spec.as_ref().expect("good");
    assert_eq!((b.transfer.chunk_size, b.transfer.attempts), (4 << 20, 2));
    assert!(why("A:\n  <<: x\n").contains("<< takes a mapping"));
}

#[test]
fn j04_numbers_out_of_range() {
    for (key, bad) in [
        ("max_workers", ["0", "-1", "65", "99999999999999999999"]),
        ("max_connections", ["0", "-1", "65", "1.5"]),
        ("min_file_age_minutes", ["-1", "5256001", "1e3", ".nan"]),
        ("stable_seconds", ["-1", "3601", "x", "1."]),
    ] {
        for bad in bad.iter().filter(|bad| **bad != "1.") {
            refused(&format!("{key}: {bad}"), &format!("{key}: a "));
        }
    }
    for (key, bad) in [
        ("chunk_size_mb", ["0", "-32", "1025"]),
        ("retry_attempts", ["0", "-1", "101"]),
        ("retry_delay_seconds", ["-1", "3601", "inf"]),
        ("large_file_threshold_mb", ["-1", "1000001", "0.5"]),
    ] {
        for bad in bad {
            refused(&format!("transfer: {{{key}: {bad}}}"), &format!("transfer.{key}: a "));
        }
    }
    let job = spec(&with("min_file_age_minutes: 0.5\ntransfer: {chunk_size_mb: 1024}"));
    assert_eq!((job.min_age, job.transfer.chunk_size), (Duration::from_secs(30), 1 << 30));
}

#[test]
fn j05_a_password_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("jobs.yaml");
    std::fs::write(&path, EXAMPLE).expect("written");
    let load = |mode| {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("mode");
        load(&path, &env)
    };
    for mode in [0o600, 0o400, 0o700] {
        assert!(load(mode).is_ok(), "{mode:o}");
    }
    for mode in [0o644, 0o640, 0o604] {
        let error = load(mode).expect_err("open").to_string();
        let mends = format!("chmod 600 {}", path.display());
        assert!(error.ends_with(&mends) && error.contains(":10: "), "{error}");
        assert!(!error.contains("pass232"), "{error}");
    }
    for mode in [0o660, 0o620, 0o602] {
        let error = load(mode).expect_err("writable").to_string();
        assert!(error.ends_with(&format!("chmod go-w {}", path.display())), "{error}");
    }
    // Without a secret, others may read it.
    std::fs::write(&path, EXAMPLE.replace("password: ", "password_env: ")).expect("written");
    assert!(load(0o644).is_ok());
    std::fs::write(&path, "A: {source: {passphrase: x}}").expect("written");
    assert!(load(0o644).is_err(), "in a job that is broken, too");
}

#[test]
fn j05_files_of_secrets_that_others_can_read_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("my secret");
    std::fs::write(&path, "hunter2\n").expect("written");
    for key in ["password_file", "key_file"] {
        for (mode, fits) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("mode");
            let found = login(&format!("{key}: '{}'", path.display())).resolve_with(&env);
            assert_eq!(found.is_ok(), fits, "{key} {mode:o}");
            if let Err(error) = found {
                let mends = format!("chmod 600 '{}'", path.display());
                assert!(error.to_string().ends_with(&mends), "{error}");
                assert!(error.to_string().contains(&format!("job A: source.{key}: ")), "{error}");
            }
        }
    }
}

#[test]
fn j03_files_that_are_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("jobs.yaml");
    assert!(load(&path, &env).expect_err("missing").to_string().contains("cannot be opened"));
    assert!(find(Some(&path), &env).is_err());
    assert!(load(dir.path(), &env).expect_err("a directory").to_string().contains("not a regular"));
    assert!(load(Path::new("/dev/zero"), &env).is_err());
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .expect("a fifo");
    assert!(load(&fifo, &env).expect_err("a fifo").to_string().contains("not a regular"));
    let huge = std::fs::File::create(&path).expect("made");
    huge.set_len(100 << 20).expect("huge");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("mode");
    assert!(load(&path, &env).expect_err("huge").to_string().contains("larger than 1 MiB"));
}

/// What no text may have in it.
const PLANTED: &str = "hunter2";

#[test]
fn j06_no_mistake_shows_what_stands_in_the_file() {
    let values = [
        "password: [hunter2]",
        "password: {hunter2: x}",
        "password: \"hunter2\\n2\"",
        "password: @hunter2",
        "password: \"hunter2",
        "password: 'hunter2' x",
        "password:hunter2",
        "password: hunter2\n    x hunter2",
        "passwort: hunter2",
        "password hunter2: x",
        "password: hunter2\n    password_env: hunter2",
        "password_env: hunter2=x",
        "password_file: [hunter2]",
        "passphrase: hunter2",
        "port: hunter2",
        "host: 'hunter2 '",
        "user: 'hunter2;'",
        "type: hunter2",
        "base_path: ../hunter2",
        "host_key: hunter2",
        "dialer: hunter2",
        "agent: hunter2",
        "*hunter2",
        "&hunter2 &hunter2 x",
        "!hunter2 x: 1",
        "- hunter2",
        "\thunter2",
        "%hunter2",
    ];
    for value in values {
        let yaml = format!(
            "A:\n  source:\n    {value}\n    type: SFTP\n    host: h\n    base_path: /x\n{DESTINATION}"
        );
        match read(&yaml) {
            Err(error) => assert!(!format!("{error} {error:?}").contains(PLANTED), "{error}"),
            Ok(file) => {
                let text = format!("{} {file:?}", why(&yaml));
                // Keys that look like keys are shown, values never.
                assert!(!text.contains(PLANTED), "{value}: {text}");
                assert!(file.jobs[0].spec.is_err(), "{value}");
            }
        }
    }
    for lines in [
        "on_success: [hunter2]",
        "max_workers: hunter2",
        "done: hunter2",
        "layout: hunter2",
        "marker: hunter2",
        "folder_pattern: '{hunter2}'",
    ] {
        assert!(!why(&with(lines)).is_empty() && !why(&with(lines)).contains(PLANTED), "{lines}");
    }
    assert!(!why("hunter2\n").contains(PLANTED) && !why("A: hunter2\n").contains(PLANTED));
}

#[test]
fn j06_secrets_are_not_printed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("secret");
    std::fs::write(&path, PLANTED).expect("written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("mode");
    let file = path.display();
    let hunter = |name: &str| (name == "P").then(|| OsString::from(PLANTED));
    for keys in [
        format!("password: {PLANTED}"),
        "password_env: P".to_owned(),
        format!("password_file: {file}"),
        format!("password_command: 'echo {PLANTED}'"),
        format!("key_file: {file}, passphrase: {PLANTED}"),
        format!("key_file: {file}, passphrase_env: P"),
        format!("key_file: {file}, passphrase_file: {file}"),
        format!("key_file: {file}, passphrase_command: 'echo {PLANTED}'"),
    ] {
        let spec = login(&keys);
        let found = spec.resolve_with(&hunter).unwrap_or_else(|e| panic!("{keys}: {e}"));
        let secret = match &found.credentials[0] {
            Credential::Password(secret) => secret,
            Credential::KeyFile { passphrase: Some(secret), .. } => secret,
            other => panic!("{other:?}"),
        };
        assert_eq!(secret.reveal(), PLANTED, "{keys}");
        let text = format!("{spec:?} {found:?} {secret} {}", spec.shown());
        assert!(!text.contains(PLANTED), "{text}");
    }
}

#[test]
fn j08_secrets_from_elsewhere() {
    assert_eq!(password("password_env: PASS"), Ok("from-env".to_owned()));
    assert_eq!(password("password_command: 'echo a; true'"), Ok("a".to_owned()));
    assert_eq!(password("password_command: 'printf \"a\\r\\n\"'"), Ok("a".to_owned()));
    assert_eq!(password("password_command: 'printf \" a \"'"), Ok(" a ".to_owned()));
    for (keys, text) in [
        ("password_env: NOBODY", "source.password_env: there is no variable NOBODY"),
        (
            "password_file: /nonexistent",
            "source.password_file: '/nonexistent': it cannot be opened",
        ),
        ("password_file: /", "not a regular file"),
        (
            "password_command: 'exit 3'",
            "source.password_command: the command failed (exit status: 3)",
        ),
        ("password_command: 'true'", "it is empty"),
        ("password_command: 'echo'", "it is empty"),
        ("password_command: 'echo a; echo b'", "more than one line"),
        ("password_command: 'head -c 1000000 /dev/zero'", "longer than 64 KiB"),
        ("password_command: 'printf \"\\377\"'", "not UTF-8"),
        ("key_file: /nonexistent", "source.key_file: '/nonexistent': it cannot be opened"),
    ] {
        let error = password(keys).expect_err(keys);
        assert!(error.contains(text), "{keys}: {error}");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("p");
    for (bytes, fits) in [(&b"x\n"[..], true), (b"", false), (&[b'x'; 1 << 20], false)] {
        std::fs::write(&path, bytes).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("mode");
        assert_eq!(password(&format!("password_file: {}", path.display())).is_ok(), fits);
    }
    assert!(why(&source("host: h, base_path: /x, password: ''")).contains("a value is needed"));
    assert!(
        why(&source("host: h, base_path: /x, password: a, password_env: B"))
            .contains("password_env: password says it already")
    );
    assert!(
        why(&source("host: h, base_path: /x, passphrase: a"))
            .contains("source.key_file: it is missing")
    );
}

#[test]
fn j08_a_command_does_not_keep_us() {
    let began = Instant::now();
    for line in ["sleep 20", "sleep 20 & echo a", "exec >&-; sleep 20"] {
        let found = super::secrets::command_output(line, Duration::from_millis(300));
        assert!(found.expect_err(line).contains("longer than"), "{line}");
    }
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn credentials_are_tried_keys_first() {
    let login = login(
        "password: p, agent: true, key_file: ~/.ssh/id, dialer: System, host_key: accept-new",
    );
    assert!(matches!(
        &login.credentials[..],
        [CredentialSpec::KeyFile { path, passphrase: None }, CredentialSpec::Agent, CredentialSpec::Password(_)]
            if *path == Path::new("/home/a/.ssh/id")
    ));
    assert_eq!((login.dialer, login.host_key), (Dialer::System, HostKeyRule::AcceptNew));
    // An alias of ssh_config needs nothing else.
    let alias = self::login("agent: false");
    assert!(alias.credentials.is_empty() && alias.user.is_none() && alias.port.is_none());
}

#[test]
fn host_keys_are_pins() {
    let pin = format!("SHA256:{}", "a".repeat(43));
    assert_eq!(login(&format!("host_key: '{pin}'")).host_key, HostKeyRule::Pinned(pin));
    login("host_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIx me@host");
    for bad in ["yes", "SHA256:abc", "MD5:aa", "ssh-ed25519", "ssh-ed25519 BBBB", "no"] {
        let error = why(&source(&format!("host: h, base_path: /x, host_key: '{bad}'")));
        assert!(error.contains("source.host_key: accept-new"), "{bad}: {error}");
    }
}

#[test]
fn j09_paths_that_lead_astray() {
    for bad in ["/a/../b", "..", "../x", "a/..", "\\\\a\\\\..\\\\b"] {
        let error = base_path(&bad.replace("\\\\", "\\")).expect_err(bad);
        assert!(error.contains("without .."), "{bad}: {error}");
    }
    assert!(base_path("").expect_err("empty").contains("the login is \".\""));
    assert_eq!(base_path(".").as_deref(), Ok("."));
    assert_eq!(base_path("in/x/").as_deref(), Ok("in/x"));
    assert_eq!(base_path("/").as_deref(), Ok("/"));
    assert_eq!(base_path("//a/./b/").as_deref(), Ok("/a/b"));
    for (bad, text) in
        [("x", "absolute"), ("~/x", "absolute"), ("C:\\x", "absolute"), ("/a/../b", "without ..")]
    {
        let yaml = format!("A:\n{SOURCE}  destination: {{type: LOCAL, path: '{bad}'}}\n");
        assert!(why(&yaml).contains(text), "{bad}: {}", why(&yaml));
    }
    refused("done: {folder: ../x}", "done.folder: a folder below");
    refused("done: {folder: /x}", "done.folder: a folder below");
    refused("done: {action: MOVE}\nfolder_pattern: '{yyyy}/done'", "leads into done.folder");
    refused("marker: done", "a name with {name} in it");
    refused("marker: 'x/{name}'", "a name with {name} in it");
    assert_eq!(spec(&with("marker: '{name}.ok'")).marker.as_deref(), Some("{name}.ok"));
}

#[test]
fn j09_a_destination_within_the_source() {
    let local = |from: &str, to: &str| {
        why(&format!(
            "A: {{source: {{type: LOCAL, path: {from}}}, destination: {{type: LOCAL, path: {to}}}}}"
        ))
    };
    for (from, to) in
        [("/a", "/a"), ("/a", "/a/"), ("/a", "/a/b"), ("/", "/x"), ("/a//b", "/a/./b/c")]
    {
        assert!(local(from, to).contains("destination: it is the source"), "{from} {to}");
    }
    for (from, to) in [("/a", "/ab"), ("/a/b", "/a")] {
        assert_eq!(local(from, to), "", "{from} {to}");
    }
    let sftp = |from: &str, to: &str| {
        why(&format!("A: {{source: {{type: SFTP, {from}}}, destination: {{type: SFTP, {to}}}}}"))
    };
    for (from, to, bad) in [
        ("host: h, base_path: /a", "host: H, port: 22, base_path: /a/b", true),
        ("host: h, base_path: .", "host: h, base_path: out", true),
        ("host: h, base_path: '/F:/a'", "host: h, base_path: 'f:\\A\\b'", true),
        ("host: h, base_path: /a", "host: h, base_path: /A", false),
        ("host: h, base_path: /a", "host: g, base_path: /a", false),
        ("host: h, port: 1, base_path: /a", "host: h, base_path: /a", false),
        ("host: h, user: x, base_path: /a", "host: h, user: y, base_path: /a", false),
    ] {
        assert_eq!(!sftp(from, to).is_empty(), bad, "{from} {to}: {}", sftp(from, to));
    }
}

#[test]
fn j10_names_of_jobs_are_names_of_files() {
    for bad in [
        "../../x",
        "a/b",
        "-rf",
        ".x",
        "\"\"",
        "\"a\\nb\"",
        "\"a\\u202eb\"",
        "'a\\b'",
        &"x".repeat(101),
    ] {
        let error = why(&with("").replacen("A:", &format!("{bad}:"), 1));
        assert!(error.contains("a job"), "{bad}: {error}");
    }
    for good in ["EPSILON", "Epsilon 2", "a.b-c_d", "köln", "2024"] {
        assert_eq!(spec(&with("").replacen("A:", &format!("{good}:"), 1)).key, good);
    }
}

#[test]
fn j13_hosts_and_users_are_not_for_shells() {
    for bad in
        ["-oProxyCommand=x", "a b", "`x`", "$(id)", "a;b", "a/b", "h:22", "[h]", "''", "\"a\\nb\""]
    {
        let yaml = source(&format!("host: {bad}, base_path: /x"));
        let quoted = source(&format!("host: '{}', base_path: /x", bad.trim_matches('\'')));
        assert!(!why(&yaml).is_empty() && why(&quoted).contains("source.host: "), "{bad}");
    }
    for bad in ["-lroot", "$(id)", "`x`", "a\\b", "a;b"] {
        let error = why(&source(&format!("host: h, base_path: /x, user: '{bad}'")));
        assert!(error.contains("source.user: the user "), "{bad}: {error}");
    }
    for good in ["'::1'", "'[::1]'", "10.0.0.1", "nas", "a.example"] {
        let yaml = source(&format!("host: {good}, base_path: /x"));
        assert!(spec(&yaml).source.shown().starts_with("sftp://"));
    }
}

#[test]
fn s28_paths_of_windows_servers() {
    for (written, is) in [
        ("/F:/FROM_251/EPSILON/SDR", "/F:/FROM_251/EPSILON/SDR"),
        ("F:/FROM", "/F:/FROM"),
        ("F:\\FROM\\x\\", "/F:/FROM/x"),
        ("\\F:\\FROM", "/F:/FROM"),
        ("C:", "/C:/"),
        ("/c:/", "/c:/"),
        ("in\\x", "in/x"),
    ] {
        assert_eq!(base_path(written).as_deref(), Ok(is), "{written}");
    }
}

#[test]
fn s27_folder_patterns_are_checked_when_read() {
    refused("folder_pattern: '{yy}/{mm}'", "folder_pattern: the placeholders are");
    refused("folder_pattern: '../{yyyy}'", "folder_pattern: a folder below the base");
    assert_eq!(spec(&with("folder_pattern: ''")).folder_pattern.to_string(), "");
    assert_eq!(
        spec(&with("folder_pattern: '{yyyy}/{mm}/{dd}'")).folder_pattern.to_string(),
        "{yyyy}/{mm}/{dd}"
    );
}

#[test]
fn the_file_is_looked_for_where_settings_are() {
    let all = candidates(None, &env);
    let all: Vec<_> = all.iter().map(|path| path.to_str().expect("text")).collect();
    assert_eq!(all, ["jobs.yaml", "/home/a/.config/fcp/jobs.yaml", "/etc/fcp/jobs.yaml"]);
    assert_eq!(candidates(Some(Path::new("x")), &env), [Path::new("x")]);
}
