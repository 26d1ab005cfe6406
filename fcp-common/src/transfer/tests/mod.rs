//! Two machines joined over a simulated network and disk, and each alone against a hostile peer.

mod disk;
mod faults;
mod hostile;
mod mixed;
mod net;
mod pair;
mod random;
mod shells;
mod source;
