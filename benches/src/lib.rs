//! Benchmarks of fcp: what the drivers in `src/bin` share.
//!
//! [`workload`] makes the data, [`peers`] knows how each tool is called, [`measure`] takes the
//! figures, [`sshd`] is a real server, [`verify`] judges the copies, [`report`] writes the results.

pub mod machine;
pub mod measure;
pub mod peers;
pub mod report;
pub mod sshd;
pub mod verify;
pub mod workload;
