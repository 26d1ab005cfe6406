//! kill -9 at every request and every file-system operation: what was promised holds after each.

use std::time::Duration;

use fcp_tests::process::start;

use crate::programs::ended;
use crate::setup::{After, MIB, Originals, World, YEAR};

/// A large file in three chunks and some small ones.
const TRANSFER: &str =
    "  transfer: {large_file_threshold_mb: 1, chunk_size_mb: 1}\n  max_workers: 2\n";
/// Every so many-th request or operation; `FCP_TESTS=long` takes each one.
const STRIDE: usize = 9;

fn stride() -> usize {
    if std::env::var_os("FCP_TESTS").is_some_and(|value| value == "long") { 1 } else { STRIDE }
}

fn world(after: After) -> Option<(World, Originals)> {
    let world = World::new()?;
    world.file("large.csv", 3 * MIB - 17);
    world.file("a.csv", 5_000);
    world.file("b.csv", 0);
    let originals = Originals::of(&world);
    let _ = after;
    Some((world, originals))
}

type Job = fn(&World, &str) -> std::path::PathBuf;

/// Kills the client at the `nth` request, then runs on. Answers whether it got so far.
fn kill_at(job: Job, after: After, nth: usize) -> bool {
    let Some((world, originals)) = world(after) else { return false };
    job(&world, &format!("{TRANSFER}{}", after.lines()));
    world.faults.plan(&format!("kill * {nth}"));
    let run = start(&mut world.command(&["run", "J", YEAR]));
    world.faults.client(run.pid());
    let ended = run.finish(Duration::from_secs(60));
    let was_killed = ended.code().is_none();
    assert!(was_killed || ended.code() == Some(0), "{}", ended.stderr_text());
    originals.assert_none_lost(&world);
    world.faults.plan("");
    world.run_to_end();
    originals.assert_delivered(&world, after);
    was_killed
}

fn kill_at_requests(job: Job, after: After) {
    // Other places each time, so that all are seen in time.
    let mut nth = 1 + std::process::id() as usize % stride();
    while kill_at(job, after, nth) {
        nth += stride();
    }
}

#[test]
fn s20_killed_at_requests_of_a_download_that_moves() {
    kill_at_requests(World::job, After::Moved);
}

#[test]
fn s22_killed_at_requests_of_a_download_that_zips() {
    kill_at_requests(World::job, After::Zipped);
}

#[test]
fn s20_killed_at_requests_of_a_download_that_deletes() {
    kill_at_requests(World::job, After::Deleted);
}

#[test]
fn s20_killed_at_requests_of_an_upload_that_moves() {
    kill_at_requests(World::upload, After::Moved);
}

#[test]
fn s20_killed_at_requests_between_two_servers() {
    kill_at_requests(World::across, After::Deleted);
}

/// Kills the client at its `nth` file-system operation, then runs on.
fn kill_at_operation(job: Job, after: After, nth: usize) -> bool {
    let Some((world, originals)) = world(after) else { return false };
    job(&world, &format!("{TRANSFER}{}", after.lines()));
    let mut command = world.command(&["run", "J", YEAR]);
    let ended = ended(command.env("FCP_FAULT", format!("kill@{nth}")));
    let was_killed = ended.code().is_none();
    assert!(was_killed || ended.code() == Some(0), "{}", ended.stderr_text());
    originals.assert_none_lost(&world);
    world.run_to_end();
    originals.assert_delivered(&world, after);
    was_killed
}

#[test]
fn s20_killed_at_operations_of_a_download() {
    let mut nth = 1 + std::process::id() as usize % stride();
    while kill_at_operation(World::job, After::Moved, nth) {
        nth += stride();
    }
}

#[test]
fn z13_killed_at_operations_of_an_upload_that_zips() {
    let mut nth = 1 + std::process::id() as usize % stride();
    while kill_at_operation(World::upload, After::Zipped, nth) {
        nth += stride();
    }
}

#[test]
fn a_killed_download_goes_on_where_it_was() {
    let Some(world) = World::new() else { return };
    world.file("large.csv", 48 * MIB);
    let originals = Originals::of(&world);
    world.job(&format!("{TRANSFER}{}", After::Kept.lines()));
    // A chunk of 1 MiB takes five reads, so that the kill comes at half of the file, after a second.
    world.faults.plan("kill read 120\ndelay read");
    let run = start(&mut world.command(&["run", "J", YEAR]));
    world.faults.client(run.pid());
    assert_eq!(run.finish(Duration::from_secs(60)).code(), None);
    world.faults.plan("");
    world.run().assert_success();
    originals.assert_delivered(&world, After::Kept);
    let reads = world.faults.count("read");
    // What was written in the last moments may not be in the ledger; how much depends on the load.
    assert!(reads < 225, "{reads} reads of 240 in all: nothing was kept");
}
