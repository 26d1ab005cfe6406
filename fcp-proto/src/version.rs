//! Versions, features and what two ends agree on, once, at the start.

use crate::auth::{AuthOffer, DirectOffer, Fingerprint, Signature};
use crate::coding::{DecodeError, Reader, Wire, decode_exact, put_bytes16};
use crate::frame::MAX_PAYLOAD;
use crate::limits::{MAX_CONNECTIONS, MAX_OPEN_ENTRIES, MIN_FRAME};

/// The published protocol.
pub const VERSION_1: u16 = 1;
/// This document's own.
pub const VERSION_2: u16 = 2;

/// Something an end may be able to do; both ask [`Agreed::supports`], never a version number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Feature {
    /// The receiver can report what it would do and touch nothing.
    DryRun = 0,
    /// The receiver makes files durable before CLOSE when the request says so.
    Durable = 1,
    /// Content is compared by BLAKE3 block hashes (DIGESTS_WANTED, DIGESTS).
    Compare = 2,
}

/// A set of features: bit n is the feature numbered n; unknown bits are kept and mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Features(pub u64);

impl Features {
    /// All that this crate knows.
    pub const OURS: Features = Features(0b111);

    /// Whether `feature` is in the set.
    pub fn has(self, feature: Feature) -> bool {
        self.0 & (1 << feature as u8) != 0
    }
}

/// What an end offers: the body of HELLO, and of the `"fcp"` key of PUSH and PULL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Lowest version spoken.
    pub min_version: u16,
    /// Highest version spoken.
    pub max_version: u16,
    /// What this end can do.
    pub features: Features,
    /// Largest frame payload this end takes, in bytes.
    pub max_frame: u16,
    /// Most connections in a session.
    pub connections: u16,
    /// Most announced entries that may be unfinished.
    pub open_entries: u32,
    /// Seconds of silence after which a connection is dead.
    pub idle_secs: u16,
    /// This end will prove that it has a token, and asks for the same. Only over transports that
    /// keep what is said to themselves.
    pub auth: Option<AuthOffer>,
    /// This end would use a direct data port, and shows this certificate there.
    pub direct: Option<Fingerprint>,
}

impl Hello {
    /// What this crate offers.
    pub fn ours(connections: u16) -> Hello {
        Hello {
            min_version: VERSION_2,
            max_version: VERSION_2,
            features: Features::OURS,
            max_frame: MAX_PAYLOAD as u16,
            connections: connections.min(MAX_CONNECTIONS),
            open_entries: MAX_OPEN_ENTRIES,
            idle_secs: IDLE_SECS,
            auth: None,
            direct: None,
        }
    }
}

impl Agreed {
    /// Whether an end that offered `ours` can take this as the peer's answer: nothing in it goes
    /// beyond the offer.
    pub fn is_within(&self, ours: &Hello) -> bool {
        (ours.min_version..=ours.max_version).contains(&self.version)
            && self.features.0 & !ours.features.0 == 0
            && self.max_frame <= ours.max_frame
            && self.connections <= ours.connections
            && self.open_entries <= ours.open_entries
            && self.idle_secs <= ours.idle_secs
    }
}

/// Seconds of silence after which we call a connection dead.
pub const IDLE_SECS: u16 = 60;

/// What both ends agreed on: the body of ACCEPT, and what follows the id in SID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The version both speak.
    pub version: u16,
    /// What both can do.
    pub features: Features,
    /// Largest frame payload, in bytes.
    pub max_frame: u16,
    /// Most connections in the session.
    pub connections: u16,
    /// Most announced entries that may be unfinished.
    pub open_entries: u32,
    /// Seconds of silence after which a connection is dead.
    pub idle_secs: u16,
}

impl Agreed {
    /// Whether both ends can do `feature`.
    pub fn supports(&self, feature: Feature) -> bool {
        self.features.has(feature)
    }
}

/// Two ends that share no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer speaks protocol versions {theirs_min} to {theirs_max}, this fcp {VERSION_2}")]
pub struct NoCommonVersion {
    theirs_min: u16,
    theirs_max: u16,
}

/// What `ours` and `theirs` come to: the highest common version, the common features, and of every
/// limit the smaller.
pub fn negotiate(ours: &Hello, theirs: &Hello) -> Result<Agreed, NoCommonVersion> {
    let version = ours.max_version.min(theirs.max_version);
    if version < ours.min_version.max(theirs.min_version) {
        return Err(NoCommonVersion {
            theirs_min: theirs.min_version,
            theirs_max: theirs.max_version,
        });
    }
    Ok(Agreed {
        version,
        features: Features(ours.features.0 & theirs.features.0),
        max_frame: ours.max_frame.min(theirs.max_frame),
        connections: ours.connections.min(theirs.connections),
        open_entries: ours.open_entries.min(theirs.open_entries),
        idle_secs: ours.idle_secs.min(theirs.idle_secs),
    })
}

impl Wire for Hello {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.min_version.to_be_bytes());
        out.extend_from_slice(&self.max_version.to_be_bytes());
        Limits::from(self).encode(out);
        put_extension(AUTH, self.auth.as_ref(), out);
        put_extension(DIRECT, self.direct.as_ref(), out);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (min_version, max_version) = (r.u16()?, r.u16()?);
        if min_version == 0 || min_version > max_version {
            return Err(DecodeError::Malformed("an empty range of versions"));
        }
        let l = Limits::decode(r)?;
        let (mut auth, mut direct) = (None, None);
        extensions(r, |key, bytes| match key {
            AUTH => set(&mut auth, bytes),
            DIRECT => set(&mut direct, bytes),
            _ => Ok(()),
        })?;
        Ok(Hello {
            min_version,
            max_version,
            features: l.features,
            max_frame: l.max_frame,
            connections: l.connections,
            open_entries: l.open_entries,
            idle_secs: l.idle_secs,
            auth,
            direct,
        })
    }
}

impl Wire for Agreed {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.version.to_be_bytes());
        Limits::from(self).encode(out);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = r.u16()?;
        let l = Limits::decode(r)?;
        Ok(Agreed {
            version,
            features: l.features,
            max_frame: l.max_frame,
            connections: l.connections,
            open_entries: l.open_entries,
            idle_secs: l.idle_secs,
        })
    }
}

/// The fields that HELLO and ACCEPT share.
struct Limits {
    features: Features,
    max_frame: u16,
    connections: u16,
    open_entries: u32,
    idle_secs: u16,
}

macro_rules! limits_from {
    ($($t:ty)*) => {$(
        impl From<&$t> for Limits {
            fn from(h: &$t) -> Limits {
                Limits {
                    features: h.features,
                    max_frame: h.max_frame,
                    connections: h.connections,
                    open_entries: h.open_entries,
                    idle_secs: h.idle_secs,
                }
            }
        }
    )*};
}
limits_from!(Hello Agreed);

impl Wire for Limits {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.features.0.to_be_bytes());
        out.extend_from_slice(&self.max_frame.to_be_bytes());
        out.extend_from_slice(&self.connections.to_be_bytes());
        out.extend_from_slice(&self.open_entries.to_be_bytes());
        out.extend_from_slice(&self.idle_secs.to_be_bytes());
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let limits = Limits {
            features: Features(r.u64()?),
            max_frame: r.u16()?,
            connections: r.u16()?,
            open_entries: r.u32()?,
            idle_secs: r.u16()?,
        };
        // A peer that cannot take one entry, or that calls us dead at once, cannot be served.
        let usable = limits.max_frame >= MIN_FRAME
            && limits.connections >= 1
            && limits.open_entries >= 1
            && limits.idle_secs >= 5;
        if usable {
            Ok(limits)
        } else {
            Err(DecodeError::Malformed("a limit too low to work with"))
        }
    }
}

/// What a server says in ACCEPT and SID besides what was agreed.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ReplyExtra {
    /// That the server knows the token; there if and only if the client offered a proof.
    pub auth: Option<Signature>,
    /// Where the client may open data connections; only if it asked.
    pub direct: Option<DirectOffer>,
}

impl Wire for ReplyExtra {
    fn encode(&self, out: &mut Vec<u8>) {
        put_extension(AUTH, self.auth.as_ref(), out);
        put_extension(DIRECT, self.direct.as_ref(), out);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut extra = ReplyExtra::default();
        extensions(r, |key, bytes| match key {
            AUTH => set(&mut extra.auth, bytes),
            DIRECT => set(&mut extra.direct, bytes),
            _ => Ok(()),
        })?;
        Ok(extra)
    }
}

const AUTH: u16 = 1;
const DIRECT: u16 = 2;

/// Reads `key u16 | length u16 | bytes` fields to the end; unknown keys are of later versions.
fn extensions(
    r: &mut Reader<'_>,
    mut known: impl FnMut(u16, &[u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    while !r.is_empty() {
        let key = r.u16()?;
        known(key, r.bytes16(usize::from(u16::MAX))?)?;
    }
    Ok(())
}

fn set<T: Wire>(slot: &mut Option<T>, bytes: &[u8]) -> Result<(), DecodeError> {
    match slot.replace(decode_exact(bytes)?) {
        None => Ok(()),
        Some(_) => Err(DecodeError::Malformed("an extension twice")),
    }
}

fn put_extension(key: u16, value: Option<&impl Wire>, out: &mut Vec<u8>) {
    let Some(value) = value else { return };
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    out.extend_from_slice(&key.to_be_bytes());
    put_bytes16(out, &bytes, usize::from(u16::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coding::decode_exact;

    #[test]
    fn the_smaller_limit_and_the_common_features_win() {
        let ours = Hello::ours(128);
        let theirs =
            Hello { connections: 3, features: Features(0b1001), max_version: 9, ..ours.clone() };
        let agreed = negotiate(&ours, &theirs).unwrap();
        assert_eq!((agreed.version, agreed.connections, agreed.features.0), (2, 3, 0b001));
        assert!(agreed.supports(Feature::DryRun) && !agreed.supports(Feature::Compare));
    }

    #[test]
    fn w32_an_answer_beyond_the_offer_is_not_taken() {
        let ours = Hello::ours(8);
        let agreed = negotiate(&ours, &ours).unwrap();
        assert!(agreed.is_within(&ours));
        for beyond in [
            Agreed { version: 3, ..agreed.clone() },
            Agreed { version: 1, ..agreed.clone() },
            Agreed { features: Features(1 << 40), ..agreed.clone() },
            Agreed { connections: 9, ..agreed.clone() },
            Agreed { open_entries: u32::MAX, ..agreed.clone() },
            Agreed { idle_secs: 61, ..agreed.clone() },
        ] {
            assert!(!beyond.is_within(&ours), "{beyond:?}");
        }
    }

    #[test]
    fn ends_without_a_common_version_say_so() {
        let ours = Hello::ours(1);
        let future = Hello { min_version: 3, max_version: 4, ..ours.clone() };
        assert!(negotiate(&ours, &future).is_err());
        assert!(negotiate(&future, &ours).is_err());
    }

    #[test]
    fn w32_unknown_fields_of_a_later_hello_are_skipped() {
        let hello = Hello::ours(8);
        let mut bytes = Vec::new();
        hello.encode(&mut bytes);
        bytes.extend_from_slice(&[0x12, 0x34, 0, 2, 9, 9]);
        assert_eq!(decode_exact::<Hello>(&bytes), Ok(hello));
        bytes.pop();
        assert_eq!(decode_exact::<Hello>(&bytes), Err(DecodeError::Truncated));
    }

    #[test]
    fn a_field_that_comes_twice_or_has_another_length_is_refused() {
        let hello = Hello { direct: Some(Fingerprint([7; 32])), ..Hello::ours(8) };
        let mut bytes = Vec::new();
        hello.encode(&mut bytes);
        assert_eq!(decode_exact::<Hello>(&bytes).as_ref(), Ok(&hello));
        let field = bytes[22..].to_vec();
        assert!(decode_exact::<Hello>(&[bytes.clone(), field].concat()).is_err());
        bytes[25] = 31;
        bytes.pop();
        assert_eq!(decode_exact::<Hello>(&bytes), Err(DecodeError::Truncated));
    }
}
