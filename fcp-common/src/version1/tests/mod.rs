//! The machines against scripted peers.

mod receiver;
mod sender;
