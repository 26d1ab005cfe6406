//! Runs between two folders of this machine, with a ledger in memory.

mod faults;
mod life;
mod support;
