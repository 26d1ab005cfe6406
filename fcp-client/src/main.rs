//! fcp.
fn main() {}
