//! Cases J01 to J13 of job files, S27 and S28 where they concern them.

mod places;
mod secrets;
mod yaml;

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
fn every_key_of_transfer_may_stand_at_the_job() {
    let job = spec(&with("chunk_size_mb: 3\nverify_integrity: yes\nretry_attempts: 7"));
    let transfer = &job.transfer;
    assert_eq!((transfer.chunk_size, transfer.attempts), (3 << 20, 7));
    assert!(transfer.verify_integrity);
    refused(
        "retry_attempts: 7\ntransfer: {retry_attempts: 8}",
        "transfer.retry_attempts: it says another thing than retry_attempts",
    );
}

#[test]
fn the_readme_has_the_table_of_keys() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    assert!(std::fs::read_to_string(readme).expect("it is there").contains(super::KEYS.trim_end()));
    let job: Vec<&str> =
        super::KEYS.lines().filter(|line| line.starts_with("| `transfer.")).collect();
    assert_eq!(job.len(), 7, "a key has a line");
}

#[test]
fn j01_what_is_missing_or_unknown_is_named() {
    let error = why(&with("max_worker: 3"));
    assert_eq!(
        error,
        "/etc/j/jobs.yaml:4: job A: max_worker: unknown key; did you mean max_workers?"
    );
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
