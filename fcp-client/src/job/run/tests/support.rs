//! A source, a destination, a job between them, and what must hold at every moment.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fcp_proto::path::RelPath;
use regex::bytes::Regex;

use crate::job::ledger::mem::MemBook;
use crate::job::report::{JobEvent, JobSummary};
use crate::job::run::{Listener, Order, Stop, run_job};
use crate::job::spec::{Action, ClockRule, Done, End, JobSpec, Layout, Overwrite, Transfer};
use crate::location::Location;
use crate::location::faulty::{Faults, Faulty};
use crate::location::local::Local;
use crate::location::tests::support as tests;

pub(crate) struct Bench {
    pub(super) dir: tempfile::TempDir,
    pub(super) spec: JobSpec,
    pub(super) book: MemBook,
    pub(super) folders: Vec<RelPath>,
    pub(super) faults: Option<Arc<Faults>>,
    /// Which ends are behind an SFTP server.
    pub(super) far: (bool, bool),
    pub(super) events: Arc<Mutex<Vec<JobEvent>>>,
    pub(super) stop: Stop,
}

impl Bench {
    pub(super) fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        for name in ["in", "out"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let spec = spec(&dir.path().join("in"), &dir.path().join("out"));
        Bench {
            dir,
            spec,
            book: MemBook::default(),
            folders: vec![RelPath::root()],
            faults: None,
            far: (false, false),
            events: Arc::default(),
            stop: Stop::new(),
        }
    }

    pub(super) fn action(mut self, action: Action, zip: bool) -> Bench {
        (self.spec.done.action, self.spec.done.zip) = (action, zip);
        self
    }

    pub(super) fn source(&self) -> PathBuf {
        self.dir.path().join("in")
    }

    pub(super) fn destination(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    pub(super) fn put(&self, name: &str, content: &[u8]) {
        put(&self.source().join(name), content);
    }

    pub(super) fn put_there(&self, name: &str, content: &[u8]) {
        put(&self.destination().join(name), content);
    }

    pub(super) fn here(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.source().join(name)).ok()
    }

    pub(super) fn there(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.destination().join(name)).ok()
    }

    /// All files below the source or the destination, with slashes.
    pub(super) fn names(&self, end: &Path) -> Vec<String> {
        let mut names = Vec::new();
        walk(end, "", &mut names);
        names.sort();
        names
    }

    async fn place(&self, path: &Path, far: bool) -> Location {
        let place = match far {
            false => Location::Local(Local::new(path).unwrap()),
            true => {
                let base = path.as_os_str().as_encoded_bytes();
                Location::Sftp(tests::sftp(base, "", true).await.unwrap())
            }
        };
        match &self.faults {
            Some(faults) => Faulty::over(place, faults),
            None => place,
        }
    }

    pub(super) async fn order(&self) -> Order {
        Order {
            spec: self.spec.clone(),
            place: "file:///in".to_owned(),
            source: self.place(&self.source(), self.far.0).await,
            destination: self.place(&self.destination(), self.far.1).await,
            folders: self.folders.clone(),
            year: None,
            large: None,
        }
    }

    pub(super) fn listener(&self) -> Listener {
        let events = Arc::clone(&self.events);
        Arc::new(move |event: &JobEvent| events.lock().unwrap().push(event.clone()))
    }

    pub(super) async fn run(&self) -> JobSummary {
        self.events.lock().unwrap().clear();
        let run = run_job(self.order().await, &self.book, self.listener(), &self.stop);
        tokio::time::timeout(Duration::from_secs(60), run).await.expect("a run ends")
    }

    /// Why a file was left alone or failed.
    pub(super) fn why(&self, name: &str) -> String {
        let events = self.events.lock().unwrap();
        let found = events.iter().find_map(|event| match event {
            JobEvent::Skipped { file, why, .. } if file == name => Some(why.clone()),
            JobEvent::Failed { file, error, .. } if file == name => Some(format!("FAILED {error}")),
            _ => None,
        });
        found.unwrap_or_default()
    }

    pub(super) fn action_of(&self, name: &str) -> String {
        let events = self.events.lock().unwrap();
        let found = events.iter().find_map(|event| match event {
            JobEvent::Done(record) if record.file == name => Some(record.action.clone()),
            _ => None,
        });
        found.unwrap_or_default()
    }
}

fn put(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn walk(dir: &Path, prefix: &str, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match entry.file_type().unwrap().is_dir() {
            true => walk(&entry.path(), &format!("{name}/"), names),
            false => names.push(name),
        }
    }
}

/// The content of the only file in a zip.
pub(super) fn unzip(bytes: &[u8]) -> Option<(String, Vec<u8>)> {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).ok()?;
    let mut file = archive.by_index(0).ok()?;
    let mut content = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut content).ok()?;
    let name = file.name().ok()?.into_owned();
    Some((name, content))
}

pub(crate) fn spec(source: &Path, destination: &Path) -> JobSpec {
    JobSpec {
        key: "JOB".to_owned(),
        name: "JOB".to_owned(),
        description: String::new(),
        source: End::Local { path: source.to_owned() },
        destination: End::Local { path: destination.to_owned() },
        file_pattern: Regex::new("").unwrap(),
        folder_pattern: "".parse().unwrap(),
        layout: Layout::Tree,
        overwrite: Overwrite::Larger,
        transfer: Transfer {
            large_file_threshold: 500 << 20,
            chunk_size: 32 << 20,
            resume: true,
            verify_integrity: false,
            show_progress: false,
            attempts: 3,
            retry_delay: Duration::from_millis(1),
        },
        done: Done { action: Action::Keep, zip: false, folder: "DONE".to_owned() },
        min_age: Duration::ZERO,
        stable: Duration::ZERO,
        marker: None,
        clock: ClockRule::Server,
        max_workers: 2,
        max_connections: 2,
        log_dir: PathBuf::from("/nowhere"),
        on_success: None,
        on_failure: None,
    }
}
