//! Test support: trees, judges, processes and peers for the end-to-end tests.
//!
//! [`tree`] makes trees, [`compare`] and [`rsync`] judge copies, [`sentinel`] guards what must not
//! change, [`process`] runs programs and `fcpd`, [`proxy`] spoils connections, [`fastcopy`] is the
//! version 1 peer from PyPI in the Python environment of [`venv`]. [`sshd`] is a real OpenSSH server
//! for the [`account`]s of a test, [`askpass`] answers ssh's prompts, [`netns`] is a second host,
//! [`sftp_faults`] an SFTP server that fails when it is told to.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails is a failed test")]

pub mod account;
pub mod askpass;
pub mod compare;
pub mod fastcopy;
pub mod netns;
pub mod process;
pub mod processes;
pub mod proxy;
pub mod rsync;
pub mod sentinel;
pub mod sftp_faults;
pub mod sshd;
pub mod tree;
pub mod venv;

#[cfg(test)]
mod ssh_tests;
#[cfg(test)]
mod tests;
