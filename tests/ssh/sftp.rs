//! Hosts that have sshd and no fcpd: the same commands over SFTP.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use fcp_tests::askpass::Askpass;
use fcp_tests::process::{Finished, kill9_any, start};
use fcp_tests::processes;
use fcp_tests::proxy::{Lane, Plan};
use fcp_tests::rsync;
use fcp_tests::sshd::{HOST, Options};
use fcp_tests::tree::{self, Item};
use rustix::process::Signal;

use crate::programs::{
    FCPD, LIMIT, assert_unchanged, ended, json_lines, slashed, snapshot, summary,
};
use crate::setup::{MIB, World, assert_same_file, assert_told, at, bytes, wait_until};

/// A host without fcpd.
fn world() -> Option<World> {
    World::with(Options::without_fcpd())
}

/// Whatever SFTP can carry of the nasty tree: its times are 32 bits.
fn nasty(root: &Path) {
    let mut items = tree::nasty_items();
    items.retain(|item| u32::try_from(item.mtime.0).is_ok());
    tree::build(root, &items);
}

/// Names of temps below a directory.
fn temps(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(temps(&entry.path()));
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(".fcp-") || name.starts_with(".tmp.") {
            found.push(name);
        }
    }
    found
}

#[test]
fn a_nasty_tree_goes_there_and_back_to_a_host_without_fcpd() {
    let Some(world) = world() else { return };
    let src = world.path("src");
    nasty(&src);
    for way in ["auto", "sftp"] {
        let [there, back] = ["there", "back"].map(|name| world.path(format!("{name}-{way}")));
        let pushed = ended(&mut world.push(&["--via", way], &slashed(&src), &there));
        pushed.assert_success();
        rsync::assert_agrees(&src, &there);
        assert_eq!(pushed.stderr_text().contains("over SFTP instead"), way == "auto", "{pushed:?}");
        let pulled = ended(&mut world.pull(&["--via", way, "-q"], slashed(&there), &back));
        pulled.assert_success();
        assert!(!pulled.stderr_text().contains("over SFTP"), "{pulled:?}");
        rsync::assert_agrees(&src, &back);
        let again = ended(&mut world.push(&["--via", way, "--json"], &slashed(&src), &there));
        again.assert_success();
        let told = summary(&again);
        assert_eq!((&told["changed"], &told["sent_bytes"]), (&0.into(), &0.into()), "{told}");
        [&there, &back].into_iter().for_each(|tree| tree::unlock(tree));
    }
    tree::unlock(&src);
}

#[test]
fn where_fcpd_is_via_sftp_still_goes_without() {
    let Some(world) = World::new() else { return };
    let (src, there) = (world.small("src"), world.path("there"));
    ended(&mut world.push(&["--via", "sftp"], &slashed(&src), &there)).assert_success();
    rsync::assert_agrees(&src, &there);
    assert!(world.sshd.log().contains("subsystem 'sftp'"), "{}", world.sshd.log());
    assert!(!world.sshd.log().contains("Starting session: command"), "{}", world.sshd.log());
}

#[test]
fn a_dry_run_says_what_the_run_does_and_touches_nothing() {
    let Some(world) = world() else { return };
    let (src, there) = (world.small("src"), world.small("there"));
    fs::write(there.join("one"), "other").unwrap();
    fs::remove_dir(there.join("nothing-inside")).unwrap();
    fs::remove_file(there.join("data/latest")).unwrap();
    symlink("elsewhere", there.join("data/latest")).unwrap();
    let before = snapshot(&there);
    let lines = |args: &[&str]| {
        let told = ended(&mut world.push(args, &slashed(&src), &there));
        told.assert_success();
        let text = told.stdout_text();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.retain(|line| line.starts_with('/'));
        lines.sort();
        lines
    };
    let would = lines(&["-n", "-v"]);
    assert_unchanged(&before, &there);
    assert!(would.iter().any(|line| line.ends_with("/one")), "{would:?}");
    assert_eq!(would, lines(&["-v"]));
    rsync::assert_agrees(&src, &there);
}

#[test]
fn filters_globs_and_single_files_mean_the_same() {
    let Some(world) = world() else { return };
    let (src, there) = (world.small("src"), world.path("there"));
    let args = ["--exclude", "docs/deep/", "--exclude", "*.sh"];
    ended(&mut world.push(&args, &slashed(&src), &there)).assert_success();
    assert!(there.join("docs/readme.txt").exists() && !there.join("docs/deep").exists());
    assert!(!there.join("script.sh").exists());
    ended(&mut world.pull(&[], there.join("docs/*.txt"), &world.path("found"))).assert_success();
    let mut names: Vec<_> = fs::read_dir(world.path("found")).unwrap().flatten().collect();
    names.sort_by_key(fs::DirEntry::file_name);
    assert_eq!(
        names.iter().map(|n| n.file_name()).collect::<Vec<_>>(),
        ["private.txt", "readme.txt"]
    );
    assert_told(
        &ended(&mut world.pull(&[], there.join("nix*"), &world.path("x"))),
        23,
        &["matches"],
    );
    let file = src.join("one");
    ended(&mut world.push(&[], &file, world.path("renamed"))).assert_success();
    assert_same_file(&file, &world.path("renamed"));
    ended(&mut world.push(&["--mkpath"], &file, world.path("a/b/c"))).assert_success();
    assert_same_file(&file, &world.path("a/b/c"));
    let refused = ended(&mut world.push(&[], &file, world.path("no/such/place")));
    assert_told(&refused, 3, &["--mkpath"]);
    fs::write(world.path("[x]*"), "odd").unwrap();
    fs::write(world.path("x1"), "no").unwrap();
    ended(&mut world.pull(&[], world.path("[x]*"), &world.path("odd"))).assert_success();
    // What looks like a pattern goes into a directory; a name that is spelled so is that name.
    assert_eq!(fs::read(world.path("odd/[x]*")).unwrap(), b"odd");
    assert!(!world.path("odd/x1").exists());
}

#[test]
fn the_home_directory_is_where_relative_paths_begin() {
    let Some(world) = world() else { return };
    let file = world.file("file", 10);
    let home = world.sshd.path("own-home");
    let begins = ended(world.fcp(&["--via", "sftp"]).arg(&file).arg(at(HOST, "~/fcp-test-file")));
    // Where the login begins is the account's to say, and not this test's.
    let found = [home.join("fcp-test-file"), std::env::home_dir().unwrap().join("fcp-test-file")];
    let copied = found.iter().find(|path| path.exists());
    if let Some(copied) = copied {
        begins.assert_success();
        assert_same_file(&file, copied);
        fs::remove_file(copied).unwrap();
    } else {
        assert!(!begins.status.success(), "{begins:?}");
    }
}

#[test]
fn thousands_of_small_files_and_a_large_one() {
    let Some(world) = world() else { return };
    let src = world.path("src");
    let small = |i: usize| Item::file(format!("d{}/f{i}", i % 20), 1 + (i as u64 * 37) % 16_384);
    let mut items: Vec<_> = (0..2_000).map(small).collect();
    items.push(Item::file("large", 64 * MIB));
    tree::build(&src, &items);
    let (there, back) = (world.path("there"), world.path("back"));
    ended(&mut world.push(&["--via", "sftp"], &slashed(&src), &there)).assert_success();
    rsync::assert_agrees(&src, &there);
    ended(&mut world.pull(&["--via", "sftp", "-j", "2"], slashed(&there), &back)).assert_success();
    rsync::assert_agrees(&src, &back);
    assert_eq!(temps(world.dir.path()), [""; 0]);
}

#[test]
fn content_is_compared_where_that_is_asked_for() {
    let Some(world) = world() else { return };
    let (src, there) = (world.small("src"), world.small("there"));
    let time = fs::metadata(there.join("data/four-k.bin")).unwrap().modified().unwrap();
    fs::write(there.join("data/four-k.bin"), tree::random_bytes(4_096, 77)).unwrap();
    fs::File::open(there.join("data/four-k.bin")).unwrap().set_modified(time).unwrap();
    let quick = ended(&mut world.push(&["--json"], &slashed(&src), &there));
    assert_eq!(summary(&quick)["sent_bytes"], 0, "{quick:?}");
    let told = ended(&mut world.push(&["-c", "--json"], &slashed(&src), &there));
    told.assert_success();
    assert_eq!(summary(&told)["sent_bytes"], 4_096, "{told:?}");
    rsync::assert_agrees(&src, &there);
    // The host hashes a large one, where the account may run that.
    let large = world.file("large", 4 * MIB);
    ended(&mut world.push(&["--via", "sftp"], &large, &there)).assert_success();
    let commands = || world.sshd.log().matches("Starting session: command").count();
    let before = commands();
    let told = ended(&mut world.push(&["-c", "--via", "sftp", "--json"], &large, &there));
    assert_eq!(summary(&told)["same"], 1, "{told:?}");
    assert!(commands() > before, "{}", world.sshd.log());
    assert!(summary(&told)["wire_bytes_in"].as_u64().unwrap() < MIB, "{told:?}");
}

#[test]
fn one_file_that_fails_is_one_line_and_exit_23() {
    let Some(world) = world() else { return };
    let (src, there) = (world.small("src"), world.path("there"));
    fs::create_dir_all(there.join("one")).unwrap();
    let told = ended(&mut world.push(&["-q"], &slashed(&src), &there));
    assert_told(&told, 23, &["/one: a directory is in the way"]);
    fs::remove_dir(there.join("one")).unwrap();
    ended(&mut world.push(&[], &slashed(&src), &there)).assert_success();
    rsync::assert_agrees(&src, &there);
    let missing = ended(&mut world.pull(&[], world.path("missing"), &world.path("x")));
    assert_told(&missing, 23, &["missing: no such file"]);
}

#[test]
fn what_sftp_cannot_do_is_an_error_that_names_it() {
    let Some(world) = world() else { return };
    let (file, dst) = (world.file("file", 10), world.path("dst"));
    let refused = ended(&mut world.push(&["--protocol", "2"], &file, &dst));
    assert_told(&refused, 10, &["--protocol", "--via sftp"]);
    assert!(!dst.exists());
    let told = ended(&mut world.push(&["--protocol", "2", "--via", "auto"], &file, &dst));
    told.assert_success();
    assert!(told.stderr_text().contains("--protocol"), "{told:?}");
    let told = ended(&mut world.push(&["--via", "stdio"], &file, &dst));
    assert_told(&told, 10, &["is not on"]);
}

#[test]
fn that_there_is_no_fcpd_is_told_once_and_not_by_the_shell() {
    let Some(world) = world() else { return };
    let file = world.file("file", 10);
    let told = ended(&mut world.push(&[], &file, world.path("one")));
    told.assert_success();
    let text = told.stderr_text();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("fcpd")).collect();
    assert!(lines.len() == 1 && lines[0].contains("over SFTP instead"), "{text}");
    assert!(!text.contains("changed"), "SFTP sends whole files, as fcpd does: {text}");
    let told = ended(&mut world.push(&["-q"], &file, world.path("two")));
    told.assert_success();
    assert_eq!(told.stderr_text(), "");
    // What others say is shown, as without fcp.
    let banner = world.path("banner");
    fs::write(&banner, "The fcpd: maintenance tonight\nall welcome\n").unwrap();
    let options = Options::without_fcpd();
    let line = format!("Banner {}", banner.display());
    let Some(world) = World::with(options.line(&line)) else { return };
    let file = world.file("file", 10);
    let told = ended(&mut world.push(&["-q"], &file, world.path("three")));
    told.assert_success();
    assert!(told.stderr_text().contains("all welcome"), "{told:?}");
    let refused = ended(&mut world.push(&["--via", "stdio"], &file, world.path("four")));
    assert_told(&refused, 10, &["all welcome", "is not on"]);
}

#[test]
fn direct_is_harmless() {
    let Some(world) = world() else { return };
    let file = world.file("file", 10);
    for (i, args) in [
        &["-q", "--direct", "never"][..],
        &["-q", "--direct", "auto"],
        &["--via", "sftp", "--direct", "never"],
    ]
    .iter()
    .enumerate()
    {
        let told = ended(&mut world.push(args, &file, world.path(format!("copy{i}"))));
        told.assert_success();
        assert_eq!(told.stderr_text(), "", "{args:?}");
    }
}

#[test]
fn wire_bytes_are_counted_both_ways() {
    let Some(world) = world() else { return };
    let (src, there) = (world.file("src", MIB), world.path("there"));
    let back = world.path("back");
    let wire = |told: &Finished, name: &str| {
        told.assert_success();
        let text = told.stdout_text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim_start_matches(':').trim().parse::<u64>().unwrap()
    };
    for args in [&["--stats"][..], &["--stats", "--via", "sftp"]] {
        let told = ended(&mut world.push(args, &src, &there));
        assert!(wire(&told, "Wire bytes written") > MIB, "{told:?}");
        assert!((1..MIB).contains(&wire(&told, "Wire bytes read")), "{told:?}");
        let told = ended(&mut world.pull(args, &there, &back));
        assert!(wire(&told, "Wire bytes read") > MIB, "{told:?}");
        assert!((1..MIB).contains(&wire(&told, "Wire bytes written")), "{told:?}");
        [&there, &back].into_iter().for_each(|path| fs::remove_file(path).unwrap());
    }
}

#[test]
fn a_pattern_that_matches_one_file_means_the_same_with_fcpd_and_without() {
    for world in [world(), World::new()] {
        let Some(world) = world else { return };
        fs::create_dir(world.path("d")).unwrap();
        fs::write(world.path("d/big"), "1").unwrap();
        ended(&mut world.pull(&[], world.path("d/bi?"), &world.path("x1"))).assert_success();
        assert_eq!(fs::read(world.path("x1/big")).unwrap(), b"1");
    }
}

#[test]
fn an_account_for_sftp_only_is_reached_too() {
    let options = Options::with_fcpd(FCPD).line("ForceCommand internal-sftp");
    let Some(world) = World::with(options) else { return };
    world.small("works-src");
    let src = world.path("works-src");
    ended(&mut world.push(&[], &slashed(&src), world.path("there"))).assert_success();
    rsync::assert_agrees(&src, &world.path("there"));
}

#[test]
fn a_host_that_cannot_be_reached_is_exit_10_and_one_without_sftp_says_so() {
    let options = Options::without_fcpd().line("ForceCommand /bin/false");
    let Some(mut world) = World::with(options) else { return };
    let file = world.file("file", 10);
    let told = ended(&mut world.push(&["--via", "sftp"], &file, world.path("dst")));
    assert_told(&told, 10, &["offers no sftp"]);
    world.ssh_lines("Port 9");
    let told = ended(&mut world.push(&["--via", "sftp"], &file, world.path("dst")));
    assert_told(&told, 10, &["could not connect"]);
}

#[test]
fn a_passphrase_is_asked_for_once_however_many_connections() {
    let Some(mut world) = world() else { return };
    let key = world.sshd.locked_key("secret");
    fs::rename(world.sshd.path("client_key"), world.sshd.path("client_key.away")).unwrap();
    world.ssh_lines(&format!("IdentityFile {}", key.display()));
    let src = world.path("src");
    let items: Vec<_> = (0..200).map(|i| Item::file(format!("f{i}"), 50_000)).collect();
    tree::build(&src, &items);
    let askpass = Askpass::answering("secret");
    let mut command = world.push(&["--via", "sftp", "-j", "4"], &slashed(&src), world.path("dst"));
    askpass.serve(&mut command);
    ended(&mut command).assert_success();
    rsync::assert_agrees(&src, &world.path("dst"));
    assert_eq!(askpass.prompts().len(), 1, "{:?}", askpass.prompts());
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Push,
    Pull,
}

/// A large file is cut in the middle, and the next run goes on.
fn cut(way: Way, end: impl Fn(u32)) {
    const SIZE: u64 = 64 * MIB;
    let Some(mut world) = world() else { return };
    let proxy = world.through_proxy(Plan::both(Lane::rate(24 * MIB)));
    let (src, dst) = (world.file("src", SIZE), world.path("dst"));
    let args = ["--json", "--via", "sftp", "-j", "2"];
    let command = |world: &World| match way {
        Way::Push => world.push(&args, &src, &dst),
        Way::Pull => world.pull(&args, &src, &dst),
    };
    let running = start(&mut command(&world));
    wait_until("half is there", || proxy.moved().0 + proxy.moved().1 > SIZE / 2);
    end(running.pid());
    let told = running.finish(LIMIT);
    assert!(!told.timed_out && !told.status.success(), "{way:?}: {told:?}");
    assert!(!dst.exists(), "half a file has the final name");
    drop(proxy);
    world.ssh_config = world.sshd.ssh_config();
    let again = ended(&mut command(&world));
    again.assert_success();
    assert_same_file(&src, &dst);
    let kept = summary(&again)["kept_bytes"].as_u64().unwrap();
    assert!(kept >= SIZE / 8, "{way:?}: only {kept} bytes were kept");
    assert_eq!(temps(world.dir.path()), [""; 0]);
}

#[test]
fn a_killed_push_goes_on() {
    cut(Way::Push, kill9_any);
}

#[test]
fn a_killed_pull_goes_on() {
    cut(Way::Pull, kill9_any);
}

/// What a cut run has left: how many journals, and how many bytes they say are written.
fn remembered(world: &World) -> (usize, u64) {
    let Ok(dir) = fs::read_dir(world.path("home/.local/state/fcp/sftp")) else { return (0, 0) };
    let journals: Vec<_> = dir.map(|entry| fs::read_to_string(entry.unwrap().path())).collect();
    let covered = |text: &String| {
        let mut ranges: BTreeMap<(String, u64), u64> = BTreeMap::new();
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["begin", temp, ..] => ranges.retain(|(other, _), _| other != temp),
                ["range", temp, start, end, _] => {
                    let [start, end] = [start, end].map(|n| n.parse::<u64>().unwrap());
                    ranges.insert((temp.to_owned(), start), end - start);
                }
                _ => {}
            }
        }
        ranges.into_values().sum::<u64>()
    };
    (journals.len(), journals.iter().flatten().map(covered).max().unwrap_or(0))
}

/// Ends a process as Ctrl-C does.
fn interrupt(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::INT).unwrap();
}

/// Runs until so many more bytes went through a slow proxy, then ends it so.
fn cut_after(world: &mut World, bytes: u64, run: impl Fn(&World) -> Command, end: impl Fn(u32)) {
    let proxy = world.through_proxy(Plan::both(Lane::rate(24 * MIB)));
    let running = start(&mut run(world));
    wait_until("some went through", || proxy.moved().0 + proxy.moved().1 > bytes);
    end(running.pid());
    let told = running.finish(LIMIT);
    assert!(!told.timed_out && !told.status.success(), "{told:?}");
    drop(proxy);
    world.ssh_config = world.sshd.ssh_config();
}

#[test]
fn wherever_a_copy_is_cut_the_next_run_finishes() {
    let Some(mut world) = world() else { return };
    let (src, dst) = (world.file("src", 64 * MIB), world.path("dst"));
    let args = ["--json", "--via", "sftp"];
    for (way, bytes) in [(Way::Push, 20_000), (Way::Push, 300_000), (Way::Push, 5 * MIB)]
        .into_iter()
        .chain([(Way::Pull, 20_000), (Way::Pull, 300_000), (Way::Pull, 5 * MIB)])
    {
        let run = |world: &World| match way {
            Way::Push => world.push(&args, &src, &dst),
            Way::Pull => world.pull(&args, &src, &dst),
        };
        cut_after(&mut world, bytes, run, kill9_any);
        let again = ended(&mut run(&world));
        again.assert_success();
        assert_same_file(&src, &dst);
        assert_eq!(temps(world.dir.path()), [""; 0], "{way:?} {bytes}");
        assert_eq!(remembered(&world), (0, 0), "{way:?} {bytes}");
        fs::remove_file(&dst).unwrap();
    }
}

#[test]
fn a_temp_that_cannot_be_gone_on_with_is_left_for_another() {
    let Some(mut world) = world() else { return };
    let (src, dst) = (world.file("src", 32 * MIB), world.path("dst"));
    let run = |world: &World| world.push(&["--json", "--via", "sftp"], &src, &dst);
    cut_after(&mut world, 16 * MIB, run, kill9_any);
    let temp = world.path(&temps(world.dir.path())[0]);
    fs::remove_file(&temp).unwrap();
    symlink("/dev/null", &temp).unwrap();
    let again = ended(&mut run(&world));
    again.assert_success();
    assert_same_file(&src, &dst);
    assert_eq!(remembered(&world), (0, 0));
}

fn cut_five_times(way: Way) {
    const SIZE: u64 = 96 * MIB;
    let Some(mut world) = world() else { return };
    let (src, dst) = (world.file("src", SIZE), world.path("dst"));
    let args = ["--json", "--via", "sftp", "-j", "2"];
    let run = |world: &World| match way {
        Way::Push => world.push(&args, &src, &dst),
        Way::Pull => world.pull(&args, &src, &dst),
    };
    let mut before = 0;
    for cut in 0..5 {
        let end = if cut % 2 == 0 { kill9_any } else { interrupt };
        cut_after(&mut world, 14 * MIB, run, end);
        let (journals, written) = remembered(&world);
        assert_eq!(journals, 1, "{way:?}, cut {cut}");
        assert!(written >= before, "{way:?}, cut {cut}: {written} after {before}");
        before = written;
    }
    assert!(before >= 5 * 4 * MIB, "{way:?}: {before} bytes in all");
    assert_eq!(temps(world.dir.path()).len(), 1);
    let last = ended(&mut run(&world));
    last.assert_success();
    assert_same_file(&src, &dst);
    let kept = summary(&last)["kept_bytes"].as_u64().unwrap();
    assert!(kept * 10 >= before * 9, "{way:?}: {kept} of {before} bytes were kept");
    assert_eq!((temps(world.dir.path()).len(), remembered(&world)), (0, (0, 0)));
}

#[test]
fn a_push_that_is_cut_five_times_keeps_what_was_acknowledged() {
    cut_five_times(Way::Push);
}

#[test]
fn a_pull_that_is_cut_five_times_keeps_what_was_written() {
    cut_five_times(Way::Pull);
}

#[test]
fn what_is_remembered_of_an_emptied_destination_is_forgotten() {
    let Some(mut world) = world() else { return };
    let (src, dst) = (world.file("src", 64 * MIB), world.path("dst"));
    let run = |world: &World| world.push(&["--json", "--via", "sftp"], &src, &dst);
    cut_after(&mut world, 24 * MIB, run, kill9_any);
    assert!(remembered(&world).1 > 0);
    temps(world.dir.path()).iter().for_each(|temp| fs::remove_file(world.path(temp)).unwrap());
    // What it says now is of the new temp.
    cut_after(&mut world, 8 * MIB, run, kill9_any);
    let (journals, written) = remembered(&world);
    assert!(journals == 1 && written < 12 * MIB, "{journals} with {written} bytes");
    let last = ended(&mut run(&world));
    last.assert_success();
    assert_same_file(&src, &dst);
    assert!(summary(&last)["kept_bytes"].as_u64().unwrap() <= written);
    assert_eq!((temps(world.dir.path()).len(), remembered(&world)), (0, (0, 0)));
}

#[test]
fn a_push_whose_ssh_dies_logs_in_again_and_goes_on() {
    let Some(mut world) = world() else { return };
    let proxy = world.through_proxy(Plan::both(Lane::rate(24 * MIB)));
    let (src, dst) = (world.file("src", 64 * MIB), world.path("dst"));
    let running = start(&mut world.push(&["--json", "--via", "sftp", "-j", "2"], &src, &dst));
    wait_until("half is there", || proxy.moved().0 > 32 * MIB);
    let is_ssh = |pid: &u32| processes::name(*pid).is_some_and(|name| name == "ssh");
    processes::descendants(running.pid()).into_iter().filter(is_ssh).for_each(kill9_any);
    let told = running.finish(LIMIT);
    told.assert_success();
    assert_same_file(&src, &dst);
    assert!(summary(&told)["kept_bytes"].as_u64().unwrap() >= 8 * MIB, "{told:?}");
    assert_eq!(temps(world.dir.path()), [""; 0]);
}

#[test]
fn ctrl_c_ends_at_once_with_20_and_leaves_what_can_be_gone_on_with() {
    cut(Way::Pull, interrupt);
}

#[test]
fn small_temps_of_a_killed_run_are_swept_by_the_next() {
    let Some(mut world) = world() else { return };
    let lane = Lane { delay: std::time::Duration::from_millis(30), ..Lane::default() };
    let proxy = world.through_proxy(Plan::both(lane));
    let src = world.path("src");
    let items: Vec<_> = (0..600).map(|i| Item::file(format!("f{i}"), 3_000)).collect();
    tree::build(&src, &items);
    let dst = world.path("dst");
    let running = start(&mut world.push(&["--via", "sftp"], &slashed(&src), &dst));
    wait_until("some are there", || fs::read_dir(&dst).is_ok_and(|all| all.count() > 50));
    kill9_any(running.pid());
    running.finish(LIMIT);
    drop(proxy);
    world.ssh_config = world.sshd.ssh_config();
    // A temp that is not ours stays.
    fs::write(dst.join(".fcp-0123456789abcdef-1.tmp"), "somebody's").unwrap();
    ended(&mut world.push(&["--via", "sftp"], &slashed(&src), &dst)).assert_success();
    assert_eq!(temps(&dst), [".fcp-0123456789abcdef-1.tmp"]);
    fs::remove_file(dst.join(".fcp-0123456789abcdef-1.tmp")).unwrap();
    ended(&mut world.push(&["--via", "sftp", "-q"], &slashed(&src), &dst)).assert_success();
    rsync::assert_agrees(&src, &dst);
}

#[test]
fn names_with_any_bytes_are_one_operand_each() {
    let Some(world) = world() else { return };
    for (i, name) in
        [&b"a b"[..], b"q'\"`$(x)", b"new\nline", b"\xff\xfe", b"-rf", b"a\\b"].iter().enumerate()
    {
        let file = world.path(bytes(name));
        fs::write(&file, name).unwrap();
        let dst = world.path(format!("copy{i}"));
        ended(&mut world.pull(&["--via", "sftp"], &file, &dst)).assert_success();
        assert_eq!(fs::read(&dst).unwrap(), *name);
    }
}

#[test]
fn links_of_a_pull_are_made_and_never_followed() {
    let Some(world) = world() else { return };
    let (src, outside) = (world.path("src"), world.path("outside"));
    tree::build(&src, &[Item::symlink("link", "../outside"), Item::file("sub/x", 5)]);
    fs::create_dir(&outside).unwrap();
    let dst = world.path("dst");
    fs::create_dir(&dst).unwrap();
    // What leads out of the destination is replaced, not followed.
    symlink(&outside, dst.join("sub")).unwrap();
    ended(&mut world.pull(&["--via", "sftp"], slashed(&src), &dst)).assert_success();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    rsync::assert_agrees(&src, &dst);
}

#[test]
fn content_is_synced_and_compressed_where_that_is_asked_for() {
    let Some(world) = world() else { return };
    let (src, dst) = (world.small("src"), world.path("dst"));
    let args = ["--via", "sftp", "--fsync", "always", "-C", "--json"];
    let told = ended(&mut world.push(&args, &slashed(&src), &dst));
    told.assert_success();
    rsync::assert_agrees(&src, &dst);
    assert!(summary(&told)["wire_bytes_out"].as_u64().unwrap() > 100_000, "{told:?}");
}

#[test]
fn from_host_to_host_through_here() {
    let Some(world) = world() else { return };
    let (src, dst) = (world.small("src"), world.path("dst"));
    let mut command = world.fcp(&["--json"]);
    ended(command.arg(at(HOST, slashed(&src))).arg(at(HOST, &dst))).assert_success();
    rsync::assert_agrees(&src, &dst);
}

#[test]
fn what_is_told_is_what_a_session_tells() {
    let Some(world) = world() else { return };
    let (src, dst) = (world.small("src"), world.path("dst"));
    let told = ended(&mut world.push(&["--json", "--via", "sftp"], &slashed(&src), &dst));
    let over_fcpd = world.path("other");
    let Some(with) = World::new() else { return };
    let same = ended(&mut with.push(&["--json"], &slashed(&src), &over_fcpd));
    let entries = |finished| {
        let mut lines: Vec<String> = json_lines(finished).iter().map(ToString::to_string).collect();
        lines.retain(|line| !line.contains("\"summary\""));
        lines.sort();
        lines
    };
    assert_eq!(entries(&told), entries(&same));
    let (one, other) = (summary(&told), summary(&same));
    for key in ["changed", "same", "failed", "sent_bytes", "total_bytes"] {
        assert_eq!(one[key], other[key], "{key}: {one} {other}");
    }
}

#[test]
fn nothing_readable_by_others_while_it_is_on_its_way() {
    let Some(mut world) = world() else { return };
    let proxy = world.through_proxy(Plan::both(Lane::rate(8 * MIB)));
    let (src, dst) = (world.file("src", 24 * MIB), world.path("dst"));
    let running = start(&mut world.push(&["--via", "sftp"], &src, &dst));
    wait_until("a temp is there", || !temps(world.dir.path()).is_empty());
    for name in temps(world.dir.path()) {
        let mode = fs::metadata(world.path(&name)).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
    }
    kill9_any(running.pid());
    running.finish(LIMIT);
    drop(proxy);
}
