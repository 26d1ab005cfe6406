//! Server to server, through a client that keeps nothing.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fcp_tests::compare::assert_same_tree;
use fcp_tests::process::{Daemon, Finished, start};
use fcp_tests::proxy::{Lane, Plan, Proxy};
use fcp_tests::rsync;
use fcp_tests::tree::{self, Item};
use tempfile::TempDir;

use crate::programs::{
    LIMIT, counts, ended, fcp, fcpd, json_lines, scratch, slashed, snapshot, summary, url,
};

const MIB: u64 = 1 << 20;

/// Two servers, and a client that runs in an empty directory which is not to be written.
struct Field {
    dir: TempDir,
    source: Daemon,
    sink: Daemon,
    here: PathBuf,
}

impl Field {
    fn new() -> Field {
        let dir = scratch();
        let here = dir.path().join("here");
        fs::create_dir(&here).unwrap();
        fs::set_permissions(&here, fs::Permissions::from_mode(0o555)).unwrap();
        Field { dir, source: fcpd(), sink: fcpd(), here }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn from(&self, path: &Path) -> String {
        url(self.source.port(), path.as_os_str().as_encoded_bytes())
    }

    fn to(&self, path: &Path) -> String {
        url(self.sink.port(), path.as_os_str().as_encoded_bytes())
    }

    fn command(&self, options: &[&str], operands: &[String]) -> Command {
        let mut command = fcp();
        command.current_dir(&self.here).env("TMPDIR", &self.here).env("HOME", &self.here);
        command.args(options).args(operands);
        command
    }

    /// Runs `fcp OPTIONS source:SRC sink:DST`.
    fn copy(&self, options: &[&str], src: &Path, dst: &Path) -> Finished {
        ended(&mut self.command(options, &[self.from(src), self.to(dst)]))
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let left: Vec<_> = fs::read_dir(&self.here).unwrap().collect();
            assert!(left.is_empty(), "left where the client ran: {left:?}");
        }
    }
}

#[track_caller]
fn assert_copied(src: &Path, dst: &Path) {
    assert_same_tree(src, dst);
    rsync::assert_agrees(src, dst);
}

/// Content bytes that stand below a directory, under whatever name.
fn on_disk(root: &Path) -> u64 {
    let files = snapshot(root).into_keys().filter(|path| path.is_file());
    files.filter_map(|path| fs::metadata(path).ok()).map(|m| m.blocks() * 512).sum()
}

#[track_caller]
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_nasty_tree_arrives_whole_over_any_number_of_connections() {
    let field = Field::new();
    let src = field.path("src");
    tree::nasty(&src);
    for n in ["1", "2", "8"] {
        let dst = field.path(n);
        field.copy(&["-j", n], &slashed(&src), &dst).assert_success();
        assert_copied(&src, &dst);
        tree::unlock(&dst);
    }
    tree::unlock(&src);
}

#[test]
fn a_second_run_moves_nothing() {
    let field = Field::new();
    let (src, dst) = (field.path("src"), field.path("dst"));
    tree::small(&src);
    let first = summary(field.copy(&["--json"], &slashed(&src), &dst).assert_success());
    assert!(first["sent_bytes"].as_u64().unwrap() > 0, "{first}");
    assert_eq!(first["sent_bytes"], first["total_bytes"]);
    let second = summary(field.copy(&["--json"], &slashed(&src), &dst).assert_success());
    assert_eq!((&second["sent_bytes"], &second["changed"]), (&0.into(), &0.into()), "{second}");
    // Content alone is compared by both ends' hashes.
    let third = summary(field.copy(&["--json", "-c"], &slashed(&src), &dst).assert_success());
    assert_eq!((&third["sent_bytes"], &third["changed"]), (&0.into(), &0.into()), "{third}");
    assert_copied(&src, &dst);
}

#[test]
fn sizes_around_frames_and_blocks_arrive_whole() {
    let field = Field::new();
    let (src, dst) = (field.path("src"), field.path("dst"));
    let sizes = [0, 1, 61_439, 61_440, 61_441, 65_536, MIB - 1, MIB, MIB + 1, 40 * MIB + 1];
    let items: Vec<Item> = sizes.iter().map(|n| Item::file(n.to_string(), *n)).collect();
    tree::build(&src, &items);
    let told = field.copy(&["--json", "-j", "4"], &slashed(&src), &dst);
    let end = summary(told.assert_success());
    let all: u64 = sizes.iter().sum();
    assert_eq!((&end["total_bytes"], &end["sent_bytes"]), (&all.into(), &all.into()));
    assert_copied(&src, &dst);
}

#[test]
fn many_files_arrive() {
    let field = Field::new();
    let (src, dst) = (field.path("src"), field.path("dst"));
    let files = (0..5_000).map(|n| Item::file(format!("d{}/e{}/f{n}", n % 7, n % 50), n % 300));
    tree::build(&src, &files.collect::<Vec<_>>());
    fs::create_dir(&dst).unwrap();
    field.copy(&[], &src, &dst).assert_success();
    assert_copied(&src, &dst.join("src"));
}

#[test]
fn one_file_goes_where_scp_would_put_it() {
    let field = Field::new();
    let src = field.path("one");
    fs::write(&src, "content").unwrap();
    let dir = field.path("dir");
    fs::create_dir(&dir).unwrap();
    let cases: [(&[&str], PathBuf, PathBuf); 4] = [
        (&[], field.path("renamed"), field.path("renamed")),
        (&[], dir.clone(), dir.join("one")),
        (&[], dir.join(""), dir.join("one")),
        (&["--mkpath"], field.path("new/parents/two"), field.path("new/parents/two")),
    ];
    for (options, dst, there) in cases {
        field.copy(options, &src, &dst).assert_success();
        assert_eq!(fs::read(&there).unwrap(), b"content", "{there:?}");
    }
    let told = field.copy(&[], &src, &field.path("not/there"));
    assert_eq!(told.code(), Some(3), "{told:?}");
    let text = told.stderr_text();
    assert!(text.contains("destination 127.0.0.1:"), "{text}");
    assert!(!field.path("not").exists());
}

#[test]
fn globs_and_filters_are_the_source_s() {
    let field = Field::new();
    let (src, dst) = (field.path("src"), field.path("dst"));
    let names = ["a.txt", "b.txt", "c.log", "sub/d.txt", "sub/e.log"];
    tree::build(&src, &names.map(|name| Item::file(name, 10)));
    fs::create_dir(&dst).unwrap();
    field.copy(&[], &src.join("*.txt"), &dst).assert_success();
    let found = |root: &Path| -> Vec<PathBuf> {
        let files = snapshot(root).into_keys().filter(|p| p.is_file());
        files.map(|p| p.strip_prefix(root).unwrap().to_owned()).collect()
    };
    assert_eq!(found(&dst), ["a.txt", "b.txt"].map(PathBuf::from));
    let dst = field.path("filtered");
    field.copy(&["--exclude", "*.log"], &slashed(&src), &dst).assert_success();
    assert_eq!(found(&dst), ["a.txt", "b.txt", "sub/d.txt"].map(PathBuf::from));
    // Several sources of one server.
    let dst = field.path("several");
    fs::create_dir(&dst).unwrap();
    let operands = ["a.txt", "sub"].map(|name| field.from(&src.join(name)));
    let operands: Vec<_> = operands.into_iter().chain([field.to(&dst)]).collect();
    ended(&mut field.command(&[], &operands)).assert_success();
    assert_eq!(found(&dst), ["a.txt", "sub/d.txt", "sub/e.log"].map(PathBuf::from));
}

#[test]
fn a_dry_run_says_what_it_would_do_and_touches_nothing() {
    let field = Field::new();
    let (src, dst) = (field.path("src"), field.path("dst"));
    tree::build(&src, &[Item::file("d/a", 10), Item::file("b", 5 * MIB)]);
    let told = field.copy(&["--dry-run"], &slashed(&src), &dst);
    told.assert_success();
    assert_eq!(told.stdout_text(), "b\nd/a\nd/\n");
    assert!(!dst.exists());
}

#[test]
fn what_is_done_is_told_by_path() {
    let field = Field::new();
    let (src, dst) = (field.path("src"), field.path("dst"));
    tree::build(&src, &[Item::file("d/a", 10), Item::symlink("d/l", "a")]);
    let told = field.copy(&["-v", "--stats"], &slashed(&src), &dst);
    let text = told.assert_success().stdout_text();
    for line in ["d/a\n", "d/l\n", "d/\n", "Content bytes sent: 10\n", "Entries changed: 3\n"] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let told = field.copy(&["--json", "--no-perms", "--no-times"], &src, &field.path("other"));
    let lines = json_lines(told.assert_success());
    assert!(lines.iter().any(|line| line["path"] == "src/d/a"), "{lines:?}");
}

#[test]
fn a_source_that_is_not_there_leaves_no_trace_of_a_destination() {
    let field = Field::new();
    let gone = field.path("gone");
    for operand in [gone.clone(), slashed(&gone), field.path("no*thing")] {
        let dst = field.path("dst");
        let told = field.copy(&[], &operand, &dst);
        told.assert_code(23);
        assert!(told.stderr_text().contains("no such file"), "{told:?}");
        assert!(!dst.exists());
    }
    // Beside one that is there.
    let (src, dst) = (field.path("src"), field.path("both"));
    fs::write(&src, "x").unwrap();
    let operands = [field.from(&gone), field.from(&src), field.to(&slashed(&dst))];
    ended(&mut field.command(&["--mkpath"], &operands)).assert_code(23);
    assert_eq!(fs::read(dst.join("src")).unwrap(), b"x");
}

#[test]
fn what_fails_at_the_destination_is_named_and_the_rest_arrives() {
    let field = Field::new();
    let (src, dst) = (field.path("src"), field.path("dst"));
    tree::build(&src, &[Item::file("d/taken", 10), Item::file("d/fine", 20)]);
    tree::build(&dst, &[Item::file("d/taken/in the way", 1)]);
    let told = field.copy(&[], &slashed(&src), &dst);
    told.assert_code(23);
    assert!(told.stderr_text().contains("d/taken: "), "{told:?}");
    assert_eq!(fs::metadata(dst.join("d/fine")).unwrap().len(), 20);
}

#[test]
fn a_pull_and_a_push_do_not_take_two_servers() {
    let field = Field::new();
    let [src, dst] = ["src", "dst"].map(|name| field.path(name));
    fs::write(&src, "x").unwrap();
    for command in ["push", "pull"] {
        let told = ended(&mut field.command(&[command], &[field.from(&src), field.to(&dst)]));
        told.assert_code(1);
    }
    ended(&mut field.command(&["--protocol", "1"], &[field.from(&src), field.to(&dst)]))
        .assert_code(4);
    let mixed = ["x".to_owned(), field.from(&src), field.to(&dst)];
    ended(&mut field.command(&[], &mixed)).assert_code(1);
    assert!(!dst.exists());
}

#[test]
fn from_one_place_of_a_server_to_another() {
    let field = Field::new();
    let (src, dst) = (field.path("src"), field.path("dst"));
    tree::small(&src);
    let operands = [field.from(&slashed(&src)), field.from(&dst)];
    ended(&mut field.command(&[], &operands)).assert_success();
    assert_copied(&src, &dst);
}

#[test]
fn the_client_s_file_system_is_not_touched() {
    let field = Field::new();
    let (src, dst) = (field.path("src"), field.path("dst"));
    tree::small(&src);
    let file = field.path("counts");
    let mut command = field.command(&[], &[field.from(&slashed(&src)), field.to(&dst)]);
    command.env("FCP_FAULT", format!("count={}", file.display()));
    ended(&mut command).assert_success();
    assert_eq!(counts(&file).values().sum::<u64>(), 0, "{:?}", counts(&file));
    assert_copied(&src, &dst);
}

/// A relay of one large file that is slow enough to be hurt in the middle.
struct Slow {
    field: Field,
    src: PathBuf,
    dst: PathBuf,
    proxy: Proxy,
}

impl Slow {
    fn new(size: u64) -> Slow {
        let field = Field::new();
        let (src, dst) = (field.path("src"), field.path("dst"));
        tree::build(&src, &[Item::file("large", size)]);
        fs::create_dir(&dst).unwrap();
        let slow = Lane::rate(20 * MIB);
        let proxy = Proxy::start(field.source.address(), move |_| Plan::down(slow));
        Slow { field, src, dst, proxy }
    }

    fn command(&self) -> Command {
        let operands = [self.proxy.url(&slashed(&self.src)), self.field.to(&self.dst)];
        self.field.command(&["--json", "-j", "2"], &operands)
    }

    fn until_some_is_there(&self) {
        eventually("content arrives", || on_disk(&self.dst) > 12 * MIB);
    }

    /// The same command again goes on where the first one ended.
    fn assert_resumes(&self) {
        let again = ended(&mut self.command());
        let end = summary(again.assert_success());
        assert!(end["kept_bytes"].as_u64().unwrap() > 0, "{end}");
        let size = fs::metadata(self.src.join("large")).unwrap().len();
        assert!(end["sent_bytes"].as_u64().unwrap() < size, "{end}");
        assert_copied(&self.src, &self.dst);
    }
}

#[test]
fn c01_a_killed_client_resumes() {
    let slow = Slow::new(48 * MIB);
    let mut running = start(&mut slow.command());
    slow.until_some_is_there();
    running.kill9();
    running.finish(LIMIT);
    assert!(!slow.dst.join("large").exists());
    // The session of the dead client ends as soon as the destination has seen that it is dead.
    std::thread::sleep(Duration::from_millis(300));
    slow.assert_resumes();
}

#[test]
fn c02_a_killed_server_is_named_and_the_other_one_ends_its_session() {
    for victim in ["source", "destination"] {
        let mut slow = Slow::new(48 * MIB);
        let running = start(&mut slow.command());
        slow.until_some_is_there();
        let port = if victim == "source" {
            slow.field.source.kill9();
            // The proxy is the server as far as the client can see.
            slow.proxy.url(Path::new("/"))
        } else {
            slow.field.sink.kill9();
            slow.field.to(Path::new("/"))
        };
        let address = port.trim_start_matches("fcp://").trim_end_matches('/').to_owned();
        let finished = running.finish(LIMIT);
        assert_eq!(finished.code(), Some(12), "{victim}: {finished:?}");
        let text = finished.stderr_text();
        assert!(text.contains(&format!("{victim} {address}: ")), "{victim}: {text}");
        assert!(text.contains("run the same command again"), "{text}");
        assert!(!slow.dst.join("large").exists());
        if victim == "destination" {
            slow.field.sink = fcpd();
            slow.assert_resumes();
        }
    }
}

#[test]
fn a_cancelled_relay_tells_both_servers_and_resumes() {
    let slow = Slow::new(48 * MIB);
    let running = start(&mut slow.command());
    slow.until_some_is_there();
    running.signal(rustix::process::Signal::INT);
    let finished = running.finish(Duration::from_secs(10));
    assert_eq!(finished.code(), Some(20), "{finished:?}");
    slow.assert_resumes();
}

#[test]
fn w20_one_of_several_connections_is_lost_at_either_server_and_all_arrives() {
    for (at_source, cut) in [(true, 0), (true, 3 * MIB), (false, 100), (false, 3 * MIB)] {
        for lost in [0, 1, 2] {
            let field = Field::new();
            let (src, dst) = (field.path("src"), field.path("dst"));
            let mut items = vec![Item::file("large", 24 * MIB)];
            items.extend((0..300).map(|n| Item::file(format!("d/{n}"), n * 200)));
            tree::build(&src, &items);
            let server = if at_source { &field.source } else { &field.sink };
            let plan = move |n: usize| match n == lost {
                // The first one carries the opening.
                true if at_source => Plan::down(Lane::cut(cut.max(if n == 0 { 4000 } else { 0 }))),
                true => Plan::up(Lane::cut(cut.max(if n == 0 { 4000 } else { 0 }))),
                false => Plan::default(),
            };
            // On a busy machine the others may join later than the first is cut; then there is
            // nobody who could go on, and that is not what is looked at here.
            for attempt in 1.. {
                let proxy = Proxy::start(server.address(), plan);
                let operands = if at_source {
                    [proxy.url(&slashed(&src)), field.to(&dst)]
                } else {
                    [field.from(&slashed(&src)), proxy.url(&dst)]
                };
                let finished = ended(&mut field.command(&["-j", "3"], &operands));
                if finished.code() == Some(0) || attempt == 5 {
                    finished.assert_success();
                    break;
                }
                let _ = std::fs::remove_dir_all(&dst);
            }
            assert_copied(&src, &dst);
        }
    }
}
