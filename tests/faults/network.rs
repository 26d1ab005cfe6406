//! Connections that are cut, stall, crawl, or change bytes on the way.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use fcp_tests::compare::assert_same_tree;
use fcp_tests::process::{Daemon, Finished, run, start};
use fcp_tests::proxy::{Lane, Plan, Proxy};
use fcp_tests::rsync;
use fcp_tests::tree::{self, Item};
use tempfile::TempDir;

use crate::common::*;

const MIB: u64 = 1 << 20;
/// Beyond the 60 seconds after which a silent peer is dead.
const PATIENCE: Duration = Duration::from_secs(90);

/// A source, an older copy as the destination, and a server.
struct Net {
    way: Way,
    dir: TempDir,
    old: PathBuf,
    new: PathBuf,
    dst: PathBuf,
    daemon: Daemon,
}

impl Net {
    fn new(way: Way, items: &[Item]) -> Net {
        let dir = scratch();
        let [old, new, dst] = ["old", "new", "dst"].map(|name| dir.path().join(name));
        tree::build(&old, &[Item::file("replaced", 3_000).mtime(1, 1)]);
        tree::build(&new, items);
        fs::create_dir(&dst).unwrap();
        Net { way, dir, old, new, dst, daemon: fcpd() }
    }

    /// A few MiB in files of several sizes.
    fn mixed(way: Way) -> Net {
        let mut items = vec![
            Item::file("replaced", 4_000),
            Item::file("large", 3 * MIB + 17),
            Item::file("middle", 200_000),
            Item::file("empty", 0),
            Item::symlink("link", "large"),
        ];
        items.extend((0..20).map(|n| Item::file(format!("d/{n}"), n * 900)));
        Net::new(way, &items)
    }

    fn one(way: Way, size: u64) -> Net {
        Net::new(way, &[Item::file("large", size)])
    }

    /// A destination with nothing but the older copy.
    fn reset(&mut self, n: usize) {
        let _ = fs::remove_dir_all(&self.dst);
        // A name of its own, so that a session that is still ending disturbs nobody.
        self.dst = self.dir.path().join(format!("dst{n}"));
        fs::create_dir(&self.dst).unwrap();
        fs::copy(self.old.join("replaced"), self.dst.join("replaced")).unwrap();
    }

    fn proxy(&self, plan: impl Fn(usize) -> Plan + Send + Sync + 'static) -> Proxy {
        Proxy::start(self.daemon.address(), plan)
    }

    fn through(&self, proxy: &Proxy, connections: u16) -> Finished {
        let mut command =
            self.way.command(connections, &self.new, &self.dst, |path| proxy.url(path));
        let finished = run(&mut command, PATIENCE);
        assert!(!finished.timed_out, "it hangs: {finished:?}\n{}", self.daemon.log());
        finished
    }

    fn directly(&self) -> Finished {
        ended(&mut self.way.command(2, &self.new, &self.dst, |path| self.daemon.url(path)))
    }

    #[track_caller]
    fn assert_done(&self) {
        assert_same_tree(&self.new, &self.dst);
        rsync::assert_agrees(&self.new, &self.dst);
    }

    /// Either done, or failed cleanly with nothing wrong under a name.
    #[track_caller]
    fn assert_done_or_clean(&self, finished: &Finished, told: &str) -> bool {
        assert_old_or_new(&self.old, &self.new, &self.dst);
        assert!(!finished.stderr_text().contains("panic"), "{told}: {finished:?}");
        match finished.code() {
            Some(0) => self.assert_done(),
            // Protocol, start, socket, file, stream, timeout.
            Some(2 | 5 | 10 | 11 | 12 | 30) => {}
            _ => panic!("{told}: {finished:?}"),
        }
        finished.code() == Some(0)
    }

    /// The lane that content takes.
    fn with(&self, lane: Lane) -> Plan {
        if self.way == Way::Push { Plan::up(lane) } else { Plan::down(lane) }
    }
}

#[test]
fn w20_a_further_connection_is_cut_at_any_byte_and_the_transfer_completes() {
    for way in Way::BOTH {
        let mut net = Net::mixed(way);
        let step = if knob("FCP_EVERY", 0) > 0 { 1 } else { 9 };
        let mut random = Random::new(20);
        let places = (0..200).step_by(step).chain((0..40).map(|_| random.below(2 * MIB)));
        for (n, k) in places.collect::<Vec<_>>().into_iter().enumerate() {
            net.reset(n);
            // The second one: it attaches to a session that the first one holds.
            let plan = if n % 2 == 0 { Plan::up(Lane::cut(k)) } else { Plan::down(Lane::cut(k)) };
            let proxy = net.proxy(move |c| if c == 1 { plan } else { Plan::default() });
            let finished = net.through(&proxy, 3);
            assert_eq!(finished.code(), Some(0), "{way:?} cut at {k}: {finished:?}");
            assert_clean(&net.dst);
            net.assert_done();
        }
        assert!(!net.daemon.log().contains("panic"), "{}", net.daemon.log());
    }
}

#[test]
fn w20_the_first_connection_is_cut_at_any_byte() {
    for way in Way::BOTH {
        let mut net = Net::mixed(way);
        let step = if knob("FCP_EVERY", 0) > 0 { 1 } else { 9 };
        let mut random = Random::new(21);
        let places = (0..700).step_by(step * 3).chain((0..40).map(|_| 2_000 + random.below(MIB)));
        for (n, k) in places.collect::<Vec<_>>().into_iter().enumerate() {
            net.reset(n);
            let plan = if n % 2 == 0 { Plan::up(Lane::cut(k)) } else { Plan::down(Lane::cut(k)) };
            // On a busy machine the others may join later than the first is cut; then there is
            // nobody who could go on, and that is not what is looked at here.
            let (mut finished, mut done) = (None, false);
            for _ in 0..5 {
                let proxy = net.proxy(move |c| if c == 0 { plan } else { Plan::default() });
                let told = finished.insert(net.through(&proxy, 3));
                done = net.assert_done_or_clean(told, &format!("{way:?} cut at {k}"));
                if done || k < 2_000 {
                    break;
                }
                net.reset(n);
            }
            // Before the REQUEST there is no session that could go on.
            assert!(done || k < 2_000, "{way:?} cut at {k}: {finished:?}\n{}", net.daemon.log());
            if !done {
                net.directly().assert_success();
                net.assert_done();
            }
        }
        assert!(!net.daemon.log().contains("panic"), "{}", net.daemon.log());
    }
}

#[test]
fn w21_all_connections_are_cut_and_the_next_run_resumes() {
    const SIZE: u64 = 48 * MIB;
    for way in Way::BOTH {
        let net = Net::one(way, SIZE);
        let proxy = net.proxy(|_| Plan::default());
        let moved = || if way == Way::Push { proxy.moved().0 } else { proxy.moved().1 };
        let mut command = way.command(4, &net.new, &net.dst, |path| proxy.url(path));
        let running = start(&mut command);
        eventually("half of it is there", LIMIT, || moved() > SIZE / 2);
        proxy.cut_all();
        running.finish(LIMIT).assert_code(12);
        assert!(!net.dst.join("large").exists());
        thread::sleep(Duration::from_millis(200));
        let again = net.directly();
        again.assert_success();
        net.assert_done();
        assert_clean(&net.dst);
        let again = numbers(&again);
        assert!(again.kept > 0 && again.sent + again.kept == SIZE, "{way:?}: {again:?}");
        assert!(again.sent <= SIZE / 2 + 16 * MIB, "{way:?}: {again:?}");
    }
}

#[test]
fn w22_a_connection_that_falls_silent_does_not_hold_up_the_others() {
    for way in Way::BOTH {
        for silent in [0, 2] {
            let net = Net::one(way, 24 * MIB);
            let lane = Lane::stall(MIB);
            let proxy =
                net.proxy(move |c| if c == silent { Plan::both(lane) } else { Plan::default() });
            let clock = Instant::now();
            let finished = net.through(&proxy, 4);
            assert_eq!(finished.code(), Some(0), "{way:?} {silent}: {finished:?}");
            net.assert_done();
            let took = clock.elapsed();
            assert!(took < Duration::from_secs(20), "{way:?}, {silent} silent: {took:?}");
        }
    }
}

#[test]
fn w22_when_all_fall_silent_both_ends_give_up() {
    if knob("FCP_EVERY", 0) == 0 {
        // It takes the minute after which a peer is dead.
        return;
    }
    let net = Net::one(Way::Push, 24 * MIB);
    let proxy = net.proxy(|_| Plan::both(Lane::stall(2 * MIB)));
    let finished = net.through(&proxy, 2);
    assert_eq!(finished.code(), Some(30), "{finished:?}");
    eventually("the server gives up", LIMIT, || net.daemon.log().contains("failed: "));
    net.directly().assert_success();
    net.assert_done();
}

#[test]
fn w23_one_crawling_connection_among_eight_costs_little() {
    for way in Way::BOTH {
        let mut net = Net::one(way, 32 * MIB);
        let clock = Instant::now();
        let proxy = net.proxy(|_| Plan::default());
        net.through(&proxy, 8).assert_success();
        let alone = clock.elapsed();
        for slow in [5, 0] {
            net.reset(slow);
            fs::remove_file(net.dst.join("replaced")).unwrap();
            let lane = Lane::rate(1024);
            let proxy =
                net.proxy(move |c| if c == slow { Plan::both(lane) } else { Plan::default() });
            let clock = Instant::now();
            net.through(&proxy, 8).assert_success();
            net.assert_done();
            let took = clock.elapsed();
            report(&format!(
                "{way:?} of 32 MiB over 8 connections: {alone:?}; number {slow} at 1 KB/s: {took:?}"
            ));
            assert!(took < alone * 3 + Duration::from_secs(10), "{took:?} instead of {alone:?}");
        }
    }
}

#[test]
fn w24_single_bytes_and_ragged_pieces_change_nothing() {
    for way in Way::BOTH {
        let net =
            Net::new(way, &[Item::file("a", 20_000), Item::file("b", 0), Item::symlink("c", "a")]);
        let byte = Lane { piece: Some(1), ..Lane::default() };
        net.through(&net.proxy(move |_| Plan::both(byte)), 2).assert_success();
        net.assert_done();
        let mut net = Net::mixed(way);
        for piece in [7, 4_099] {
            net.reset(piece);
            let lane = Lane { piece: Some(piece), ..Lane::default() };
            net.through(&net.proxy(move |_| Plan::both(lane)), 2).assert_success();
            net.assert_done();
        }
    }
}

#[test]
fn w25_whoever_sends_to_a_peer_that_stops_reading_keeps_little() {
    const SIZE: u64 = 1 << 30;
    for way in Way::BOTH {
        let dir = scratch();
        let source = dir.path().join("source");
        fs::create_dir(&source).unwrap();
        fs::File::create(source.join("large")).unwrap().set_len(SIZE).unwrap();
        // Many names, too: announcements wait as well.
        (0..3_000).for_each(|n| drop(fs::File::create(source.join(format!("{n:0200}")))));
        let daemon = fcpd();
        let lane = Lane::stall(2 * MIB);
        let plan = if way == Way::Push { Plan::up(lane) } else { Plan::down(lane) };
        let proxy = Proxy::start(daemon.address(), move |_| plan);
        let dst = dir.path().join("dst");
        let mut running = start(&mut way.command(4, &source, &dst, |path| proxy.url(path)));
        thread::sleep(Duration::from_secs(3));
        let sender = if way == Way::Push { running.pid() } else { daemon.pid() };
        let peak = peak_memory(sender);
        running.kill9();
        running.finish(LIMIT);
        assert!(peak > 0 && peak < 256 * MIB, "{way:?}: {} MiB", peak / MIB);
        report(&format!(
            "{way:?} to a peer that stops reading: sender's memory at most {} MiB",
            peak / MIB
        ));
    }
}

#[test]
fn w35_one_damaged_byte_never_ends_up_in_a_file() {
    let (mut done, mut failed, mut slowest) = (0, 0, Duration::ZERO);
    for way in Way::BOTH {
        let mut net = Net::mixed(way);
        let mut random = Random::new(35);
        for n in 0..knob("FCP_FLIPS", 30) {
            net.reset(n as usize);
            // Half of the places among the first bytes, where everything is structure.
            let at = random.below(if n % 2 == 0 { 3 * MIB } else { 3_000 });
            let bits = 1 << random.below(8);
            let lane = Lane::corrupt(at, bits);
            let plan = if n % 4 < 3 { net.with(lane) } else { Plan::both(lane) };
            let proxy =
                net.proxy(move |c| if c == (n % 2) as usize { plan } else { Plan::default() });
            let clock = Instant::now();
            let finished = net.through(&proxy, 2);
            slowest = slowest.max(clock.elapsed());
            let told = format!("{way:?}, byte {at} ^ {bits:#x} of connection {}", n % 2);
            match net.assert_done_or_clean(&finished, &told) {
                true => done += 1,
                false => failed += 1,
            }
        }
        assert!(!net.daemon.log().contains("panic"), "{}", net.daemon.log());
    }
    report(&format!(
        "one damaged byte: {done} transfers went well nevertheless, {failed} failed cleanly, \
         nothing wrong under a name; slowest {slowest:?}"
    ));
}
