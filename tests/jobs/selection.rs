//! Which files are picked up, once, and what happens to what stands at the destination.

use std::fs;

use crate::setup::{After, MONTH, Originals, World, age};

fn out(world: &World, name: &str) -> std::path::PathBuf {
    world.path("out").join(MONTH).join(name)
}

#[test]
fn what_was_delivered_is_never_sent_again_even_if_the_consumer_took_it() {
    let Some(world) = World::new() else { return };
    world.file("a.csv", 1000);
    world.job(After::Kept.lines());
    world.run().assert_success();
    fs::remove_file(out(&world, "a.csv")).unwrap();
    world.run().assert_success();
    assert!(world.visible("out").is_empty());
    // Another version of it is another file.
    world.file("a.csv", 1001);
    world.run().assert_success();
    assert_eq!(world.visible("out").len(), 1);
}

#[test]
fn a_late_file_with_an_old_time_is_still_seen() {
    let Some(world) = World::new() else { return };
    world.file("a.csv", 10);
    world.job(After::Kept.lines());
    world.run().assert_success();
    age(&world.file("late.csv", 10), 400 * 86_400);
    world.run().assert_success();
    assert_eq!(world.visible("out").len(), 2);
}

#[test]
fn the_larger_file_at_the_destination_stays_by_default() {
    for (more, replaced_small, replaced_large) in [
        ("", true, false),
        ("  overwrite: never\n", false, false),
        ("  overwrite: always\n", true, true),
        ("  overwrite: differs\n", true, true),
    ] {
        let Some(world) = World::new() else { return };
        world.file("small.csv", 1000);
        world.file("large.csv", 1000);
        fs::create_dir_all(world.path("out").join(MONTH)).unwrap();
        fs::write(out(&world, "small.csv"), "a few bytes").unwrap();
        fs::write(out(&world, "large.csv"), [b'x'; 5000]).unwrap();
        world.job(&format!("{}{more}", After::Kept.lines()));
        world.run().assert_success();
        let is_new = |name| fs::metadata(out(&world, name)).unwrap().len() == 1000;
        assert_eq!(is_new("small.csv"), replaced_small, "{more}");
        assert_eq!(is_new("large.csv"), replaced_large, "{more}");
        assert_eq!(world.visible("out").len(), 2);
    }
}

#[test]
fn s23_a_larger_unrelated_file_never_costs_the_source() {
    let Some(world) = World::new() else { return };
    world.file("a.csv", 1000);
    fs::create_dir_all(world.path("out").join(MONTH)).unwrap();
    fs::write(out(&world, "a.csv"), [b'x'; 5000]).unwrap();
    world.job(After::Deleted.lines());
    let ran = world.run();
    assert_eq!(world.visible("in").len(), 1, "{}", ran.stderr_text());
    assert_eq!(fs::read(out(&world, "a.csv")).unwrap(), [b'x'; 5000]);
    assert!(ran.stderr_text().contains("a.csv") || ran.stdout_text().contains("a.csv"));
}

#[test]
fn s15_age_counts_by_the_servers_clock() {
    let Some(world) = World::new() else { return };
    world.file("old.csv", 10);
    age(&world.file("young.csv", 10), 60);
    age(&world.file("future.csv", 10), 0);
    let path = world.path("in").join(MONTH).join("future.csv");
    let future = std::time::SystemTime::now() + std::time::Duration::from_secs(86_400);
    fs::File::options().write(true).open(path).unwrap().set_modified(future).unwrap();
    world.job(&format!("{}  min_file_age_minutes: 30\n", After::Kept.lines()));
    world.run().assert_success();
    let there: Vec<_> = world.visible("out").into_keys().collect();
    assert_eq!(there, [format!("{MONTH}/old.csv")]);
}

#[test]
fn a_marker_gates_its_file() {
    let Some(world) = World::new() else { return };
    for name in ["a.csv", "b.csv", "a.csv.done"] {
        world.file(name, 10);
    }
    world.job(&format!(
        "{}  marker: \"{{name}}.done\"\n  file_pattern: csv$\n",
        After::Kept.lines()
    ));
    world.run().assert_success();
    let there: Vec<_> = world.visible("out").into_keys().collect();
    assert_eq!(there, [format!("{MONTH}/a.csv")]);
}

#[test]
fn other_layouts_and_flat_destinations() {
    let Some(world) = World::new() else { return };
    for day in ["2024/03/01", "2024/03/02"] {
        let folder = world.path("in").join(day);
        fs::create_dir_all(&folder).unwrap();
        let name = folder.join(format!("{}.csv", day.replace('/', "-")));
        fs::write(&name, day).unwrap();
        age(&name, 3600);
    }
    let more = "  folder_pattern: \"{yyyy}/{mm}/{dd}\"\n  layout: flat\n";
    world.job(&format!("{}{more}", After::Moved.lines()));
    world.run().assert_success();
    let there: Vec<_> = world.visible("out").into_keys().collect();
    assert_eq!(there, ["2024-03-01.csv", "2024-03-02.csv"]);
    assert!(world.path("in/2024/03/01/DONE/2024-03-01.csv").exists());
}

#[test]
fn two_sources_for_one_flat_name_both_survive() {
    let Some(world) = World::new() else { return };
    for (month, content) in [("2024/202403", "march"), ("2024/202404", "april")] {
        let path = world.path("in").join(month).join("a.csv");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        age(&path, 3600);
    }
    world.job(&format!("{}  layout: flat\n", After::Deleted.lines()));
    world.run();
    world.run();
    let mut contents: Vec<_> = world.visible("out").into_values().collect();
    contents.extend(world.visible("in").into_values());
    contents.sort();
    assert_eq!(contents, [b"april".to_vec(), b"march".to_vec()]);
}

#[test]
fn links_and_folders_are_not_picked_up() {
    let Some(world) = World::new() else { return };
    world.file("a.csv", 10);
    let month = world.path("in").join(MONTH);
    std::os::unix::fs::symlink("/etc/passwd", month.join("link.csv")).unwrap();
    fs::create_dir(month.join("folder.csv")).unwrap();
    // A month that is a link leads somewhere else.
    std::os::unix::fs::symlink(&month, world.path("in/2024/202404")).unwrap();
    let originals = Originals::of(&world);
    world.job(After::Kept.lines());
    world.run().assert_success();
    originals.assert_delivered(&world, After::Kept);
}
