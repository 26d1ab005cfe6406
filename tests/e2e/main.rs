//! fcp and fcpd as their users run them: operands in, trees, words and exit codes out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails here is a failed test")]

mod naming;
mod programs;
mod transfers;
