//! The fcp client.
