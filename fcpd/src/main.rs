//! fcpd.
fn main() {}
