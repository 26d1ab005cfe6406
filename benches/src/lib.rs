//! Benchmarks of fcp.
