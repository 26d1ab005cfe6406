//! The names that belong to us in a user's directories.

use fcp_proto::path::Name;

/// The directory in a transfer's root that holds the journals of its runs.
pub const JOURNAL_DIR: &str = ".fcp-journal";

const PREFIX: &[u8] = b".fcp-";
const SUFFIX: &[u8] = b".tmp";
const RUN_DIGITS: usize = 16;
const MAX_COUNTER_DIGITS: usize = 16;

/// One run of the program into one destination. Random, so that nobody can guess its temps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub u64);

impl RunId {
    /// A new one.
    #[cfg(feature = "io")]
    pub fn random() -> RunId {
        // Six bits of a version 4 UUID are fixed; folding the halves gives each a random partner.
        let bits = uuid::Uuid::new_v4().as_u128();
        RunId((bits >> 64) as u64 ^ bits as u64)
    }

    /// The name of this run's journal: 16 hexadecimal digits.
    pub fn journal_name(self) -> Name {
        known_good(format!("{:016x}", self.0).as_bytes())
    }

    /// The run whose journal has this name.
    pub fn from_journal_name(name: &[u8]) -> Option<RunId> {
        (name.len() == RUN_DIGITS).then(|| hex(name))?.map(RunId)
    }

    /// The name of this run's temp number `counter`: `.fcp-<16 hex run id>-<hex counter>.tmp`.
    pub fn temp_name(self, counter: u64) -> Name {
        known_good(format!(".fcp-{:016x}-{counter:x}.tmp", self.0).as_bytes())
    }
}

/// The run and the counter of a temp name, if it is exactly one.
pub fn parse_temp(name: &[u8]) -> Option<(RunId, u64)> {
    let middle = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let (run, counter) = middle.split_at_checked(RUN_DIGITS)?;
    let counter = counter.strip_prefix(b"-")?;
    if counter.len() > 1 && counter.first() == Some(&b'0') {
        return None;
    }
    Some((RunId(hex(run)?), hex(counter)?))
}

/// Whether a name is one that we make ourselves, and so is neither sent nor accepted.
pub fn is_reserved(name: &[u8]) -> bool {
    name == JOURNAL_DIR.as_bytes() || parse_temp(name).is_some()
}

/// [`JOURNAL_DIR`] as a name.
pub fn journal_dir() -> Name {
    known_good(JOURNAL_DIR.as_bytes())
}

/// Lower-case hexadecimal digits only: each number then has one spelling.
fn hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > MAX_COUNTER_DIGITS {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

fn known_good(bytes: &[u8]) -> Name {
    // Callers spell dots, hexadecimal digits and letters, fewer than 64.
    #[allow(clippy::unwrap_used)]
    Name::new(bytes).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p06_only_the_exact_pattern_is_ours() {
        let run = RunId(0x0123_4567_89ab_cdef);
        for counter in [0, 1, 0xff, u64::MAX] {
            assert_eq!(parse_temp(&run.temp_name(counter)), Some((run, counter)));
        }
        for other in [
            ".fcp-0123456789abcdef-.tmp",
            ".fcp-0123456789abcdef-1.tmp.gz",
            ".fcp-0123456789abcdef-1",
            ".fcp-0123456789ABCDEF-1.tmp",
            ".fcp-0123456789abcde-1.tmp",
            ".fcp-0123456789abcdef-01.tmp",
            ".fcp-0123456789abcdef-11112222333344445.tmp",
            "fcp-0123456789abcdef-1.tmp",
            ".fcp-0123456789abcdef+1.tmp",
            ".fcp-é.tmp",
        ] {
            assert!(!is_reserved(other.as_bytes()), "{other}");
        }
        assert!(is_reserved(b".fcp-journal"));
        assert!(!is_reserved(b".fcp-journal2"));
    }

    #[test]
    fn journal_names_are_read_back() {
        let run = RunId(7);
        assert_eq!(RunId::from_journal_name(&run.journal_name()), Some(run));
        assert_eq!(RunId::from_journal_name(b"7"), None);
    }
}
