//! How directories of this machine are reached and made, and what they lie on.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::sync::Arc;

use fcp_common::fs::Dir;
use fcp_proto::path::{Name, RelPath, escape};

/// What errors call the folder `path`.
pub(super) fn name_of(path: &Path) -> Arc<str> {
    format!("local {}", escape(path.as_os_str().as_bytes())).into()
}

/// What lies below a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    /// A file system of this machine.
    Near,
    /// One that is all memory.
    Memory,
    /// One with steps of two seconds.
    Fat,
    /// One behind a network, or behind another program.
    Far,
}

impl System {
    /// By its magic number, as in `statfs(2)`.
    pub(super) fn of(magic: u64) -> System {
        match magic {
            0x0102_1994 | 0x8584_58f6 => System::Memory,
            0x4d44 => System::Fat,
            // NFS, SMB, CIFS, SMB2, FUSE, AFS, Ceph, 9p, Coda.
            0x6969 | 0x517b | 0xff53_4d42 | 0xfe53_4d42 | 0x6573_5546 | 0x5346_414f
            | 0x00c3_6400 | 0x0102_1997 | 0x7375_7245 => System::Far,
            _ => System::Near,
        }
    }
}

/// Opens a directory below `base`, whose symlinks may not lead out of it.
pub(super) fn beneath(base: &Dir, path: &RelPath) -> io::Result<Dir> {
    base.open_beneath(path).map_err(|error| match error.kind() {
        // To everybody else it means a rename between file systems.
        io::ErrorKind::CrossesDevices => io::Error::new(
            io::ErrorKind::PermissionDenied,
            "a symlink on the way leads out of the base folder",
        ),
        _ => error,
    })
}

/// Makes `path` and those above it, below `base`.
pub(super) fn make_dirs(base: &Dir, path: &RelPath, mode: u32) -> io::Result<()> {
    // The usual case is that all of it is there.
    match beneath(base, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        done => return done.map(drop),
    }
    let mut at = beneath(base, &RelPath::root())?;
    for name in path.components() {
        at = make_one(&at, &name, mode)?;
    }
    Ok(())
}

/// Opens what a user typed; makes it where it is not there.
pub(super) fn open_or_make(path: &Path, mode: u32) -> io::Result<Dir> {
    match Dir::open_user(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        done => return done,
    }
    let above = match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new(OsStr::new(".")),
    };
    let Some(Component::Normal(last)) = path.components().next_back() else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let refused = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    let name = Name::new(last.as_bytes()).map_err(refused)?;
    make_one(&open_or_make(above, mode)?, &name, mode)
}

fn make_one(at: &Dir, name: &Name, mode: u32) -> io::Result<Dir> {
    match at.mkdir(name, mode) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => match at.open_beneath(&RelPath::from(name.clone())) {
            // A dangling link has the name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(io::ErrorKind::NotADirectory.into())
            }
            done => done,
        },
    }
}
