//! Which process left a mark, and whether it still runs.

use std::fmt;
use std::fs;
use std::io;

use rustix::process::getpid;

/// A process, told from every other one: of other hosts, boots and containers, and from a later one
/// with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The host's name.
    pub host: String,
    /// Which boot of it, and which world of process numbers there.
    pub world: String,
    /// Its number there.
    pub pid: u32,
    /// When it started, in ticks since the boot.
    pub start: u64,
}

/// What became of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It runs.
    Alive,
    /// It has ended.
    Dead,
    /// It cannot be seen from here.
    Unknown,
}

impl Process {
    /// This process. What the kernel does not tell is empty or 0; then only the number counts.
    pub fn own() -> Process {
        let pid = getpid().as_raw_nonzero().get().unsigned_abs();
        let boot = line("/proc/sys/kernel/random/boot_id");
        let space = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Process {
            host: line("/proc/sys/kernel/hostname"),
            world: format!("{boot} {}", space.display()),
            pid,
            start: started(pid).ok().flatten().unwrap_or_default(),
        }
    }

    /// What became of it, as `own`, this process, can see.
    pub fn fate(&self, own: &Process) -> Fate {
        if self.host != own.host {
            return Fate::Unknown;
        }
        if self.world != own.world {
            // Another boot of this host ended all that ran; another container is out of sight.
            let boot = |world: &str| world.split(' ').next().unwrap_or_default().to_owned();
            let same = boot(&self.world) == boot(&own.world);
            return if same { Fate::Unknown } else { Fate::Dead };
        }
        match started(self.pid) {
            Ok(Some(start)) if start == self.start => Fate::Alive,
            Ok(_) => Fate::Dead,
            Err(_) => Fate::Unknown,
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", fcp_proto::escape(self.host.as_bytes()), self.pid, self.start)
    }
}

/// When a process started; `None` when it has ended.
fn started(pid: u32) -> io::Result<Option<u64>> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => Ok(start_of(&stat)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // It ended while we read.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Field 22 of proc_pid_stat(5); `None` for one that has ended and waits for its parent. The name,
/// field 2, may hold anything, also `)`.
fn start_of(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_one_with_its_number_but_another_start_is_not() {
        let own = Process::own();
        assert_eq!(own.fate(&own), Fate::Alive);
        let earlier = Process { start: own.start - 1, ..own.clone() };
        assert_eq!(earlier.fate(&own), Fate::Dead);
        let gone = Process { pid: 0x7fff_fff0, ..own.clone() };
        assert_eq!(gone.fate(&own), Fate::Dead);
    }

    #[test]
    fn other_hosts_and_containers_are_out_of_sight_and_other_boots_are_over() {
        let own = Process::own();
        let host = Process { host: "elsewhere".to_owned(), ..own.clone() };
        assert_eq!(host.fate(&own), Fate::Unknown);
        let boot = Process { world: "other pid:[1]".to_owned(), ..own.clone() };
        assert_eq!(boot.fate(&own), Fate::Dead);
        let id = own.world.split(' ').next().unwrap();
        let container = Process { world: format!("{id} pid:[1]"), ..own.clone() };
        assert_eq!(container.fate(&own), Fate::Unknown);
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let mut fields = vec!["S"];
        fields.extend(["0"; 18]);
        let stat = format!("7 (a) b) {} 4711 0", fields.join(" "));
        assert_eq!(start_of(&stat), Some(4711));
        assert_eq!(start_of(&stat.replace(") S", ") Z")), None);
        assert_eq!(start_of("7"), None);
    }
}
