//! The fcp server.

pub mod access;
