//! The hash functions of a copy.

use md5::Md5;
use sha2::{Digest as _, Sha256};
use std::fmt;

use crate::location::{Digest, DigestKind};

/// SHA-256, and MD5 where a server knows nothing better, of content that comes in order.
pub(super) struct Hasher {
    sha256: Sha256,
    md5: Option<Md5>,
}

impl Hasher {
    pub(super) fn new(with_md5: bool) -> Hasher {
        Hasher { sha256: Sha256::new(), md5: with_md5.then(Md5::new) }
    }

    pub(super) fn update(&mut self, content: &[u8]) {
        self.sha256.update(content);
        if let Some(md5) = &mut self.md5 {
            md5.update(content);
        }
    }

    /// The SHA-256, and the MD5 if it was asked for.
    pub(super) fn finish(self) -> (Digest, Option<Digest>) {
        let digest = |kind, bytes| Digest { kind, bytes, by: "fcp" };
        let sha256 = digest(DigestKind::Sha256, self.sha256.finalize().to_vec());
        (sha256, self.md5.map(|md5| digest(DigestKind::Md5, md5.finalize().to_vec())))
    }
}

/// The SHA-256 of a content.
pub(super) fn sha256(content: &[u8]) -> Digest {
    let mut hasher = Hasher::new(false);
    hasher.update(content);
    hasher.finish().0
}

impl fmt::Display for Digest {
    /// As `sha256:<hex>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            DigestKind::Sha256 => "sha256:",
            DigestKind::Md5 => "md5:",
        })?;
        self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
