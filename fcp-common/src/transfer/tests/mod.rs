//! Two machines joined over a simulated network and disk, and each alone against a hostile peer.

mod disk;
mod faults;
mod hostile;
mod jobs;
mod mixed;
mod net;
mod pair;
mod plan;
mod random;
mod session;
mod shells;
mod source;
mod spare;
mod survival;
mod wreck;
