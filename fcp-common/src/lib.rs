//! Both ends.

#[cfg(feature = "io")]
pub mod peer;
