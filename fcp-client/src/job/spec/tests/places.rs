//! J09, J10, J13, S27, S28: paths, names and hosts.

use super::*;

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
