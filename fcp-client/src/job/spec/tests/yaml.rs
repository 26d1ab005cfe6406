//! J03: YAML that is none, too much, or read in two ways.

use super::*;

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
