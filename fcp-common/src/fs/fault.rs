//! Faults on demand: counts, fails or kills at the k-th file-system operation.
//!
//! Without the cargo feature `fault` there is only [`Op`] and a [`check`] that is nothing at all.
//! With it, the environment variable `FCP_FAULT` holds the plan of the whole process, read at the
//! first operation. Items are separated by commas:
//!
//! - `kill@17`: SIGKILL to ourselves just before the 17th operation;
//! - `fail@17=ENOSPC`: the 17th operation fails, once;
//! - `fail@17+=EIO`: the 17th and every later one fails;
//! - `rename:fail@1=EIO`, `write:kill@3`: only operations of that name count;
//! - `count=PATH`: `report` appends a line `name total` per kind of operation to PATH.
//!
//! A test inside a process arms its own plan for its own thread (`arm`), which then hides the
//! process-wide one. It is a thread-local and not a lock, because the test harness runs tests
//! as threads of one process: no test then waits for, or is hit by, the plan of another. What a
//! test's other threads do is not counted.

macro_rules! ops {
    ($($variant:ident = $name:literal,)+) => {
        /// What kind of file-system operation is about to happen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Op { $(#[doc = $name] $variant,)+ }

        impl Op {
            /// Every kind, in the order of its number.
            pub const ALL: &[Op] = &[$(Op::$variant,)+];

            /// The name by which a plan filters it.
            pub fn name(self) -> &'static str {
                match self { $(Op::$variant => $name,)+ }
            }
        }
    };
}

ops! {
    Open = "open",
    Openat2 = "openat2",
    Stat = "stat",
    Fstat = "fstat",
    Statfs = "statfs",
    Mkdir = "mkdir",
    Unlink = "unlink",
    Rmdir = "rmdir",
    Rename = "rename",
    Symlink = "symlink",
    Readlink = "readlink",
    Read = "read",
    Write = "write",
    Chmod = "chmod",
    Utime = "utime",
    Fsync = "fsync",
    Fdatasync = "fdatasync",
    Syncfs = "syncfs",
    Truncate = "truncate",
    CopyRange = "copyrange",
    Clone = "clone",
    Readdir = "readdir",
    Flock = "flock",
}

#[cfg(not(feature = "fault"))]
mod imp {
    /// Nothing fails on demand in a shipped program.
    #[inline(always)]
    pub fn check(_op: super::Op) -> rustix::io::Result<()> {
        Ok(())
    }

    /// Nothing was counted.
    #[inline(always)]
    pub fn report() {}
}

#[cfg(feature = "fault")]
#[path = "fault_plan.rs"]
mod imp;

pub use imp::*;
