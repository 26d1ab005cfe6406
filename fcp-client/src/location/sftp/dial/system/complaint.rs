//! What ssh's own words mean. Pure.

use crate::location::Reason;
use crate::location::sftp::dial::failure::words;

/// What it means, by the words of OpenSSH's ssh.
pub(super) fn reason(said: &str, status: Option<i32>) -> Option<Reason> {
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has(&[
        "Host key verification failed",
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "No matching host key",
        "no matching host key",
        "is marked as revoked",
    ]) {
        return Some(Reason::HostKey);
    }
    if has(&[
        "Permission denied",
        "Too many authentication failures",
        "No supported authentication",
    ]) {
        return Some(Reason::Login);
    }
    if has(&["kex_exchange_identification", "Exceeded MaxStartups", "Not allowed at this time"])
        || has(&["mux_client_request_session: session request failed", "open failed"])
    {
        return Some(Reason::Busy);
    }
    if has(&["subsystem request failed"]) {
        return Some(Reason::Unsupported);
    }
    if has(&["timed out", "Timeout, server", "not responding"]) {
        return Some(Reason::Timeout);
    }
    if has(&["Bad configuration option", "Bad owner or permissions", "no argument after keyword"])
        || has(&["command-line line", "terminating, "])
    {
        return Some(Reason::Unsupported);
    }
    (status == Some(255) && has(&["Connection refused", "Could not resolve", "No route to host"]))
        .then_some(Reason::Lost)
}

/// The last lines that it said, escaped.
pub(super) fn told(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty() && !is_frame(line));
    let lines: Vec<&str> = lines.collect();
    let text = lines[lines.len().saturating_sub(8)..].join(" | ");
    format!("ssh says: {}", words(text.as_bytes()))
}

fn is_frame(line: &str) -> bool {
    line.bytes().all(|b| b == b'@') || line.starts_with("Pseudo-terminal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssh_says_why() {
        for (said, expected) in [
            ("Host key verification failed.", Some(Reason::HostKey)),
            ("u@h: Permission denied (publickey,password).", Some(Reason::Login)),
            ("Received disconnect: Too many authentication failures", Some(Reason::Login)),
            ("kex_exchange_identification: Connection closed by remote host", Some(Reason::Busy)),
            ("kex_exchange_identification: read: Connection reset by peer", Some(Reason::Busy)),
            ("ssh: connect to host h port 22: Connection timed out", Some(Reason::Timeout)),
            ("Timeout, server h not responding.", Some(Reason::Timeout)),
            ("ssh: connect to host h port 22: Connection refused", Some(Reason::Lost)),
            ("subsystem request failed on channel 0", Some(Reason::Unsupported)),
            ("/x: line 1: Bad configuration option: foo", Some(Reason::Unsupported)),
            ("Welcome to h", None),
            ("", None),
        ] {
            assert_eq!(reason(said, Some(255)), expected, "{said}");
        }
    }

    #[test]
    fn its_last_words_are_repeated_safely() {
        let said = "@@@@@@\r\nWARNING\x1b[31m\n\nbye\n";
        assert_eq!(told(said), "ssh says: WARNING\\033[31m | bye");
    }
}
