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
