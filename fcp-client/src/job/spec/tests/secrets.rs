//! J05, J06, J08: secrets, where they may be and where never.

use super::*;

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
            "password_file: /gone/for/ever",
            "source.password_file: '/gone/for/ever': it cannot be opened",
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
        ("key_file: /gone/for/ever", "source.key_file: '/gone/for/ever': it cannot be opened"),
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
        let found = crate::job::spec::secrets::command_output(line, Duration::from_millis(300));
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
