//! `fcp job` over a real sshd: the format of its users' files, what it promises, and every fault
//! that it promises it against.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails here is a failed test")]

mod crashes;
mod dialer;
mod exits;
mod faults;
#[path = "../e2e/programs.rs"]
#[allow(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod programs;
mod secrets;
mod selection;
mod setup;
mod yaml;
