//! What happens when something goes wrong: crashes, full disks, bad networks, hostile peers, races.
//!
//! Cases are named as in the catalogue of reliability cases (C01, F01, W20, P01, R01...).
//! Environment: `FCP_KILLS=300` makes the random kills many, `FCP_EVERY=1` fails and kills at every
//! operation, `FCP_REPORT=FILE` appends the counts to a file.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails is a failed test")]

mod common;
mod every_op;
mod hostile;
mod network;
mod races;
mod relay;
mod resume;
mod script;
