//! The flags: what a frame carries. One table makes constants, names and the range checks.

use std::fmt;

/// A frame's first byte. Unknown numbers survive and print, so that they can be skipped or named.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flag(pub u8);

macro_rules! flags {
    ($($name:ident = $number:literal, $doc:literal;)*) => {
        impl Flag {
            $(#[doc = $doc] pub const $name: Flag = Flag($number);)*

            /// Every flag that has a name, in order.
            pub const ALL: &'static [Flag] = &[$(Flag::$name),*];

            /// The name in PROTOCOL.md.
            pub fn name(self) -> Option<&'static str> {
                match self { $(Flag::$name => Some(stringify!($name)),)* _ => None }
            }

            /// What it carries, in a sentence.
            pub fn describe(self) -> Option<&'static str> {
                match self { $(Flag::$name => Some($doc),)* _ => None }
            }
        }
    };
}

flags! {
    PUSH = 0x01, "Opens a push (version 1 JSON, with the version 2 greeting inside).";
    PULL = 0x02, "Opens a pull (version 1 JSON, with the version 2 greeting inside).";
    SID = 0x03, "The server's answer: the session id, and in version 2 what was agreed.";
    ATTACH = 0x04, "Adds this connection to a session.";
    MONOFILE = 0x05, "Version 1: whether one file or a tree follows.";
    DIR_INFO = 0x06, "Version 1: a directory.";
    FILE_INFO = 0x07, "Version 1: a file.";
    FILE_COUNT = 0x08, "Version 1: how many entries there are in all.";
    FILE_READY = 0x09, "Version 1: the receiver asks for a file's content.";
    FILE_CHUNK = 0x0a, "Version 1: 4 KiB of content.";
    DONE = 0x0b, "Version 1: everything was received.";
    EXCEPTION = 0x0c, "Version 1: the session ends with an error.";
    HELLO = 0x10, "Greets on a transport where no version 1 peer can be.";
    ACCEPT = 0x11, "Answers HELLO with what was agreed.";
    PART = 0x12, "Bytes of a message that the next frames continue.";
    CHALLENGE = 0x13, "Answers HELLO that offers a proof: the server's nonce.";
    ACK = 0x14, "Every message up to a sequence number has arrived.";
    PROOF = 0x15, "Answers CHALLENGE: that the client has the token.";
    DATA = 0x18, "Bytes of a block.";
    BLOCK = 0x19, "Ends a block: its extent and digest.";
    WHOLE = 0x1a, "A small file's whole content and digest.";
    ERROR = 0x1f, "The session ends with an error.";
    REQUEST = 0x20, "What the client wants.";
    ENTRIES = 0x22, "Files, directories and links of the source.";
    DIRS_END = 0x23, "Directories whose children have all been announced.";
    WANT = 0x24, "Content that the receiver lacks.";
    RESULTS = 0x25, "What became of entries.";
    WRITTEN = 0x26, "Blocks that are written and checked.";
    DIGESTS_WANTED = 0x27, "Files whose block hashes the receiver asks for.";
    DIGESTS = 0x28, "BLAKE3 hashes of a file's blocks.";
    PROBLEM = 0x29, "Something at the source that could not be announced.";
    REPLACED = 0x2a, "A source file that changed: a new entry stands for the old.";
    GONE = 0x2b, "An announced entry that the sender cannot send.";
    FINISH = 0x2c, "Nothing more will be announced.";
    CLOSE = 0x2d, "The receiver's summary; the session is over.";
    KEEPALIVE = 0x93, "Nothing but a sign of life.";
}

impl Flag {
    /// Bit of flags that a peer which does not know them skips.
    pub const IGNORABLE: u8 = 0x80;

    /// Whether a peer that does not know this flag may skip it.
    pub fn is_ignorable(self) -> bool {
        self.0 & Self::IGNORABLE != 0
    }

    /// Whether this frame ends a message of the numbered, repeatable stream.
    pub fn is_message(self) -> bool {
        (0x20..0x40).contains(&self.0)
    }

    /// Whether version 1 knows this flag.
    pub fn is_version_1(self) -> bool {
        (0x01..=0x0c).contains(&self.0)
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "0x{:02x}", self.0),
        }
    }
}

impl fmt::Debug for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a24_no_flag_is_the_first_byte_of_another_protocol() {
        // TLS record, HTTP "GET"/"POST"/"PRI", SSH banner.
        for first in [0x16, b'G', b'P', b'S'] {
            assert_eq!(Flag(first).name(), None);
        }
    }

    #[test]
    fn flags_are_distinct_and_named() {
        for (i, flag) in Flag::ALL.iter().enumerate() {
            assert!(flag.name().is_some());
            assert!(!Flag::ALL[..i].contains(flag), "{flag} twice");
        }
        assert_eq!(Flag(0x7f).to_string(), "0x7f");
    }
}
