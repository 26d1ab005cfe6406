//! Why a login led to no fcpd, in words that say what to do. Pure.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use fcp_proto::escape;

/// Most characters of a host's own words that are repeated.
const MAX_WORDS: usize = 200;

/// What is known of a login that failed before fcpd said anything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed<'a> {
    /// The host as it was typed.
    pub(super) host: &'a str,
    /// The program that was run.
    pub(super) program: &'a str,
    /// The command that was to run there.
    pub(super) command: &'a str,
    /// How the program ended; `None` while it runs.
    pub(super) status: Option<ExitStatus>,
    /// What came before the preamble, or instead of it.
    pub(super) noise: &'a [u8],
}

/// The program could not even be started.
pub(super) fn not_started(program: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!(
                "there is no program {program:?} here; install OpenSSH's client, or name one with -e"
            )
        }
        _ => format!("cannot run {program:?}: {error}"),
    }
}

impl Failed<'_> {
    /// In words, for the line "cannot connect to HOST: ...".
    pub(super) fn reason(&self) -> String {
        let Failed { host, program, command, .. } = *self;
        match (self.status.and_then(|s| s.code()), self.status.and_then(|s| s.signal())) {
            (Some(255), _) => format!("{program} could not connect; what it said is above"),
            (Some(126), _) => format!("{command} may not be run on {host}; {}", self.remedy()),
            (Some(127), _) => format!("{command} is not on {host}'s PATH; {}", self.remedy()),
            (_, Some(signal)) => format!("{program} was ended by signal {signal}"),
            _ if !self.noise.trim_ascii().is_empty() => self.babble(),
            // Shells of the csh family say 1 for a command that they do not find.
            (Some(1 | 2), _) => format!(
                "{command} did not start on {host}, what it said is above: either it is not \
                 there ({}), or it is older than this fcp and does not know --stdio",
                self.remedy()
            ),
            (Some(0), _) => format!(
                "{host} ended the login without a word; perhaps its authorized_keys or sshd forces \
                 another command"
            ),
            (Some(code), _) => format!("{program} ended with exit code {code}; see above"),
            (None, None) => "it hung up before it was ready".to_owned(),
        }
    }

    /// Whether the login worked and there is no fcpd, as far as that can be told: a shell did not
    /// find it, or only SFTP is allowed.
    pub(super) fn has_no_fcpd(&self) -> bool {
        match self.status.and_then(|status| status.code()) {
            Some(126 | 127) => true,
            // Shells of the csh family say 1; so does sshd for an account that is for SFTP only.
            Some(1 | 2) => self.noise.trim_ascii().is_empty() || self.is_for_sftp_only(),
            _ => false,
        }
    }

    fn is_for_sftp_only(&self) -> bool {
        self.noise.to_ascii_lowercase().windows(4).any(|word| word == b"sftp")
    }

    fn remedy(&self) -> String {
        let host = self.host;
        format!(
            "copy the fcpd program there (scp fcpd {host}:.local/bin/) and name it with \
             --remote-fcpd .local/bin/fcpd, or use --via tunnel where an fcpd -d runs"
        )
    }

    fn babble(&self) -> String {
        let words = first_line(self.noise);
        let (host, command) = (self.host, self.command);
        format!(
            "{host} printed \"{words}\" and {command} did not answer; perhaps a start-up file of the \
             shell prints that and ends, or the command is forced"
        )
    }
}

/// The first line that is not empty, escaped and cut.
fn first_line(noise: &[u8]) -> String {
    let mut lines = noise.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
    let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
    let cut: String = escape(line).chars().take(MAX_WORDS).collect();
    cut.replace('"', "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(status: i32, noise: &[u8]) -> String {
        let status = Some(ExitStatus::from_raw(status));
        Failed { host: "h", program: "ssh", command: "fcpd", status, noise }.reason()
    }

    #[test]
    fn each_end_of_ssh_has_its_own_advice() {
        for (status, said) in [
            (255 << 8, "ssh could not connect; what it said is above"),
            (127 << 8, "fcpd is not on h's PATH; copy the fcpd program there"),
            (126 << 8, "may not be run"),
            (1 << 8, "older than this fcp"),
            (2 << 8, "older than this fcp"),
            (0, "without a word"),
            (9 << 8, "exit code 9"),
            (15, "signal 15"),
        ] {
            let got = reason(status, b"");
            assert!(got.contains(said), "{status}: {got}");
        }
        assert!(reason(127 << 8, b"motd\n").contains("PATH"));
        assert!(reason(127 << 8, b"").contains("--via tunnel"));
    }

    #[test]
    fn a_host_without_fcpd_is_told_from_one_that_cannot_be_reached() {
        let is_without = |status: i32, noise: &[u8]| {
            let status = Some(ExitStatus::from_raw(status));
            Failed { host: "h", program: "ssh", command: "fcpd", status, noise }.has_no_fcpd()
        };
        assert!(is_without(127 << 8, b"motd\n") && is_without(126 << 8, b""));
        assert!(is_without(1 << 8, b""));
        assert!(is_without(1 << 8, b"This service allows SFTP connections only.\r\n"));
        for status in [255 << 8, 0, 15, 9 << 8] {
            assert!(!is_without(status, b""), "{status}");
        }
        assert!(!is_without(1 << 8, b"account is locked"));
    }

    #[test]
    fn noise_is_shown_as_one_safe_short_line() {
        let got = reason(1 << 8, b"\r\n\n\x1b[31mThis \"service\"\x07 is closed\r\nmore\n");
        assert!(got.contains("\"\\033[31mThis 'service'\\007 is closed\""), "{got}");
        assert!(reason(0, &[b'x'; 70_000]).len() < 500);
        assert!(reason(0, b" \n \n").contains("without a word"));
    }

    #[test]
    fn a_missing_ssh_is_said_to_be_missing() {
        let text = not_started("ssh", &io::ErrorKind::NotFound.into());
        assert!(text.contains("no program \"ssh\""), "{text}");
    }
}
