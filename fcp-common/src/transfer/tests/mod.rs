//! Two machines joined over a simulated network and disk.
