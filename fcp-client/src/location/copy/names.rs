//! Names beside a file's own: temporary ones, ours and other writers', and numbered ones.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use fcp_proto::path::Name;
use twox_hash::XxHash3_64;

/// What our temporary names begin with.
const TEMP: &[u8] = b".tmp.";
/// The longest name that file systems take, in bytes.
const MAX: usize = 255;
/// The longest ending after a dot that is taken for an extension.
const MAX_EXTENSION: usize = 16;

/// Endings of names that other writers rename when they are done.
const UNFINISHED: [&[u8]; 6] =
    [b".tmp", b".part", b".partial", b".filepart", b".crdownload", b".swp"];
/// Beginnings of such names: ours, those of editors, of office programs.
const BEGUN: [&[u8]; 3] = [TEMP, b".~", b"~$"];

/// Where `name` is staged: `.tmp.NAME`.
pub fn temp_name(name: &Name) -> Name {
    fit(TEMP, name, b"")
}

/// As [`temp_name`], for when something that is not ours has that name: `.tmp.NAME.<8 hex>`.
pub fn other_temp_name(name: &Name) -> Name {
    fit(TEMP, name, format!(".{}", random_hex()).as_bytes())
}

/// `name` with a number before its extension: `report.3.csv`.
pub fn numbered(name: &Name, number: u32) -> Name {
    let bytes = name.as_bytes();
    let dot = bytes.iter().rposition(|b| *b == b'.').unwrap_or(bytes.len());
    let has_extension = dot > 0 && (2..=MAX_EXTENSION + 1).contains(&(bytes.len() - dot));
    let (stem, extension) = bytes.split_at(if has_extension { dot } else { bytes.len() });
    let mut end = format!(".{number}").into_bytes();
    end.extend_from_slice(extension);
    fit(b"", stem, &end)
}

/// Whether a name is that of a file which its writer has not finished, as far as names tell: ours,
/// and those of rsync, WinSCP, browsers, editors and office programs.
pub fn is_temp_name(name: &[u8]) -> bool {
    let lower = name.to_ascii_lowercase();
    BEGUN.iter().any(|begin| lower.starts_with(begin))
        || UNFINISHED.iter().any(|end| lower.ends_with(end))
        || is_rsync(name)
        || fcp_common::fs::is_reserved(name)
}

/// A name for a file that lives for a moment only.
pub(in crate::location) fn probe_name() -> Name {
    fit(TEMP, b"probe", format!(".{}", random_hex()).as_bytes())
}

/// Whether it is the name of such a file.
pub fn is_probe_name(name: &[u8]) -> bool {
    let hex = name.strip_prefix(b".tmp.probe.").unwrap_or_default();
    hex.len() == 8 && hex.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
}

/// Where `name` is set aside while it is replaced: `.tmp.NAME.old`.
pub(in crate::location) fn aside_name(name: &Name) -> Name {
    fit(TEMP, name, b".old")
}

/// `.NAME.XXXXXX`, six letters or digits.
fn is_rsync(name: &[u8]) -> bool {
    let Some((rest, end)) = name.split_at_checked(name.len().saturating_sub(7)) else {
        return false;
    };
    rest.len() > 1
        && rest.starts_with(b".")
        && end.starts_with(b".")
        && end[1..].iter().all(u8::is_ascii_alphanumeric)
}

/// `begin`, as much of `stem` as there is room for, and `end`. A stem that is cut carries a hash of
/// all of it, so that two long names never become one.
fn fit(begin: &[u8], stem: &[u8], end: &[u8]) -> Name {
    let mut name = begin.to_vec();
    if begin.len() + stem.len() + end.len() <= MAX {
        name.extend_from_slice(stem);
    } else {
        let mut hash = XxHash3_64::with_seed(0);
        hash.write(stem);
        let mark = format!("~{:016x}", hash.finish());
        let room = MAX.saturating_sub(begin.len() + end.len() + mark.len());
        name.extend_from_slice(whole_letters(stem, room));
        name.extend_from_slice(mark.as_bytes());
    }
    name.extend_from_slice(end);
    // Between 1 and 255 bytes of names and of our own letters, more than dots.
    #[allow(clippy::expect_used)]
    Name::new(&name).expect("a part of a name, with letters around it")
}

/// The first bytes of `text`, at most `room`, without half a UTF-8 letter at the end: some file
/// systems refuse that.
fn whole_letters(text: &[u8], room: usize) -> &[u8] {
    let mut end = room.min(text.len());
    while end > 0 && text.get(end).is_some_and(|b| b & 0xc0 == 0x80) {
        end -= 1;
    }
    &text[..end]
}

/// Eight hexadecimal digits that nobody guesses. The hasher's keys come from the system.
fn random_hex() -> String {
    format!("{:08x}", RandomState::new().build_hasher().finish() & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn temporary_names_are_known_again() {
        let temps = [
            ".tmp.a.csv",
            ".tmp.x",
            ".TMP.x",
            "a.tmp",
            "a.TMP",
            "b.part",
            "c.partial",
            "d.filepart",
            "e.crdownload",
            ".~lock.f.odt#",
            "~$g.docx",
            ".h.swp",
            ".report.csv.aB3x9Z",
            ".r.123456",
        ];
        for temp in temps {
            assert!(is_temp_name(temp.as_bytes()), "{temp}");
        }
        let files = [
            "a.csv",
            "tmp",
            "a.tmp.csv",
            "part",
            "partial",
            "temp",
            "swp",
            "~home",
            "$x",
            ".bashrc",
            "report.csv.aB3x9Z",
            ".aB3x9Z",
            "..aB3x9",
            ".x.aB3x9-",
            ".x.12345",
            ".x.1234567",
            "sdr.bn4k.BorderNet-SBC.itsegh2vsbc",
        ];
        for file in files {
            assert!(!is_temp_name(file.as_bytes()), "{file}");
        }
    }

    #[test]
    fn numbers_go_before_the_extension() {
        assert_eq!(numbered(&name("a.csv"), 1), name("a.1.csv"));
        assert_eq!(numbered(&name("a.tar.gz"), 12), name("a.tar.12.gz"));
        assert_eq!(numbered(&name("README"), 2), name("README.2"));
        assert_eq!(numbered(&name(".bashrc"), 2), name(".bashrc.2"));
        assert_eq!(numbered(&name("a."), 2), name("a..2"));
    }

    #[test]
    fn long_names_are_cut_between_letters_and_stay_different() {
        let (a, b) = (format!("{}a.csv", "ä".repeat(125)), format!("{}b.csv", "ä".repeat(125)));
        for made in [temp_name, other_temp_name, |n: &Name| numbered(n, 7), aside_name] {
            let (a, b) = (made(&name(&a)), made(&name(&b)));
            assert!(a.as_bytes().len() <= 255 && a.as_bytes().len() > 240);
            assert!(std::str::from_utf8(a.as_bytes()).is_ok());
            assert_ne!(a, b);
        }
        assert!(numbered(&name(&a), 7).as_bytes().ends_with(b".7.csv"));
    }

    #[test]
    fn our_own_names_are_temporary() {
        for made in [
            temp_name(&name("a")),
            other_temp_name(&name("a")),
            probe_name(),
            aside_name(&name("a")),
        ] {
            assert!(is_temp_name(made.as_bytes()), "{made}");
        }
        assert!(is_probe_name(probe_name().as_bytes()));
        assert!(!is_probe_name(b".tmp.probe.csv") && !is_probe_name(b".tmp.probe.0123456"));
        assert_ne!(other_temp_name(&name("a")), other_temp_name(&name("a")));
    }
}
