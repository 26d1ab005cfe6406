//! Reads the TCP table from `/proc/net/tcp` and `tcp6`, where `sock_diag` is missing.
//!
//! The cost grows with the number of sockets on the host, which anybody can drive up; it is the
//! fallback for that reason.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::row::{Row, TcpState, Tuple};

/// Longest line worth parsing. The kernel pads tcp to 150 bytes and tcp6 to about 190.
const MAX_LINE: u64 = 512;
/// Most rows kept from one scan: a large `SO_REUSEPORT` group of listeners, and then some.
const MAX_ROWS: usize = 1024;

/// The distinct rows below `proc_root` that `keep` wants, IPv4 and IPv6 together: one end of a
/// mapped connection is listed in tcp, the other in tcp6.
///
/// # Errors
/// As the files; `tcp6` alone may be absent, as it is on a kernel without IPv6.
pub(super) fn rows(proc_root: &Path, keep: impl Fn(&Row) -> bool) -> io::Result<Vec<Row>> {
    let mut found = Vec::new();
    scan(open(proc_root, "net/tcp")?, &keep, &mut found)?;
    match open(proc_root, "net/tcp6") {
        Ok(tcp6) => scan(tcp6, &keep, &mut found)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    Ok(found)
}

fn open(proc_root: &Path, table: &str) -> io::Result<BufReader<File>> {
    // The kernel fills what it is given, and a big buffer makes the scan close to one moment.
    Ok(BufReader::with_capacity(1 << 18, File::open(proc_root.join(table))?))
}

/// Adds the rows of one table that `keep` wants. Lines that are no rows (the heading, a future
/// format) are skipped: a row that is not understood is a row that is not believed.
fn scan(
    mut table: impl BufRead,
    keep: &impl Fn(&Row) -> bool,
    found: &mut Vec<Row>,
) -> io::Result<()> {
    let mut line = Vec::new();
    while next_line(&mut table, &mut line)? {
        let Some(row) = parse_row(&line).filter(keep) else { continue };
        if found.contains(&row) {
            continue;
        }
        if found.len() == MAX_ROWS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many matching rows"));
        }
        found.push(row);
    }
    Ok(())
}

/// Reads one line into `line`, false at the end. A line above [`MAX_LINE`] comes back empty.
fn next_line(table: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut whole = true;
    loop {
        let read = table.by_ref().take(MAX_LINE).read_until(b'\n', line)?;
        let ended = line.last() == Some(&b'\n') || (read as u64) < MAX_LINE;
        let some = read > 0 || !whole;
        if !ended || !whole {
            whole = false;
            line.clear();
        }
        if ended {
            return Ok(some);
        }
    }
}

/// `sl local rem st tx:rx tr:when retrnsmt uid timeout inode ...`
fn parse_row(line: &[u8]) -> Option<Row> {
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let local = parse_address(fields.nth(1)?)?;
    let remote = parse_address(fields.next()?)?;
    let state = u8::try_from(hex(fields.next()?, 2)?).ok()?;
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    Some(Row { tuple: Tuple::new(local, remote), state: TcpState(state), uid, inode })
}

fn parse_address(field: &str) -> Option<SocketAddr> {
    let (ip, port) = field.split_once(':')?;
    let port = u16::try_from(hex(port, 4)?).ok()?;
    Some(SocketAddr::new(parse_ip(ip)?, port))
}

/// The kernel prints an address as host-order words, each in eight hexadecimal digits.
fn parse_ip(field: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(hex(field.get(at..at + 8)?, 8)?.to_ne_bytes());
    match field.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut octets = [0; 16];
            for (i, part) in octets.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(i * 8)?);
            }
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

fn hex(field: &str, digits: usize) -> Option<u32> {
    let exact = field.len() == digits && field.bytes().all(|b| b.is_ascii_hexdigit());
    exact.then(|| u32::from_str_radix(field, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when";

    fn line(local: &str, remote: &str, state: &str, uid: u32, inode: u32) -> String {
        let zeros = "00000000:00000000 00:00000000 00000000";
        format!("   0: {local} {remote} {state} {zeros} {uid:5} 0 {inode} 1 0 20 4 30 10 -1\n")
    }

    fn scan_all(bytes: &[u8]) -> Vec<Row> {
        let mut found = Vec::new();
        scan(bytes, &|_| true, &mut found).unwrap();
        found
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn rows_of_both_families_parse() {
        let v4 = line("0100007F:1D63", "0100007F:CB8A", "01", 1000, 42);
        let v6 = line(
            "00000000000000000000000001000000:1D63",
            "0000000000000000FFFF00000100007F:CB8A",
            "0A",
            7,
            43,
        );
        let found = scan_all(format!("{HEADING}\n{v4}{v6}").as_bytes());
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].tuple.local, "127.0.0.1:7523".parse().unwrap());
        assert_eq!((found[0].state, found[0].uid, found[0].inode), (TcpState(1), 1000, 42));
        assert_eq!(found[1].tuple.local, "[::1]:7523".parse().unwrap());
        assert_eq!(found[1].tuple.remote, "127.0.0.1:52106".parse().unwrap(), "A13: mapped");
    }

    #[test]
    fn garbage_around_a_row_does_not_hide_it() {
        let good = line("0100007F:1D63", "0100007F:CB8A", "01", 1000, 42);
        for junk in ["", "\n\n", "x", "\u{0}\u{1b}[2J\n", "   0: 0100007F:1D63 0100007F\n"] {
            let text = format!("{junk}\n{good}{junk}");
            assert_eq!(scan_all(text.as_bytes()).len(), 1, "{junk:?}");
        }
    }

    #[test]
    fn an_endless_line_is_skipped_whole() {
        let good = line("0100007F:1D63", "0100007F:CB8A", "01", 1000, 42);
        for length in [511, 512, 513, 1023, 1024, 1025, 100_000] {
            // The end of the long line looks like a row, and must not be taken for one.
            let text = format!("{} {good}{good}", "x".repeat(length));
            assert_eq!(scan_all(text.as_bytes()).len(), 1, "{length}");
            assert_eq!(scan_all("x".repeat(length).as_bytes()).len(), 0, "{length}");
        }
    }

    #[test]
    fn signs_and_wrong_widths_are_no_numbers() {
        for bad in ["+100007F:1D63", "0100007F:+D63", "100007F:1D63", "0100007F:01D63", ":", "é:1"]
        {
            assert_eq!(parse_address(bad), None, "{bad}");
        }
        assert_eq!(scan_all(line("0100007F:1D63", "0100007F:CB8A", "+1", 0, 1).as_bytes()), []);
    }

    #[test]
    fn too_many_rows_are_an_error_not_a_guess() {
        let many: String =
            (0..2000).map(|i| line("0100007F:1D63", "0100007F:CB8A", "0A", 0, i)).collect();
        assert!(scan(many.as_bytes(), &|_| true, &mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            scan_all(&bytes);
        }

        #[test]
        fn no_fields_panic(text in "( *[0-9A-F]{0,33}:?[0-9A-F]{0,5}){0,14}\n?") {
            scan_all(text.as_bytes());
        }
    }
}
