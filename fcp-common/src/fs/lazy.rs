//! Directories that are remembered by path and held open only while they are in use.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use fcp_proto::RelPath;

use super::Dir;

/// Longest path that the kernel takes in one call; deeper directories are reached step by step.
const PATH_MAX: usize = 4096;

/// A directory below a held root; opened at need, closed when too many are open.
#[derive(Debug)]
pub struct LazyDir {
    root: Arc<Dir>,
    path: RelPath,
    open: Mutex<Option<Arc<Dir>>>,
    pool: Arc<DirPool>,
}

/// Bounds how many [`LazyDir`]s are open; the one opened first is closed first.
#[derive(Debug)]
pub struct DirPool {
    capacity: usize,
    open: Mutex<VecDeque<Weak<LazyDir>>>,
}

impl DirPool {
    /// A pool that keeps at most `capacity` directories open.
    pub fn new(capacity: usize) -> Arc<DirPool> {
        Arc::new(DirPool { capacity, open: Mutex::default() })
    }

    fn admit(&self, dir: &Arc<LazyDir>) {
        let mut open = lock(&self.open);
        open.push_back(Arc::downgrade(dir));
        while open.len() > self.capacity {
            if let Some(oldest) = open.pop_front().and_then(|weak| weak.upgrade())
                && !Arc::ptr_eq(&oldest, dir)
            {
                *lock(&oldest.open) = None;
            }
        }
    }
}

impl LazyDir {
    /// The root itself.
    pub fn root(root: Arc<Dir>, pool: Arc<DirPool>) -> Arc<LazyDir> {
        let open = Mutex::new(Some(Arc::clone(&root)));
        Arc::new(LazyDir { root, path: RelPath::root(), open, pool })
    }

    /// The directory `path` below the same root; `open` when the caller has it open already.
    pub fn below(&self, path: RelPath, open: Option<Arc<Dir>>) -> Arc<LazyDir> {
        let had = open.is_some();
        let (root, pool) = (Arc::clone(&self.root), Arc::clone(&self.pool));
        let dir = Arc::new(LazyDir { root, path, open: Mutex::new(open), pool });
        if had {
            dir.pool.admit(&dir);
        }
        dir
    }

    /// The directory, opened again if it was closed.
    pub fn get(self: &Arc<LazyDir>) -> io::Result<Arc<Dir>> {
        if let Some(dir) = &*lock(&self.open) {
            return Ok(Arc::clone(dir));
        }
        let dir = Arc::new(self.reopen()?);
        *lock(&self.open) = Some(Arc::clone(&dir));
        self.pool.admit(self);
        Ok(dir)
    }

    /// Where it is below its root.
    pub fn path(&self) -> &RelPath {
        &self.path
    }

    /// The root that it is below.
    pub fn root_dir(&self) -> &Arc<Dir> {
        &self.root
    }

    fn reopen(&self) -> io::Result<Dir> {
        if self.path.as_bytes().len() < PATH_MAX {
            self.root.open_beneath(&self.path)
        } else {
            self.root.open_beneath_by_walk(&self.path)
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs while these are held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fcp_proto::Name;

    #[test]
    fn f02_many_directories_need_few_descriptors() {
        let temp = tempfile::tempdir().unwrap();
        let root = Arc::new(Dir::open_user(temp.path()).unwrap());
        let lazy = LazyDir::root(Arc::clone(&root), DirPool::new(2));
        let dirs: Vec<_> = (0..10)
            .map(|i| {
                let name = Name::new(format!("d{i}").as_bytes()).unwrap();
                root.mkdir(&name, 0o700).unwrap();
                lazy.below(RelPath::from(name), None)
            })
            .collect();
        for dir in dirs.iter().chain(&dirs) {
            dir.get().unwrap().own_stat().unwrap();
        }
        let open = dirs.iter().filter(|d| lock(&d.open).is_some()).count();
        assert!(open <= 2, "{open} are open");
    }
}
