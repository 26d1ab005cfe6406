//! Exit codes, dry runs, and what a program hears of a run.

use std::fs;

use fcp_tests::process::start;
use serde_json::Value;

use crate::programs::{LIMIT, ended};
use crate::setup::{After, MONTH, Originals, World, YEAR};

#[test]
fn nothing_to_do_is_success_and_says_so() {
    let Some(world) = World::new() else { return };
    fs::create_dir_all(world.path("in").join(MONTH)).unwrap();
    world.job(After::Kept.lines());
    let ran = ended(&mut world.command(&["run", "J", YEAR, "--json"]));
    ran.assert_success();
    let last: Value = serde_json::from_str(ran.stdout_text().lines().last().unwrap()).unwrap();
    assert_eq!(last["delivered"], 0);
    assert_eq!(last["exit_code"], 0);
}

#[test]
fn a_missing_month_is_reported_and_no_error() {
    let Some(world) = World::new() else { return };
    world.file("a.csv", 10);
    world.job(After::Kept.lines());
    let ran = ended(&mut world.command(&["run", "J", YEAR, "--json"]));
    ran.assert_success();
    let last: Value = serde_json::from_str(ran.stdout_text().lines().last().unwrap()).unwrap();
    assert_eq!(last["missing_folders"].as_array().unwrap().len(), 11);
    assert_eq!(last["delivered"], 1);
}

#[test]
fn a_name_that_is_no_job_is_usage_and_means_something_else() {
    let Some(world) = World::new() else { return };
    world.job(After::Kept.lines());
    let ran = ended(&mut world.command(&["run", "Jj", YEAR]));
    ran.assert_code(1);
    assert!(ran.stderr_text().contains('J'), "{}", ran.stderr_text());
    for year in ["20230", "../x", "-5", "２０２４"] {
        ended(&mut world.command(&["run", "J", year])).assert_code(1);
    }
}

#[test]
fn a_second_run_of_a_job_waits_for_nobody() {
    let Some(world) = World::new() else { return };
    world.file("a.csv", 10);
    world.job(After::Kept.lines());
    world.faults.plan("stall read 1");
    let first = start(&mut world.command(&["run", "J", YEAR]));
    while world.faults.count("read") == 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let second = ended(&mut world.command(&["run", "J", YEAR]));
    second.assert_code(75);
    assert!(second.stderr_text().contains(&first.pid().to_string()), "{}", second.stderr_text());
    // What it was doing can be seen meanwhile.
    let status = ended(&mut world.command(&["status", "J"]));
    status.assert_success();
    assert!(status.stdout_text().contains("a.csv"), "{}", status.stdout_text());
    // A copy that waits for a server that stalls keeps nobody.
    let told = std::time::Instant::now();
    first.signal(rustix::process::Signal::TERM);
    first.finish(LIMIT).assert_code(20);
    assert!(told.elapsed() < std::time::Duration::from_secs(5), "{:?}", told.elapsed());
    world.faults.plan("");
    world.run().assert_success();
}

#[test]
fn a_dry_run_tells_exactly_what_a_run_does_and_touches_nothing() {
    let Some(world) = World::new() else { return };
    world.file("a.csv", 10);
    world.file("b.csv", 20);
    world.file(".tmp.c.csv", 20);
    let originals = world.visible("in");
    world.job(&format!("{}  file_pattern: csv$\n", After::Moved.lines()));
    let dry = ended(&mut world.command(&["run", "J", YEAR, "--dry-run", "--json"]));
    dry.assert_success();
    let events = |text: String| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let told_of = |kind: &str, events: &[Value]| {
        let named = |event: &&Value| event["event"] == kind;
        let name = |event: &Value| {
            let file = event.get("file").or(event.get("source")).unwrap().as_str().unwrap();
            file.rsplit(' ').next().unwrap().to_owned()
        };
        let mut files: Vec<String> = events.iter().filter(named).map(name).collect();
        files.sort();
        files
    };
    let told = events(dry.stdout_text());
    assert_eq!(world.visible("in"), originals);
    assert!(world.visible("out").is_empty() && world.temps("out").is_empty());
    let writing = ["write", "mkdir", "rename", "remove", "setstat", "fsetstat"];
    assert!(writing.iter().all(|request| world.faults.count(request) == 0));
    let real = ended(&mut world.command(&["run", "J", YEAR, "--json"]));
    real.assert_success();
    let expected = ["a.csv", "b.csv"].map(|name| format!("{MONTH}/{name}"));
    assert_eq!(told_of("planned", &told), expected);
    assert_eq!(told_of("done", &events(real.stdout_text())), expected);
}

#[test]
fn hooks_get_the_summary_and_change_nothing() {
    let Some(world) = World::new() else { return };
    world.file("a.csv", 10);
    let heard = world.path("heard");
    let hooks = format!("  on_success: \"cat > {}; echo loud; exit 7\"\n", heard.display());
    world.job(&format!("{}{hooks}", After::Kept.lines()));
    let ran = ended(&mut world.command(&["run", "J", YEAR, "--json"]));
    ran.assert_success();
    for line in ran.stdout_text().lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
    assert!(ran.stderr_text().contains("hook: loud"), "{}", ran.stderr_text());
    let summary: Value = serde_json::from_slice(&fs::read(heard).unwrap()).unwrap();
    assert_eq!(summary["delivered"], 1);
}

#[test]
fn s13_a_check_and_a_run_say_the_same_of_missing_bases() {
    let Some(world) = World::new() else { return };
    let check = || ended(&mut world.command(&["check", "J"]));
    world.file("a.csv", 10);
    fs::remove_dir(world.path("out")).unwrap();
    world.job(&format!("{}  folder_pattern: \"2024/202403\"\n", After::Kept.lines()));
    check().assert_success();
    assert!(!world.path("out").exists());
    world.upload(&format!("{}  folder_pattern: \"2024/202403\"\n", After::Kept.lines()));
    check().assert_success();
    assert!(!world.path("out").exists());
    fs::rename(world.path("in"), world.path("elsewhere")).unwrap();
    for job in [World::job, World::upload] {
        job(&world, After::Kept.lines());
        check().assert_code(23);
        world.run().assert_code(23);
    }
}

#[test]
fn a_refused_login_ends_every() {
    let Some(world) = World::new() else { return };
    let yaml = fs::read_to_string(world.job(After::Kept.lines())).unwrap();
    world.write(&yaml.replace("client_key", "host_key"));
    let ran = ended(&mut world.command(&["run", "J", "--every", "1s"]));
    ran.assert_code(10);
    assert!(ran.stderr_text().contains("--every ends here"), "{}", ran.stderr_text());
    assert_eq!(ran.stderr_text().matches("fcp: J: ").count(), 1, "{}", ran.stderr_text());
}

#[test]
fn the_log_and_the_audit_name_every_file() {
    let Some(world) = World::new() else { return };
    world.file("a.csv", 10);
    world.file("young.csv", 10);
    crate::setup::age(&world.path("in").join(MONTH).join("young.csv"), 0);
    let logs = format!("  log_dir: \"{}\"\n  min_file_age_minutes: 5\n", world.path("l").display());
    world.job(&format!("{}{logs}", After::Moved.lines()));
    world.run().assert_success();
    let log = fs::read_to_string(world.path("l/logs/fcp_job_J_2024.log")).unwrap();
    assert!(log.contains("a.csv") && log.contains("young.csv"), "{log}");
    let audit = fs::read_dir(world.path("l/logs")).unwrap().map(|entry| entry.unwrap().path());
    let audit = audit.filter(|path| path.extension().is_some_and(|e| e == "jsonl"));
    let lines: String = audit.map(|path| fs::read_to_string(path).unwrap()).collect();
    let records: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let delivered = records.iter().find(|r| r["source"].to_string().contains("/a.csv")).unwrap();
    assert!(delivered["hash"].as_str().unwrap().starts_with("sha256:"), "{delivered}");
    assert!(delivered["action"].as_str().unwrap().contains("DONE"), "{delivered}");
    assert!(lines.contains("young.csv"), "a skip is audited, with its reason");
}

#[test]
fn originals_are_judged() {
    // The judge itself must be able to fail.
    let Some(world) = World::new() else { return };
    let path = world.file("a.csv", 10);
    let originals = Originals::of(&world);
    fs::remove_file(path).unwrap();
    let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        originals.assert_none_lost(&world);
    }));
    assert!(judged.is_err());
}
