//! What two ends say about who they are: the fields and packets. The proof itself is computed by the
//! ends; PROTOCOL.md section 6.1 has the formulas.

use std::fmt;
use std::str::FromStr;

use crate::coding::{DecodeError, Reader, Wire, put_bytes8};
use crate::limits::MAX_TOKEN_NAME;

/// The SHA-256 of a certificate in DER: what an end is known by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SHA256:")?;
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a fingerprint: write SHA256: and 64 hexadecimal digits")]
pub struct BadFingerprint;

impl FromStr for Fingerprint {
    type Err = BadFingerprint;

    fn from_str(text: &str) -> Result<Fingerprint, BadFingerprint> {
        let digits = text.strip_prefix("SHA256:").ok_or(BadFingerprint)?.as_bytes();
        let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return Err(BadFingerprint);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let (high, low) = (digit(pair[0]), digit(pair[1]));
            *byte = high.ok_or(BadFingerprint)? << 4 | low.ok_or(BadFingerprint)?;
        }
        Ok(Fingerprint(bytes))
    }
}

/// HELLO field 1: the client will prove that it has a token, and asks the same of the server.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthOffer {
    /// Which token; empty is the server's own, which only its user can read.
    name: String,
    /// Drawn by the client for this connection.
    pub nonce: [u8; 32],
}

impl AuthOffer {
    /// An offer to prove the token called `name`.
    ///
    /// # Errors
    /// See [`check_token_name`]; the empty name is allowed here.
    pub fn new(name: &str, nonce: [u8; 32]) -> Result<AuthOffer, DecodeError> {
        if !name.is_empty() {
            check_token_name(name.as_bytes())?;
        }
        Ok(AuthOffer { name: name.to_owned(), nonce })
    }

    /// Which token.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for AuthOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthOffer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Whether a token may have this name: 1 to 64 letters, digits, dots, dashes and underscores, so
/// that it can stand in logs, files and commands as it is.
///
/// # Errors
/// It may not.
pub fn check_token_name(name: &[u8]) -> Result<(), DecodeError> {
    let fits = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if (1..=MAX_TOKEN_NAME).contains(&name.len()) && name.iter().all(fits) && name[0] != b'-' {
        Ok(())
    } else {
        Err(DecodeError::Malformed("a token name that cannot be"))
    }
}

impl Wire for AuthOffer {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.nonce);
        put_bytes8(out, self.name.as_bytes());
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let nonce = r.array()?;
        let name = std::str::from_utf8(r.bytes8()?)
            .map_err(|_| DecodeError::Malformed("a token name that cannot be"))?;
        AuthOffer::new(name, nonce)
    }
}

/// ACCEPT field 2: a port for data connections, and whom the client will find there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectOffer {
    /// TCP port, on the address that the client reached the host by.
    pub port: u16,
    /// The certificate that the server shows there.
    pub fingerprint: Fingerprint,
}

impl Wire for DirectOffer {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.port.to_be_bytes());
        self.fingerprint.encode(out);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let port = r.u16()?;
        if port == 0 {
            return Err(DecodeError::Malformed("port 0"));
        }
        Ok(DirectOffer { port, fingerprint: Fingerprint::decode(r)? })
    }
}

/// CHALLENGE: the server's answer to HELLO with field 1.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Challenge {
    /// Drawn by the server for this connection.
    pub nonce: [u8; 32],
}

/// PROOF: that the client has the token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Proof(pub [u8; 32]);

/// ACCEPT field 1: that the server knows the token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 32]);

impl Wire for Challenge {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.nonce);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.array().map(|nonce| Challenge { nonce })
    }
}

macro_rules! wire_32_bytes {
    ($($t:ident)*) => {$(
        impl Wire for $t {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.0);
            }
            fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                r.array().map($t)
            }
        }
    )*};
}
wire_32_bytes!(Fingerprint Proof Signature);

/// Secrets of one connection are not for logs.
macro_rules! debug_opaque {
    ($($t:ident)*) => {$(
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($t), "(..)"))
            }
        }
    )*};
}
debug_opaque!(Challenge Proof Signature);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coding::decode_exact;

    #[test]
    fn fingerprints_read_what_they_print() {
        let fingerprint = Fingerprint(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        for bad in ["", "SHA256:", "SHA256:00", "MD5:00", &"0".repeat(64)] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(BadFingerprint), "{bad}");
        }
        let odd = fingerprint.to_string().replace('7', "é");
        assert_eq!(odd.parse::<Fingerprint>(), Err(BadFingerprint));
    }

    #[test]
    fn names_that_could_do_harm_in_a_log_or_a_command_are_refused() {
        assert!(AuthOffer::new("", [0; 32]).is_ok());
        assert!(AuthOffer::new("nas-1.backup_x", [0; 32]).is_ok());
        for bad in ["-x", "a b", "a\n", "a/b", "é", &"a".repeat(65)] {
            assert!(AuthOffer::new(bad, [0; 32]).is_err(), "{bad}");
        }
        let mut bytes = vec![0; 32];
        bytes.extend_from_slice(&[2, 0xff, 0xfe]);
        assert!(decode_exact::<AuthOffer>(&bytes).is_err());
    }
}
