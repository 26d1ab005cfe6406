//! fcp's own config: defaults, sections of hosts, and what is typed before both.

use fcp_tests::proxy::Plan;

use crate::programs::ended;
use crate::setup::{MIB, World, assert_same_file, assert_told};

const SIZE: u64 = 24 * MIB;

/// How many bytes ssh carries of a push of [`SIZE`] bytes.
fn carried(world: &mut World, args: &[&str]) -> u64 {
    let proxy = world.through_proxy(Plan::default());
    let (src, dst) = (world.file("src", SIZE), world.path("dst"));
    ended(&mut world.push(args, &src, &dst)).assert_success();
    assert_same_file(&src, &dst);
    std::fs::remove_file(dst).unwrap();
    proxy.moved().0
}

#[test]
fn never_direct_may_stand_in_the_config_for_one_host_or_all() {
    let Some(mut world) = World::new() else { return };
    assert!(carried(&mut world, &[]) < SIZE / 4);
    for config in [
        "[host.fcptest]\ndirect = \"never\"\n",
        "[defaults]\ndirect = \"never\"\n",
        "[host.fcptest]\nvia = \"stdio\"\n",
    ] {
        world.fcp_config(config);
        assert!(carried(&mut world, &[]) > SIZE, "{config}");
    }
    world.fcp_config("[host.fcptest]\ndirect = \"never\"\n");
    assert!(carried(&mut world, &["--direct", "auto"]) < SIZE / 4, "what is typed comes first");
    world.fcp_config("[host.other]\ndirect = \"never\"\n");
    assert!(carried(&mut world, &[]) < SIZE / 4, "another host's section");
}

#[test]
fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
    let Some(world) = World::new() else { return };
    world.fcp_config("[defaults]\nconections = 3\n");
    let src = world.file("src", 10);
    let told = ended(&mut world.push(&[], &src, world.path("dst")));
    assert_told(&told, 1, &["conections", "connections"]);
    assert_eq!(world.sshd.logins(), 0);
}

#[test]
fn config_show_names_the_source_of_every_value() {
    let Some(world) = World::new() else { return };
    world.fcp_config("[defaults]\nconnections = 3\n");
    let told = ended(&mut world.fcp(&["config", "show"]));
    told.assert_success();
    let text = told.stdout_text();
    let line = text.lines().find(|line| line.contains("connections")).unwrap_or_default();
    assert!(line.contains('3') && line.contains("config.toml"), "{text}");
}
