//! Jobs: files that are picked up from one place, proven at another, and then put away.
//!
//! [`spec`] is `jobs.yaml`, [`folders`] where a job looks, [`plan`] what it does with each file and
//! why, [`ledger`] what was done, [`recover`] what is left to do after a crash, [`run`] the work,
//! [`report`] what is told of it; [`log`] and [`audit`] keep that, [`lock`] keeps two runs apart.

pub mod audit;
mod daily;
pub mod folders;
pub mod ledger;
pub mod lock;
pub mod log;
mod outbox;
pub mod plan;
pub mod recover;
pub mod report;
pub mod run;
pub mod spec;
pub mod state;
