//! Benchmarks of fcp: what the drivers in `src/bin` share.

pub mod machine;
