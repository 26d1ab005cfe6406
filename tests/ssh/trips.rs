//! What a session costs beyond the login, in round trips of a long path.

use std::path::Path;
use std::time::{Duration, Instant};

use fcp_tests::proxy::{Lane, Plan, Proxy};
use fcp_tests::sshd::HOST;

use crate::programs::ended;
use crate::setup::{World, assert_same_file};

/// So long that what the programs themselves take hardly counts.
const ROUND_TRIP: Duration = Duration::from_millis(200);

fn far(world: &mut World) -> Proxy {
    world.through_proxy(Plan::both(Lane::latency(ROUND_TRIP / 2)))
}

fn shortest(mut run: impl FnMut()) -> Duration {
    let mut once = || {
        let clock = Instant::now();
        run();
        clock.elapsed()
    };
    once().min(once())
}

/// What `ssh HOST true` takes.
fn of_ssh(world: &World) -> Duration {
    shortest(|| {
        let mut ssh = std::process::Command::new("ssh");
        ssh.arg("-F").arg(&world.ssh_config).args([HOST, "true"]);
        assert!(ssh.status().unwrap().success());
    })
}

#[track_caller]
fn assert_trips(what: &str, took: Duration, ssh: Duration, limit: f64) {
    let trips = took.saturating_sub(ssh).as_secs_f64() / ROUND_TRIP.as_secs_f64();
    println!("{what}: {trips:.2} round trips more than ssh");
    assert!(trips < limit, "{what}: {trips:.2} round trips more than ssh, {limit} at most");
}

fn push(world: &World, args: &[&str], src: &Path) -> Duration {
    shortest(|| {
        let _ = std::fs::remove_file(world.path("there"));
        ended(&mut world.push(args, src, world.path("there"))).assert_success();
        assert_same_file(src, &world.path("there"));
    })
}

fn pull(world: &World, args: &[&str], src: &Path) -> Duration {
    shortest(|| {
        let _ = std::fs::remove_file(world.path("back"));
        ended(&mut world.pull(args, src, &world.path("back"))).assert_success();
        assert_same_file(src, &world.path("back"));
    })
}

/// HELLO and ACCEPT travel with what ssh says of its command. A push then waits for wants and for
/// results, a pull for entries, for content, and until its CLOSE is known to have come.
#[test]
fn a_session_of_one_small_file_takes_three_round_trips_more_than_ssh_at_most() {
    let Some(mut world) = World::new() else { return };
    let _proxy = far(&mut world);
    let src = world.file("src", 1000);
    let ssh = of_ssh(&world);
    for args in [&["--via", "stdio"][..], &[]] {
        assert_trips(&format!("push {args:?}"), push(&world, args, &src), ssh, 2.8);
        assert_trips(&format!("pull {args:?}"), pull(&world, args, &src), ssh, 3.8);
    }
}
