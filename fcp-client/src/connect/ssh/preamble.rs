//! Finds where fcpd begins to speak, behind whatever the login shell printed.

use std::io::{self, Read};

use fcp_proto::packet::STDIO_PREAMBLE;

/// Most bytes that may come before.
pub(super) const MAX_NOISE: usize = 64 << 10;

/// Why fcpd was not found.
#[derive(Debug)]
pub(super) struct NotFound {
    /// What came.
    pub(super) noise: Vec<u8>,
    /// What ended the search; `None` when too much came.
    pub(super) error: Option<io::Error>,
}

/// Reads up to the end of the preamble and not one byte further.
///
/// # Errors
/// See [`NotFound`]; the stream's own end is `UnexpectedEof`.
pub(super) fn skip_noise(stream: &mut impl Read) -> Result<(), NotFound> {
    read_until(stream, &STDIO_PREAMBLE).map(drop)
}

/// Reads up to the end of `mark` and not one byte further; answers what came before it.
///
/// # Errors
/// As [`skip_noise`].
pub(super) fn read_until(stream: &mut impl Read, mark: &[u8]) -> Result<Vec<u8>, NotFound> {
    let mut noise = Vec::new();
    loop {
        let have = overlap(&noise, mark);
        if have == mark.len() {
            noise.truncate(noise.len() - have);
            return Ok(noise);
        }
        if noise.len() >= MAX_NOISE {
            return Err(NotFound { noise, error: None });
        }
        let old = noise.len();
        // No more than is missing at least, so that what follows stays in the stream.
        noise.resize(old + mark.len() - have, 0);
        let error = match stream.read(&mut noise[old..]) {
            Ok(0) => Some(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                noise.truncate(old + n);
                continue;
            }
            Err(error) => Some(error),
        };
        noise.truncate(old);
        return Err(NotFound { noise, error });
    }
}

/// How much of `mark` stands at the end of `bytes`.
fn overlap(bytes: &[u8], mark: &[u8]) -> usize {
    let most = mark.len().min(bytes.len());
    (0..=most).rev().find(|n| bytes.ends_with(&mark[..*n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out at most so many bytes at once.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(buf.len());
            self.0.read(&mut buf[..n])
        }
    }

    #[test]
    fn shell_noise_is_skipped_and_what_follows_is_left() {
        let tricky = [&STDIO_PREAMBLE[..9], &STDIO_PREAMBLE[..1]].concat();
        for noise in [&b""[..], b"Welcome!\n", &[0; 40], &tricky, &[b'x'; 60_000]] {
            let all = [noise, &STDIO_PREAMBLE, b"next"].concat();
            for step in [1, 3, 1000] {
                let mut stream = Slow(&all, step);
                skip_noise(&mut stream).unwrap();
                assert_eq!(stream.0, b"next");
            }
        }
    }

    #[test]
    fn too_much_noise_and_an_early_end_are_told_apart() {
        let error = skip_noise(&mut io::repeat(b'x')).unwrap_err();
        assert!(error.error.is_none() && (MAX_NOISE..MAX_NOISE + 16).contains(&error.noise.len()));
        let error = skip_noise(&mut &b"This service allows sftp only.\r\n"[..]).unwrap_err();
        assert_eq!(error.error.unwrap().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(error.noise, b"This service allows sftp only.\r\n");
    }

    #[test]
    fn a_mark_is_found_behind_a_part_of_itself() {
        assert_eq!(read_until(&mut &b"aaab!"[..], b"aab").unwrap(), b"a");
    }
}
