//! Messages and content in every wrong state: a Violation, never a panic.
