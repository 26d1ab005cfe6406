//! The fcp server.
