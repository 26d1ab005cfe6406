//! What a run was measured on, and the folder its results go to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Days of the proleptic Gregorian calendar in one 400-year era.
const DAYS_PER_ERA: i64 = 146_097;

/// The facts about a machine that a reader needs to place its figures.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Processor model as the kernel names it.
    pub cpu: String,
    /// Processors this process may run on.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// Memory in GiB, rounded.
    pub memory_gib: u64,
}

impl Machine {
    /// Reads `/proc`; what cannot be read stays "unknown" or 0, for no figure depends on it.
    pub fn read() -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let kib = proc_field("/proc/meminfo", "MemTotal").and_then(|v| leading_number(&v));
        Self {
            cpu: proc_field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: release.trim().to_owned(),
            memory_gib: kib.map_or(0, |kib| (kib + (1 << 19)) >> 20),
        }
    }

    /// The folder `<root>/<date>-<cpu>[-<what>]`, made if need be; `what` may be empty.
    pub fn run_dir(&self, root: &Path, what: &str) -> io::Result<PathBuf> {
        let cpu = self.cpu.split_whitespace().collect::<Vec<_>>().join("-");
        let mut name = format!("{}-{cpu}", today());
        if !what.is_empty() {
            name = format!("{name}-{what}");
        }
        let dir = root.join(name);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// The opening lines of a run's `setup.md`.
    pub fn markdown(&self) -> String {
        let Self { cpu, cores, kernel, memory_gib } = self;
        format!("- cpu: {cpu}, {cores} cores\n- memory: {memory_gib} GiB\n- kernel: {kernel}\n")
    }
}

/// The value of `key` in a `/proc` file of `key: value` lines.
pub fn proc_field(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

/// The number a text such as `123 kB` begins with.
pub fn leading_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// Today's date in UTC as `YYYY-MM-DD`.
pub fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (year, month, day) = civil_date((seconds / 86_400).cast_signed());
    format!("{year:04}-{month:02}-{day:02}")
}

/// Days since 1970-01-01 to (year, month, day). Years start in March here, so that the leap day is the last one.
fn civil_date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(DAYS_PER_ERA);
    let day_of_era = shifted.rem_euclid(DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_around_leap_days() {
        assert_eq!(civil_date(0), (1970, 1, 1));
        assert_eq!(civil_date(11_016), (2000, 2, 29));
        assert_eq!(civil_date(11_017), (2000, 3, 1));
        assert_eq!(civil_date(20_777), (2026, 11, 20));
    }
}
