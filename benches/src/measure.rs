//! Wall seconds, CPU seconds of both ends and peak memory of one run of a tool.
//!
//! CPU is what the kernel charged to our waited-for children (`cutime`/`cstime` of this process)
//! plus what the daemon and its own children used meanwhile. Only one run may be under way.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::machine::{leading_number, proc_field};

/// How often memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(20);
/// Samples between two looks for new descendants, which read every process of the machine.
const SAMPLES_PER_SEARCH: u32 = 6;
/// A run that takes longer hangs, and is killed.
const LIMIT: Duration = Duration::from_secs(600);
/// How long a daemon may take to bury the process that served the run.
const SETTLE: Duration = Duration::from_secs(2);

/// The figures of one run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Seconds from the start to the end of the last process.
    pub wall: f64,
    /// CPU seconds, user and system, of all processes at both ends.
    pub cpu: f64,
    /// Peak resident memory of the largest process, in KiB, sampled.
    pub peak_kib: u64,
}

/// Runs one tool. `waiting` are its processes already started off the clock (a listener),
/// `daemon` the pid of one that outlives the run, `start` starts the rest.
pub fn measure(
    daemon: Option<u32>,
    waiting: Vec<Child>,
    start: impl FnOnce() -> io::Result<Vec<Child>>,
) -> io::Result<Sample> {
    if let Some(pid) = daemon {
        // Peak memory from now on; a kernel that refuses leaves the daemon's lifetime peak.
        let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
    let cpu = cpu_ticks(daemon)?;
    let clock = Instant::now();
    let mut children = match start() {
        Ok(started) => started,
        Err(e) => {
            reap(waiting, true)?;
            return Err(e);
        }
    };
    children.extend(waiting);
    let peak = Peak::default();
    let mut pids: Vec<u32> = children.iter().map(Child::id).collect();
    let own = pids.clone();
    pids.extend(daemon);
    let (outcome, wall, peak_kib) = thread::scope(|scope| {
        let sampler = scope.spawn(|| peak.follow(&pids, &own, clock));
        let outcome = reap(children, false);
        let wall = clock.elapsed().as_secs_f64();
        peak.done.store(true, Ordering::Release);
        (outcome, wall, sampler.join().unwrap_or(0))
    });
    outcome?;
    if let Some(pid) = daemon {
        settle(pid);
    }
    let ticks = cpu_ticks(daemon)?.saturating_sub(cpu);
    let cpu = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    Ok(Sample { wall, cpu, peak_kib })
}

/// Waits for all; once one has failed, or at once with `kill`, the others are killed first.
fn reap(children: Vec<Child>, mut kill: bool) -> io::Result<()> {
    let mut failure = None;
    for mut child in children {
        if kill {
            child.kill()?;
        }
        let status = child.wait()?;
        if !status.success() && !kill {
            failure = Some(io::Error::other(format!("a process of the tool ended with {status}")));
            kill = true;
        }
    }
    failure.map_or(Ok(()), Err)
}

#[derive(Default)]
struct Peak {
    done: AtomicBool,
}

impl Peak {
    /// The largest `VmHWM` seen of the processes and their descendants; past the limit kills `own`.
    fn follow(&self, pids: &[u32], own: &[u32], clock: Instant) -> u64 {
        let mut highest = 0;
        let mut killed = false;
        let mut family = Vec::new();
        for turn in 0_u32.. {
            if turn.is_multiple_of(SAMPLES_PER_SEARCH) {
                family = with_descendants(pids);
            }
            for &pid in &family {
                highest = highest.max(peak_kib(pid).unwrap_or(0));
            }
            if self.done.load(Ordering::Acquire) {
                return highest;
            }
            if clock.elapsed() > LIMIT && !killed {
                killed = true;
                own.iter().for_each(|&pid| kill(pid));
            }
            thread::sleep(SAMPLE_EVERY);
        }
        highest
    }
}

fn kill(pid: u32) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        // It may have ended on its own a moment ago.
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn peak_kib(pid: u32) -> Option<u64> {
    leading_number(&proc_field(&format!("/proc/{pid}/status"), "VmHWM")?)
}

fn settle(daemon: u32) {
    let clock = Instant::now();
    while with_descendants(&[daemon]).len() > 1 && clock.elapsed() < SETTLE {
        thread::sleep(SAMPLE_EVERY);
    }
}

/// The processes and whatever descends from them, by the parent that each process names.
fn with_descendants(roots: &[u32]) -> Vec<u32> {
    let mut by_parent: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        if let Some(parent) = stat_fields(&pid.to_string()).and_then(|f| f.get(1)?.parse().ok()) {
            by_parent.entry(parent).or_default().push(pid);
        }
    }
    let mut found = roots.to_vec();
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(by_parent.remove(pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// Ticks of our waited-for children, and of the daemon with its own.
fn cpu_ticks(daemon: Option<u32>) -> io::Result<u64> {
    let unreadable = || io::Error::other("a /proc stat file cannot be read: has the daemon died?");
    // After the name: utime 11, stime 12, cutime 13, cstime 14.
    let children = sum_fields("self", 13..15).ok_or_else(unreadable)?;
    let Some(pid) = daemon else { return Ok(children) };
    Ok(children + sum_fields(&pid.to_string(), 11..15).ok_or_else(unreadable)?)
}

fn sum_fields(pid: &str, range: std::ops::Range<usize>) -> Option<u64> {
    stat_fields(pid)?.get(range)?.iter().map(|f| f.parse::<u64>().ok()).sum()
}

/// The fields of `/proc/<pid>/stat` after the name, which alone may hold blanks and brackets.
fn stat_fields(pid: &str) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn counts_cpu_and_memory_of_a_child() {
        let work = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        let start = || Ok(vec![Command::new("sh").args(["-c", work]).spawn()?]);
        let sample = measure(None, Vec::new(), start).unwrap();
        assert!(sample.cpu > 0.02 && sample.wall > 0.02 && sample.peak_kib > 100, "{sample:?}");
    }

    #[test]
    fn a_failing_process_takes_the_waiting_one_with_it() {
        let listener = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
        let clock = Instant::now();
        let start = || Ok(vec![Command::new("false").spawn()?]);
        assert!(measure(None, vec![listener], start).is_err());
        assert!(clock.elapsed() < Duration::from_secs(10));
    }
}
