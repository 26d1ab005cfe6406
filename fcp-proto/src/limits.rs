//! Every maximum that a peer can make this end allocate or loop to, with its reason.

/// Longest single path component in bytes: `NAME_MAX` of every Linux file system.
pub const MAX_NAME: usize = 255;
/// Longest relative path in bytes: `PATH_MAX` less the terminating NUL.
pub const MAX_PATH: usize = 4095;
/// Deepest directory nesting below the transfer root.
///
/// Equals the deepest path that [`MAX_PATH`] could spell with one-byte components.
pub const MAX_DEPTH: usize = 2048;
/// Largest file size: what `off_t` can address.
pub const MAX_FILE_SIZE: u64 = i64::MAX as u64;
/// Longest target of a symbolic link in bytes: `PATH_MAX` less the terminating NUL.
pub const MAX_LINK_TARGET: usize = 4095;
/// Longest explanation in an error, in bytes; longer ones are cut by the sender.
pub const MAX_TEXT: usize = 1024;
/// Largest message once its frames are joined, in bytes: 1 MiB.
pub const MAX_MESSAGE: usize = 1 << 20;
/// Bytes of a block: the unit of digests, acknowledgement and resume. 1 MiB keeps a block's
/// syscalls rare and its loss cheap.
pub const BLOCK: u64 = 1 << 20;
/// Smallest frame payload a peer may insist on: one entry with the longest name and target fits.
pub const MIN_FRAME: u16 = 8192;
/// Largest file that travels in one WHOLE frame, in bytes; with its head it fits every frame that
/// may be agreed on at the default, and a smaller agreed frame lowers it.
pub const MAX_WHOLE: usize = 60 * 1024;
/// Bytes of a version 1 chunk; only a file's last one is shorter.
pub const V1_CHUNK: usize = 4096;
/// Largest file size in version 1: as many chunks as its chunk number counts.
pub const V1_MAX_FILE_SIZE: u64 = (1 << 32) * V1_CHUNK as u64;
/// Most connections in a session.
pub const MAX_CONNECTIONS: u16 = 128;
/// Most announced entries that may be unfinished, whatever the peers agree on.
pub const MAX_OPEN_ENTRIES: u32 = 65_536;
/// Most bytes of metadata (names, link targets and bookkeeping) of unfinished entries: 64 MiB.
pub const MAX_OPEN_METADATA: usize = 64 << 20;
/// Longest name of a token in bytes.
pub const MAX_TOKEN_NAME: usize = 64;
/// Most source operands in a request.
pub const MAX_SOURCES: usize = 10_000;
/// Most filter rules in a request.
pub const MAX_RULES: usize = 10_000;
/// Longest filter rule in bytes.
pub const MAX_RULE: usize = 4096;
/// Messages that may wait for an acknowledgement; a window this size covers a second of entries.
pub const MAX_UNACKED_MESSAGES: usize = 4096;
/// Bytes of messages that may wait for an acknowledgement: 16 MiB.
pub const MAX_UNACKED_BYTES: usize = 16 << 20;
/// JSON bytes in PUSH and PULL: what fits a frame.
pub const MAX_JSON: usize = 65_535;
/// Nesting in that JSON.
pub const MAX_JSON_DEPTH: usize = 16;
