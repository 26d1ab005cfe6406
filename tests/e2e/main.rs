//! fcp and fcpd as their users run them: operands in, trees, words and exit codes out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails here is a failed test")]

mod cli;
mod conflicts;
mod connecting;
mod filters;
mod gates;
mod naming;
mod programs;
mod relay;
mod same;
mod transfers;
mod under_way;
