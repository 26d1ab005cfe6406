//! The packets of version 2, one family to a file: struct, bounds, encode, decode.

mod data;
mod entry;
mod message;
mod open;
mod reply;
mod request;

pub use data::{Block, BlockDigest, Data, Whole, put_block, put_data_head, put_whole_head};
pub use entry::{Entry, EntryBody, RootMeta};
pub use message::{Ack, Message, Sequenced};
pub use open::{
    HELLO_VARIABLE, Opening, OpeningRefused, PullOpening, PushOpening, Reply, STDIO_PREAMBLE,
};
pub(crate) use reply::cut_text;
pub use reply::{FileDigests, FileResult, Outcome, Problem, Summary, Want, WireError, Written};
pub use request::{Direction, Durability, Options, Request, Rule};
