//! The layers together. Nothing here depends on the environment or on the home directory.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fcp_common::auth::Token;

use super::*;
use crate::cli::parse;

const HOME: &str = "/home/u";

type Pairs<'a> = &'a [(&'a str, &'a str)];
/// Options, environment, files; what they come to.
type Row<'a> = (&'a str, Pairs<'a>, Pairs<'a>, Via, Option<u16>, &'a str);

fn typed(options: &str) -> TransferOptions {
    let line = format!("fcp {options} a b");
    parse(line.split_whitespace().map(OsString::from)).expect("valid options").options
}

fn env<'a>(set: Pairs<'a>) -> impl Fn(&str) -> Option<OsString> + 'a {
    let set: HashMap<_, _> = set.iter().copied().collect();
    move |name| set.get(name).map(OsString::from)
}

fn files(texts: Pairs<'_>) -> Result<Files, ConfigError> {
    let mut files = Files::default();
    for (name, text) in texts {
        files.add(text.as_bytes(), name, false, Some(Path::new(HOME)))?;
    }
    Ok(files)
}

fn resolved(options: &str, host: &str, set: Pairs<'_>, texts: Pairs<'_>) -> Resolved {
    let files = files(texts).unwrap_or_else(|error| panic!("{error}"));
    resolve(&typed(options), host, &env(set), &files).unwrap_or_else(|error| panic!("{error}"))
}

/// What a mistake in a file is answered with.
fn told(text: &str) -> String {
    files(&[("f", text)]).expect_err(text).to_string()
}

#[test]
fn flags_go_before_env_before_user_before_system_before_default() {
    let user = "[defaults]\nvia = 'sftp'\nconnections = 3\n";
    let system = "[host.h]\nvia = 'stdio'\nconnections = 4\nport = 22\n";
    let variables = [("FCP_VIA", "tunnel"), ("FCP_CONNECTIONS", "2")];
    let both = [("user", user), ("system", system)];
    let table: [Row<'_>; 5] = [
        ("--via direct -j 1", &variables, &both, Via::Direct, Some(1), "flag --via"),
        ("", &variables, &both, Via::Tunnel, Some(2), "env FCP_VIA"),
        ("", &[], &both, Via::Sftp, Some(3), "user:2 ([defaults])"),
        ("", &[], &both[1..], Via::Stdio, Some(4), "system:2 ([host.\"h\"])"),
        ("", &[], &[], Via::Auto, None, "default"),
    ];
    for (options, variables, texts, via, connections, source) in table {
        let found = resolved(options, "h", variables, texts);
        assert_eq!((found.via.value, found.connections.value), (via, connections), "{source}");
        assert_eq!(found.via.source.to_string(), source);
    }
    // What the upper layers leave open comes from below.
    assert_eq!(resolved("-j 1", "h", &variables, &both).port.value, Some(22));
}

#[test]
fn every_variable_sets_what_its_flag_sets() {
    let variables = [
        ("FCP_VIA", "stdio"),
        ("FCP_DIRECT", "never"),
        ("FCP_CONNECTIONS", "128"),
        ("FCP_TOKEN_FILE", "t"),
        ("FCP_REMOTE_FCPD", "/opt/fcpd -v"),
        ("FCP_RSH", "ssh -v"),
    ];
    let by_env = resolved("", "h", &variables, &[]);
    let flags = "--via stdio --direct never -j 128 --token-file t --remote-fcpd x --rsh ssh";
    let by_flag = resolved(flags, "h", &variables, &[]);
    assert_eq!(by_env.via.value, by_flag.via.value);
    assert_eq!(by_env.direct.value, by_flag.direct.value);
    assert_eq!(by_env.connections.value, by_flag.connections.value);
    assert_eq!(by_env.token.value, by_flag.token.value);
    assert_eq!(by_env.remote_fcpd.value, "/opt/fcpd -v");
    assert_eq!(by_env.rsh.value.arguments, ["-v"]);
    assert_eq!(by_flag.rsh.source, Source::Flag("--rsh"));
    let empty = variables.map(|(name, _)| (name, ""));
    assert_eq!(resolved("", "h", &empty, &[]).via.source, Source::Default);
}

#[test]
fn bad_variables_are_named_with_what_is_allowed() {
    for (name, value, about) in [
        ("FCP_VIA", "carrier-pigeon", "one of auto, stdio, tunnel, direct, sftp"),
        ("FCP_DIRECT", "always", "one of auto, never"),
        ("FCP_CONNECTIONS", "129", "a number from 1 to 128 is needed, not '129'"),
        ("FCP_CONNECTIONS", "-1", "a number from 1 to 128"),
        ("FCP_RSH", "ssh 'x", "quote"),
    ] {
        let error = resolve(&typed(""), "h", &env(&[(name, value)]), &Files::default());
        let text = error.expect_err(name).to_string();
        assert!(text.starts_with(name) && text.contains(about), "{text}");
    }
}

#[test]
fn the_first_section_of_a_host_that_sets_a_value_wins_and_defaults_come_last() {
    let text = "\
[defaults]
jump = 'd'
via = 'sftp'
direct = 'never'

[host.'web1.example.org']
jump = 'one'

[host.'*.example.org']
jump = 'all'
via = 'stdio'

[host.'*']
via = 'tunnel'
";
    let at = |host: &str| resolved("", host, &[], &[("f", text)]);
    let jump = |host: &str| at(host).jump.value.expect("set");
    assert_eq!(jump("web1.example.org"), "one");
    assert_eq!(jump("web2.example.org"), "all");
    assert_eq!(jump("example.org"), "d");
    assert_eq!(at("web1.example.org").via.value, Via::Stdio);
    assert_eq!(at("example.org").via.value, Via::Tunnel);
    assert_eq!(at("web1.example.org").direct.value, Direct::Never);
    let source = at("WEB1.example.org").via.source.to_string();
    assert_eq!(source, "f:11 ([host.\"*.example.org\"])");
}

#[test]
fn every_key_is_understood() {
    let text = "\
[host.h]
via = 'direct'
direct = 'auto'
connections = 0x10
protocol = 2
remote-fcpd = '/opt/fcp/bin/fcpd'
token-file = '~/token'
identity = ['~/.ssh/a', '/b']
jump = 'me@gate:22'
port = 2222
ssh-config = '~/.ssh/other'
ssh-option = 'BatchMode=yes'
rsh = \"ssh -o 'A b'\"
";
    let found = resolved("", "h", &[], &[("f", text)]);
    assert_eq!(found.connections.value, Some(16));
    assert_eq!(found.protocol.value, Some(2));
    assert_eq!(found.remote_fcpd.value, "/opt/fcp/bin/fcpd");
    assert_eq!(found.token.value, Some(TokenSource::File("/home/u/token".into())));
    assert_eq!(found.identity.value, ["/home/u/.ssh/a", "/b"].map(PathBuf::from));
    assert_eq!(found.port.value, Some(2222));
    assert_eq!(found.ssh_config.value.as_deref(), Some(Path::new("/home/u/.ssh/other")));
    assert_eq!(found.ssh_option.value, ["BatchMode=yes"]);
    assert_eq!(found.rsh.value.arguments, ["-o", "A b"]);
}

#[test]
fn unknown_keys_are_refused_with_place_and_suggestion() {
    for (text, place, about) in [
        ("[defaults]\nconections = 2", "f:2:1", "did you mean connections?"),
        ("[defaults]\n  remote_fcpd = 'x'", "f:2:3", "did you mean remote-fcpd?"),
        ("[host.h]\nVia = 'stdio'", "f:2:1", "did you mean via?"),
        ("[defaults]\nzzzzzz = 1", "f:2:1", "there are via, direct"),
        ("[default]\nvia = 'stdio'", "f:1:2", "did you mean defaults?"),
        ("[hosts.h]\nvia = 'stdio'", "f:1:2", "did you mean host?"),
        ("via = 'stdio'", "f:1:1", "belongs into a section"),
        ("defaults = 1", "f:1:1", "as a section"),
        ("[host]\nvia = 'stdio'", "f:2:1", "[host.\"PATTERN\"]"),
        ("[host.a.b]\nvia = 'stdio'", "f:1:9", "needs quotes"),
        ("[host.'a b']\nvia = 'stdio'", "f:1:7", "a pattern is one host's name"),
        ("[[host]]\nvia = 'stdio'", "f:1:3", "as a section"),
    ] {
        let told = told(text);
        assert!(told.starts_with(&format!("{place}: ")) && told.contains(about), "{text}: {told}");
    }
}

#[test]
fn bad_values_are_refused_with_place_key_and_what_is_allowed() {
    for (line, about) in [
        ("via = 'pigeon'", "via: one of auto, stdio, tunnel, direct, sftp is needed, not 'pigeon'"),
        ("via = 1", "via: a text is needed, not a number"),
        ("direct = true", "direct: a text is needed, not true or false"),
        ("connections = 0", "connections: a number from 1 to 128 is needed, not 0"),
        ("connections = 129", "not 129"),
        ("connections = -1", "not -1"),
        ("connections = 99999999999999999999", "not 99999999999999999999"),
        ("connections = '2'", "a number from 1 to 128 is needed, not a text"),
        ("connections = 2.5", "connections: a number from 1 to 128"),
        ("protocol = 3", "protocol: a number from 1 to 2 is needed, not 3"),
        ("port = 65536", "port: a number from 1 to 65535"),
        ("identity = [1]", "identity: a text is needed, not a number"),
        ("identity = 'id'", "identity: a path that begins with / or ~/ is needed, not 'id'"),
        ("token-file = '~bob/x'", "begins with / or ~/"),
        ("ssh-option = [['a']]", "ssh-option: a text is needed, not a list"),
        ("jump = ''", "jump: a text is needed that is not empty"),
        ("remote-fcpd = \"a\\nb\"", "without control characters"),
        ("rsh = \"ssh 'x\"", "rsh: a quote is not closed"),
    ] {
        let told = told(&format!("[defaults]\n{line}"));
        let column = line.find('=').expect("a line of a table") + 3;
        let place = format!("f:2:{column}: ");
        assert!(told.starts_with(&place) && told.contains(about), "{line}: {told}");
    }
}

#[test]
fn what_is_no_toml_is_one_safe_line() {
    for text in ["[defaults", "[defaults]\nvia = ", "a = 1\na = 2", "\u{1b}[31m", "é = \u{9b}"] {
        let told = told(text);
        assert!(told.starts_with("f:") && !told.contains(char::is_control), "{told}");
    }
    assert!(told("# é\né = [").starts_with("f:2:"));
    let deep = format!("[defaults]\nvia = {}", "[".repeat(100_000));
    assert!(told(&deep).len() < 500);
    let error = file::parse(b"# ok\n\xff", "f", false, None).expect_err("not UTF-8");
    assert_eq!(error.to_string(), "f:2: it is not UTF-8");
}

#[test]
fn a_token_needs_a_private_file_and_is_never_told() {
    let token = NamedToken { name: "laptop".to_owned(), token: Token::from_random([7; 32]) };
    let secret = format!("laptop:{}", token.token.to_text());
    let text = format!("[defaults]\ntoken = '{secret}'\n");
    let parse = |text: &str, private| {
        let mut files = Files::default();
        files.add(text.as_bytes(), "f", private, None).map(|()| files)
    };
    let refused = parse(&text, false).expect_err("readable by others").to_string();
    assert!(refused.starts_with("f:2:9: ") && refused.contains("chmod 600"), "{refused}");
    assert!(!refused.contains(&secret));

    let files = parse(&text, true).expect("private");
    let found = resolve(&typed(""), "h", &env(&[]), &files).expect("resolved");
    assert_eq!(found.token.value.as_ref().map(TokenSource::token), Some(Ok(token)));
    let all = format!("{:?} {:?} {}", found, as_text(&found), as_json(&found));
    assert!(!all.contains(&secret) && !all.contains("0707") && all.contains("token = (set)"));

    let wrong = parse(&format!("[defaults]\ntoken = '{secret}0'"), true).expect_err("too long");
    assert!(wrong.to_string().contains("not a token") && !wrong.to_string().contains("0707"));
    let twice = format!("{text}token-file = '/x'");
    assert!(parse(&twice, true).expect_err("twice").to_string().contains("exclude each other"));
    // A file that was named covers a token from a layer below.
    let found = resolve(&typed("--token-file t"), "h", &env(&[]), &files).expect("resolved");
    assert_eq!(found.token.value, Some(TokenSource::File("t".into())));
}

#[test]
fn all_settings_are_shown_with_their_source() {
    let text = "[host.h]\nidentity = '~/k'\nremote-fcpd = \"a\\\"b\"\n";
    let found = resolved("--token-file /t", "h", &[("FCP_VIA", "sftp")], &[("f", text)]);
    let lines = as_text(&found);
    let line = |start: &str| {
        let found = lines.iter().find(|line| line.starts_with(start));
        found.expect(start).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("via"), "via = \"sftp\" # env FCP_VIA");
    assert_eq!(line("connections"), "connections = (none) # default");
    assert_eq!(line("remote"), "remote-fcpd = \"a\\\"b\" # f:3 ([host.\"h\"])");
    assert_eq!(line("token-file"), "token-file = \"/t\" # flag --token-file");
    assert_eq!(line("identity"), "identity = [\"/home/u/k\"] # f:2 ([host.\"h\"])");
    assert_eq!(line("rsh"), "rsh = \"ssh\" # default");
    let json: serde_json::Value = serde_json::from_str(&as_json(&found)).expect("JSON");
    assert_eq!(json["via"]["value"], "sftp");
    assert_eq!(json["via"]["source"], "env FCP_VIA");
    assert!(json["connections"]["value"].is_null());
    assert_eq!(json.as_object().map(serde_json::Map::len), Some(lines.len()));
}

#[test]
fn files_are_found_as_xdg_says() {
    let paths = |explicit: Option<&str>, set: &[(&str, &str)]| {
        let found = candidates(explicit.map(Path::new), &env(set));
        found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
    };
    let system = "/etc/fcp/config.toml";
    let home = ("HOME", "/h");
    assert_eq!(paths(None, &[home]), format!("/h/.config/fcp/config.toml {system}"));
    let xdg = [home, ("XDG_CONFIG_HOME", "/x")];
    assert_eq!(paths(None, &xdg), format!("/x/fcp/config.toml {system}"));
    let relative = [home, ("XDG_CONFIG_HOME", "x")];
    assert_eq!(paths(None, &relative), format!("/h/.config/fcp/config.toml {system}"));
    assert_eq!(paths(None, &[]), system);
    assert_eq!(paths(None, &[home, ("FCP_CONFIG", "/c")]), "/c");
    assert_eq!(paths(Some("d"), &[home, ("FCP_CONFIG", "/c")]), "d");
}

#[test]
fn a_missing_file_says_nothing_and_an_unreadable_one_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let home = dir.path().to_str().expect("UTF-8").to_owned();
    let load = |home: &str| Files::load(None, &env(&[("HOME", home)]));
    assert!(load(&home).is_ok() && load("/dev/null").is_ok());

    let named = dir.path().join("named");
    let by_flag = || Files::load(Some(&named), &env(&[]));
    assert!(by_flag().is_err_and(|e| e.to_string().contains("No such file")));

    let file = dir.path().join(".config/fcp/config.toml");
    fs::create_dir_all(&file).expect("a directory in its place");
    assert!(load(&home).is_err_and(|e| e.to_string().contains("config.toml: ")));
    fs::remove_dir(&file).expect("removed");
    fs::write(&file, "[defaults]\nport = 1\n").expect("written");
    fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("mode");
    assert!(load(&home).is_ok_and(|files| files.settings_for("h").count() == 1));
    for mode in [0o666, 0o664, 0o620, 0o602] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).expect("mode");
        let refused = load(&home).expect_err("others can write it").to_string();
        assert!(refused.contains("others can write it") && refused.contains("chmod go-w"));
    }
}

#[test]
fn many_sections_take_no_longer_than_their_share() {
    const SECTIONS: usize = 30_000;
    let section = |n| format!("[host.h{n}]\nport = 22\n");
    let lines: String = (0..SECTIONS).map(section).collect();
    let inline = |n| format!("h{n}={{port=22}},");
    let one_line = format!("host={{{}h={{}}}}", (0..SECTIONS).map(inline).collect::<String>());
    for (text, line) in [(lines, 2 * SECTIONS), (one_line, 1)] {
        assert!(text.len() < 1 << 20, "no file that is refused for its size");
        let began = Instant::now();
        let last = format!("h{}", SECTIONS - 1);
        let found = resolved("", &last, &[], &[("f", &text)]);
        assert_eq!(found.port.source.to_string(), format!("f:{line} ([host.\"{last}\"])"));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

#[test]
fn a_huge_file_is_refused_before_it_is_understood() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("c");
    let load = || Files::load(Some(&path), &env(&[]));
    fs::write(&path, "#".repeat(1 << 20)).expect("written");
    assert!(load().is_ok());
    fs::write(&path, "#".repeat((1 << 20) + 1)).expect("written");
    assert!(load().is_err_and(|e| e.to_string().contains("larger than 1 MiB")));
    assert!(Files::load(Some(Path::new("/dev/zero")), &env(&[])).is_err());
}

#[test]
fn a_token_in_a_file_of_ones_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("c");
    let token = Token::from_random([9; 32]).to_text();
    fs::write(&path, format!("[defaults]\ntoken = '{token}'")).expect("written");
    for (mode, fits) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("mode");
        assert_eq!(Files::load(Some(&path), &env(&[])).is_ok(), fits, "{mode:o}");
    }
}
