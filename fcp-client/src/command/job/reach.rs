//! What the places of a job allow: to be reached, listed, written to, and what is done with files.

use bytes::Bytes;
use fcp_proto::path::{Name, RelPath};

use crate::job::folders;
use crate::job::plan;
use crate::job::run::{self, Stop, Unreached};
use crate::job::spec::{Action, ClockRule, End, JobSpec};
use crate::location::sftp::dial::Login;
use crate::location::{Clock, DigestKind, Location, LocationError, Reason, SetMeta};

/// Something that was tried for `fcp job check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// `source` or `destination`.
    pub(super) end: &'static str,
    /// Whether a run would get by.
    pub(super) ok: bool,
    /// What was tried, and what came of it; escaped.
    pub(super) text: String,
    /// Whether nobody could be reached, which has an exit code of its own.
    pub(super) unreachable: bool,
}

/// The logins of a job's ends, with their secrets; `None` for a local end.
pub(super) struct Logins {
    /// Of its source.
    pub(super) source: Option<Login>,
    /// Of its destination.
    pub(super) destination: Option<Login>,
}

/// Tries what a run of `spec` needs and leaves nothing behind: reach both ends, list the folders,
/// write, rename and remove a file of our own at the destination, and beside the source's files
/// where the action is MOVE or DELETE.
pub(super) async fn reach(spec: &JobSpec, logins: Logins) -> Vec<Finding> {
    let mut source = Tries { end: "source", findings: Vec::new() };
    let mut destination = Tries { end: "destination", findings: Vec::new() };
    tokio::join!(
        source.source(spec, logins.source),
        destination.destination(spec, logins.destination)
    );
    source.findings.extend(destination.findings);
    source.findings
}

/// What was tried at one end.
struct Tries {
    end: &'static str,
    findings: Vec<Finding>,
}

impl Tries {
    fn ok(&mut self, text: impl Into<String>) {
        self.found(true, text.into());
    }

    fn bad(&mut self, text: impl Into<String>) {
        self.found(false, text.into());
    }

    fn found(&mut self, ok: bool, text: String) {
        let text = fcp_proto::escape_text(&text);
        self.findings.push(Finding { end: self.end, ok, text, unreachable: false });
    }

    /// A try as a finding; what it gave.
    fn tried<T>(&mut self, what: &str, done: Result<T, LocationError>) -> Option<T> {
        match done {
            Ok(value) => {
                self.ok(format!("{what}: ok"));
                Some(value)
            }
            Err(error) => {
                self.bad(format!("{what}: {error}"));
                None
            }
        }
    }

    async fn connect(
        &mut self,
        spec: &JobSpec,
        end: &End,
        login: Option<Login>,
    ) -> Option<Location> {
        match reached(spec, end, login).await {
            Ok(location) => {
                self.ok(format!("{} is there", location.name()));
                Some(location)
            }
            Err(unreached) => {
                self.unreached(&unreached);
                None
            }
        }
    }

    fn unreached(&mut self, unreached: &Unreached) {
        self.bad(unreached.to_string());
        if let Some(finding) = self.findings.last_mut() {
            finding.unreachable = unreached.is_connection();
        }
    }

    async fn source(&mut self, spec: &JobSpec, login: Option<Login>) {
        let Some(place) = self.connect(spec, &spec.source, login).await else { return };
        let Some(folder) = self.folder(spec, &place).await else { return };
        if spec.clock == ClockRule::Server && !spec.min_age.is_zero() {
            let clock = place.clock(&folder).await;
            match self.tried("measuring its clock", clock) {
                Some(Clock::Unknown) => self.bad(
                    "its clock cannot be measured: files count from when they were first seen; \
                     `clock: ours` trusts this machine's",
                ),
                Some(Clock::Skew { millis, error }) => self.ok(match millis {
                    _ if u128::from(millis.unsigned_abs()) <= error.as_millis() => {
                        "its clock is as ours".to_owned()
                    }
                    1.. => format!("its clock is {millis} ms ahead of ours"),
                    _ => format!("its clock is {} ms behind ours", millis.unsigned_abs()),
                }),
                None => {}
            }
        }
        if spec.done.action != Action::Keep {
            self.put_away(spec, &place, &folder).await;
        }
    }

    /// The first folder that a run would look into and that is there.
    async fn folder(&mut self, spec: &JobSpec, place: &Location) -> Option<RelPath> {
        let today = jiff::Zoned::now().date();
        let mut there = None;
        let mut missing = Vec::new();
        for folder in folders::folders(&spec.folder_pattern, None, today) {
            match place.list(&folder.path).await {
                Ok(listing) => {
                    let (files, _) = plan::sift(spec, &folder.path, &listing);
                    self.ok(format!("{}: {} files match", folder.path, files.len()));
                    there = there.or(Some(folder.path));
                }
                Err(error) if error.reason == Reason::NotFound => {
                    missing.push(folder.path.to_string());
                }
                Err(error) => self.bad(error.to_string()),
            }
        }
        if there.is_none() {
            self.bad(format!(
                "no folder to look into is there ({}); see folder_pattern",
                missing.join(", ")
            ));
        }
        there
    }

    /// What MOVE and DELETE need, with a file of our own.
    async fn put_away(&mut self, spec: &JobSpec, place: &Location, folder: &RelPath) {
        let Some(probe) = self.write(place, folder).await else { return };
        let mut last = probe.clone();
        if spec.done.action == Action::Move {
            last = self.put_into_done(spec, place, folder, &probe).await.unwrap_or(probe);
        }
        self.tried("removing a file", place.remove(&last).await);
        if let Some((dir, _)) = last.split_last()
            && dir != *folder
        {
            // Only what is empty goes: what was there has files, or nobody misses it.
            let _ = place.remove_dir(&dir).await;
        }
        if spec.done.zip && !place.capabilities().durable {
            self.bad(
                "it does not promise that files survive a power cut (no fsync@openssh.com), so no \
                 source would go; use zip_before_move: false",
            );
        }
    }

    async fn put_into_done(
        &mut self,
        spec: &JobSpec,
        place: &Location,
        folder: &RelPath,
        probe: &RelPath,
    ) -> Option<RelPath> {
        let mut done = folder.clone();
        for part in spec.done.folder.split('/').filter(|part| !part.is_empty()) {
            done = done.join(&Name::new(part.as_bytes()).ok()?).ok()?;
        }
        let made = place.make_dirs(&done).await;
        self.tried(&format!("making {done}"), made)?;
        let to = done.join(&probe.split_last()?.1).ok()?;
        let renamed = place.rename_new(probe, &to).await;
        self.tried(&format!("renaming into {done}"), renamed)?;
        Some(to)
    }

    async fn write(&mut self, place: &Location, dir: &RelPath) -> Option<RelPath> {
        let name = format!(".tmp.fcp-check.{:08x}", run::random());
        let probe = dir.join(&Name::new(name.as_bytes()).ok()?).ok()?;
        let content = Bytes::from_static(b"fcp job check\n");
        let written = place.write_small(&probe, content, SetMeta::default(), false).await;
        self.tried("writing a file", written).map(|_| probe)
    }

    async fn destination(&mut self, spec: &JobSpec, login: Option<Login>) {
        let place = match reached(spec, &spec.destination, login.clone()).await {
            Ok(place) => place,
            Err(unreached) if unreached.error.reason == Reason::NotFound => {
                return self.missing(spec, login, &unreached).await;
            }
            Err(unreached) => return self.unreached(&unreached),
        };
        self.ok(format!("{} is there", place.name()));
        let Some(probe) = self.write(&place, &RelPath::root()).await else { return };
        self.hashes(spec, &place, &probe).await;
        let other = format!(".tmp.fcp-check.{:08x}", run::random());
        let Ok(other) = RelPath::new(other.as_bytes()) else { return };
        let renamed = place.rename_new(&probe, &other).await;
        let last = match self.tried("renaming a file", renamed) {
            Some(()) => other,
            None => probe,
        };
        self.tried("removing a file", place.remove(&last).await);
        if spec.done.action != Action::Keep && !place.capabilities().durable {
            self.bad(
                "it does not promise that files survive a power cut (no fsync@openssh.com), so no \
                 source would go; use done.action: KEEP",
            );
        }
    }

    /// A run makes the destination's base where it is not there, if it may.
    async fn missing(&mut self, spec: &JobSpec, login: Option<Login>, unreached: &Unreached) {
        let mut end = spec.destination.clone();
        while let Some(above) = end.parent() {
            match reached(spec, &above, login.clone()).await {
                Ok(place) => {
                    self.ok(format!("{} is not there; a run makes it", spec.destination.shown()));
                    let Some(probe) = self.write(&place, &RelPath::root()).await else { return };
                    self.tried("removing a file", place.remove(&probe).await);
                    return;
                }
                Err(error) if error.error.reason == Reason::NotFound => end = above,
                Err(error) => return self.unreached(&error),
            }
        }
        self.unreached(unreached);
    }

    async fn hashes(&mut self, spec: &JobSpec, place: &Location, probe: &RelPath) {
        let kinds = [DigestKind::Sha256, DigestKind::Md5];
        let proving = spec.transfer.verify_integrity || spec.done.action != Action::Keep;
        match place.digest(probe, &kinds).await {
            _ if !proving => {}
            Ok(Some(digest)) => self.ok(format!("copies are proven by {}", digest.by)),
            Ok(None) => self.ok("copies are proven by reading them back"),
            Err(error) => self.bad(error.to_string()),
        }
    }
}

/// One try: whoever checks wants to know now.
async fn reached(spec: &JobSpec, end: &End, login: Option<Login>) -> Result<Location, Unreached> {
    let tries = run::Tries { max: 1, told: &|_| () };
    run::connect(spec, end, login, false, tries, &Stop::new()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::run::bench;

    fn texts(findings: &[Finding], ok: bool) -> Vec<&str> {
        findings.iter().filter(|f| f.ok == ok).map(|f| f.text.as_str()).collect()
    }

    async fn checked(spec: &JobSpec) -> Vec<Finding> {
        reach(spec, Logins { source: None, destination: None }).await
    }

    #[tokio::test]
    async fn a_check_tries_what_a_run_does_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (source, destination) = (dir.path().join("in"), dir.path().join("out"));
        std::fs::create_dir_all(&source).unwrap();
        std::fs::create_dir_all(&destination).unwrap();
        std::fs::write(source.join("a"), "1").unwrap();
        let mut spec = bench::spec(&source, &destination);
        spec.done.action = Action::Move;
        let findings = checked(&spec).await;
        assert_eq!(texts(&findings, false), Vec::<&str>::new());
        assert!(texts(&findings, true).iter().any(|text| text.contains("renaming into DONE: ok")));
        let left: Vec<_> = std::fs::read_dir(&source).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(std::fs::read_dir(&destination).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn s13_a_check_tells_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = bench::spec(dir.path(), &dir.path().join("none"));
        spec.folder_pattern = "{yyyy}".parse().unwrap();
        let findings = checked(&spec).await;
        let bad = texts(&findings, false);
        assert!(bad.len() == 1 && bad[0].contains("see folder_pattern"), "{bad:?}");
        assert!(
            texts(&findings, true).iter().any(|text| text.contains("none is not there; a run"))
        );
        assert!(!dir.path().join("none").exists());
        assert!(findings.iter().all(|finding| !finding.unreachable));
        spec.folder_pattern = "".parse().unwrap();
        spec.done.action = Action::Move;
        std::fs::write(dir.path().join("DONE"), "").unwrap();
        let findings = checked(&spec).await;
        assert!(texts(&findings, false)[0].starts_with("making DONE: "), "{findings:?}");
        let names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["DONE"]);
    }
}
