//! What the file-system tests share: a destination with a sentinel outside it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fcp_common::fs::{
    Dir, Expected, FileMeta, PublishError, RunId, SyncPolicy, Temp, TempNames, is_reserved, publish,
};
use fcp_proto::path::{Name, RelPath};

/// A destination `root` and, beside it, `outside`, which nothing may ever touch.
pub struct Place {
    pub temp: tempfile::TempDir,
    pub root: Arc<Dir>,
    pub names: TempNames,
    sentinel: (Vec<u8>, u32, i64, i64, i64),
}

impl Place {
    pub fn new() -> Place {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("root")).unwrap();
        fs::create_dir(temp.path().join("outside")).unwrap();
        fs::write(temp.path().join("outside/sentinel"), "precious").unwrap();
        fs::set_permissions(temp.path().join("outside"), fs::Permissions::from_mode(0o751))
            .unwrap();
        let root = Arc::new(Dir::open_user(&temp.path().join("root")).unwrap());
        let sentinel = look(temp.path());
        Place { temp, root, names: TempNames::new(RunId::random()), sentinel }
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.temp.path().join("root").join(below)
    }

    pub fn outside(&self) -> PathBuf {
        self.temp.path().join("outside")
    }

    pub fn put(&self, dir: &Arc<Dir>, to: &str, text: &str) -> Result<(), PublishError> {
        self.put_if(dir, to, text, &Expected::Any)
    }

    pub fn put_if(
        &self,
        dir: &Arc<Dir>,
        to: &str,
        text: &str,
        expect: &Expected,
    ) -> Result<(), PublishError> {
        publish(self.temp(dir, text), &name(to), &FileMeta::default(), SyncPolicy::None, expect)
    }

    pub fn temp(&self, dir: &Arc<Dir>, text: &str) -> Temp {
        let temp = self.names.create(dir).unwrap();
        temp.file().write_all_at(text.as_bytes(), 0).unwrap();
        temp
    }

    pub fn read(&self, below: &str) -> String {
        fs::read_to_string(self.path(below)).unwrap()
    }

    /// The outside is as it was: names, content, modes and times.
    pub fn check_outside(&self) {
        assert_eq!(look(self.temp.path()), self.sentinel);
        let names: Vec<_> = fs::read_dir(self.outside()).unwrap().collect();
        assert_eq!(names.len(), 1, "something appeared outside: {names:?}");
    }

    /// No name of ours is left anywhere in the destination.
    pub fn check_no_leftovers(&self) {
        assert_eq!(leftovers(&self.path("")), Vec::<PathBuf>::new());
    }
}

pub fn leftovers(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if is_reserved(entry.file_name().as_encoded_bytes()) {
            found.push(entry.path());
        } else if entry.file_type().unwrap().is_dir() {
            found.extend(leftovers(&entry.path()));
        }
    }
    found
}

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

pub fn rel(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

fn look(base: &Path) -> (Vec<u8>, u32, i64, i64, i64) {
    let dir = fs::symlink_metadata(base.join("outside")).unwrap();
    let file = fs::symlink_metadata(base.join("outside/sentinel")).unwrap();
    let text = fs::read(base.join("outside/sentinel")).unwrap();
    (text, dir.mode() << 16 | file.mode(), dir.mtime_nsec(), file.mtime_nsec(), file.ctime_nsec())
}
