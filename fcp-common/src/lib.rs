//! Both ends.

#[cfg(feature = "io")]
pub mod fs;
pub mod journal;
