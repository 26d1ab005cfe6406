//! Both ends.

pub mod select;
