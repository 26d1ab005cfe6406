//! The folders that files were put into or taken from a moment ago, held open: thousands of small
//! files lie in few folders.
//!
//! What is kept is believed for so short a time that it is as if each file's folder had been opened
//! a little earlier: a folder that is moved, or replaced by a link, in between is met where it is
//! now, below the base as it was when it was opened, as happens to any program that has it open.
//! One that was removed refuses what is new in it, and is opened anew then.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fcp_common::fs::Dir;
use fcp_proto::path::{Name, RelPath};

use super::open;

/// Folders of a month and of what is done of it, for a few jobs.
const KEPT: usize = 8;
/// Some hundred files' time, and nothing that a person could notice.
const TRUSTED: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
pub(super) struct Dirs {
    recent: Mutex<VecDeque<Recent>>,
}

#[derive(Debug)]
struct Recent {
    path: RelPath,
    dir: Arc<Dir>,
    opened: Instant,
}

impl Dirs {
    /// Does something with a name in a folder below `base`: at once in the folder as it was opened
    /// lately, and once more in the one of that path now if there was no such thing.
    pub(super) fn work<T>(
        &self,
        base: &Dir,
        path: &RelPath,
        mut work: impl FnMut(&Dir, &Name) -> io::Result<T>,
    ) -> io::Result<T> {
        let Some((parent, name)) = path.split_last() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not for the base folder"));
        };
        if let Some(dir) = self.lately(&parent) {
            match work(&dir, &name) {
                Err(error) if is_gone(&error) => {}
                done => return done,
            }
        }
        let dir = Arc::new(open::beneath(base, &parent)?);
        self.keep(parent, Arc::clone(&dir));
        work(&dir, &name)
    }

    fn lately(&self, path: &RelPath) -> Option<Arc<Dir>> {
        let mut recent = self.lock();
        let known = recent.iter().find(|known| known.path == *path)?;
        if known.opened.elapsed() < TRUSTED {
            return Some(Arc::clone(&known.dir));
        }
        recent.retain(|known| known.path != *path);
        None
    }

    fn keep(&self, path: RelPath, dir: Arc<Dir>) {
        let mut recent = self.lock();
        recent.retain(|known| known.path != path);
        recent.truncate(KEPT - 1);
        recent.push_front(Recent { path, dir, opened: Instant::now() });
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Recent>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::StaleNetworkFileHandle)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    struct Place {
        dir: tempfile::TempDir,
        base: Dir,
        dirs: Dirs,
    }

    impl Place {
        fn new() -> Place {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("d")).unwrap();
            let base = Dir::open_user(dir.path()).unwrap();
            Place { dir, base, dirs: Dirs::default() }
        }

        fn create(&self, at: &str) -> io::Result<()> {
            let made =
                self.dirs.work(&self.base, &path(at), |dir, name| dir.create_new(name, 0o600));
            made.map(drop)
        }

        fn has(&self, at: &str) -> bool {
            self.dir.path().join(at).exists()
        }
    }

    #[test]
    fn a_folder_that_was_removed_and_made_anew_is_met_anew() {
        let place = Place::new();
        place.create("d/a").unwrap();
        fs::remove_dir_all(place.dir.path().join("d")).unwrap();
        assert_eq!(place.create("d/b").unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::create_dir(place.dir.path().join("d")).unwrap();
        place.create("d/b").unwrap();
        assert!(place.has("d/b"));
    }

    #[test]
    fn s18_a_folder_that_became_another_is_met_within_a_moment() {
        let place = Place::new();
        place.create("d/a").unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::rename(place.dir.path().join("d"), place.dir.path().join("old")).unwrap();
        std::os::unix::fs::symlink(outside.path(), place.dir.path().join("d")).unwrap();
        std::thread::sleep(TRUSTED);
        place.create("d/b").unwrap_err();
        assert!(!place.has("old/b") && !outside.path().join("b").exists());
        fs::remove_file(place.dir.path().join("d")).unwrap();
        fs::create_dir(place.dir.path().join("d")).unwrap();
        place.create("d/b").unwrap();
        assert!(place.has("d/b"));
    }

    #[test]
    fn few_folders_are_held_open() {
        let place = Place::new();
        for n in 0..3 * KEPT {
            fs::create_dir(place.dir.path().join(n.to_string())).unwrap();
            place.create(&format!("{n}/a")).unwrap();
        }
        assert_eq!(place.dirs.lock().len(), KEPT);
        place.create("0/b").unwrap();
        assert!(place.has("0/b"));
    }
}
