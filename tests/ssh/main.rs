//! fcp over a real sshd: operands, ways to carry data, noise, refusals and crashes.
//!
//! Every test has a server of its own, on loopback or in a network namespace. As root also with
//! accounts of its own; what cannot be tested as somebody else says so on stderr.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails here is a failed test")]

mod config;
mod crashes;
mod direct;
mod hosts;
mod limits;
mod noise;
mod operands;
#[path = "../e2e/programs.rs"]
#[allow(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod programs;
mod relay;
mod restricted;
mod security;
mod setup;
mod sftp;
mod transfer;
mod trips;
mod tunnel;
