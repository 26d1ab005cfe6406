//! What both ends of fcp know about files.
//!
//! Three layers, each allowed to use only the ones before it:
//! - data: [`range_set`];
//! - decisions, pure: [`transfer`];
//! - shells, behind the feature `io`.

pub mod range_set;
pub mod transfer;
