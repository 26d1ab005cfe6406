//! Benchmarks of fcp: what the drivers in `src/bin` share.
//!
//! [`workload`] makes the data, [`peers`] knows how each tool is called, [`measure`] takes the
//! figures, [`verify`] judges the copies, [`report`] writes the results.

pub mod machine;
pub mod measure;
pub mod peers;
pub mod report;
pub mod verify;
pub mod workload;
