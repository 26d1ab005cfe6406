//! One job: from its mapping to a [`JobSpec`], or to everything that is wrong with it.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use fcp_proto::path::RelPath;
use regex::bytes::{Regex, RegexBuilder};

use super::end::{self, Base};
use super::error::SpecError;
use super::fields::{Job, Section, choice, time, truth, whole};
use super::yaml::Node;
use super::{Action, ClockRule, Done, JobSpec, Layout, Overwrite, Transfer};
use crate::job::folders::FolderPattern;

const MIB: u64 = 1 << 20;
/// Ten years.
const MAX_AGE_MINUTES: u32 = 5_256_000;
const MAX_PATTERN: usize = 4 << 10;
/// A pattern that needs more memory is an accident or an attack.
const MAX_REGEX: usize = 1 << 20;

const ACTIONS: &[(&str, Action)] =
    &[("MOVE", Action::Move), ("DELETE", Action::Delete), ("KEEP", Action::Keep)];
const LAYOUTS: &[(&str, Layout)] = &[("tree", Layout::Tree), ("flat", Layout::Flat)];
const CLOCKS: &[(&str, ClockRule)] = &[("server", ClockRule::Server), ("ours", ClockRule::Ours)];
const OVERWRITES: &[(&str, Overwrite)] = &[
    ("larger", Overwrite::Larger),
    ("never", Overwrite::Never),
    ("always", Overwrite::Always),
    ("newer", Overwrite::Newer),
    ("differs", Overwrite::Differs),
    ("rename", Overwrite::Rename),
];
/// Where a key belongs that was found somewhere else.
const HOMES: [(&str, &[&str]); 2] = [
    ("done", &["action", "folder"]),
    ("source or destination", &["type", "host", "port", "user", "base_path", "path", "key_file"]),
];

/// Reads a job; the second part is what is no mistake but looks like one.
pub(super) fn read(
    file: &str,
    key: &str,
    node: &Node,
    base: &Base,
    log_dir: Option<PathBuf>,
) -> (Result<JobSpec, Vec<SpecError>>, Vec<String>) {
    let name = fcp_proto::escape_text(key);
    let (errors, warnings) = (RefCell::default(), RefCell::default());
    let job = Job { file, name, errors, warnings };
    if let Err(text) = check_key(key) {
        job.error(node.line, "", text);
    }
    let spec = spec(&job, key, node, base, log_dir);
    let errors = job.errors.into_inner();
    let spec = spec.filter(|_| errors.is_empty()).ok_or(errors);
    (spec, job.warnings.into_inner())
}

/// A job's key becomes part of the names of its log and its lock.
fn check_key(key: &str) -> Result<(), &'static str> {
    let bad = |c: char| c == '/' || c == '\\' || c.is_control();
    match key {
        "" => Err("a job needs a name"),
        key if key.len() > 100 => Err("a job's name has at most 100 bytes"),
        key if key.starts_with(['.', '-']) || key.contains(bad) => {
            Err("a job's name becomes a file's: no slash in it, no dot or dash in front")
        }
        key if fcp_proto::escape_text(key) != key => Err("a job's name needs visible characters"),
        _ => Ok(()),
    }
}

/// `None` where something that is needed is missing, which was told then.
fn spec(
    job: &Job<'_>,
    key: &str,
    node: &Node,
    base: &Base,
    log_dir: Option<PathBuf>,
) -> Option<JobSpec> {
    let top = Section::new(job, "", node);
    let ends = (end::read(&top, "source", base), end::read(&top, "destination", base));
    let (transfer, done) = (top.section("transfer"), top.section("done"));
    let shared = Shared([Some(&top), done.as_ref(), transfer.as_ref()]);
    let zip = shared.read("zip_before_move", truth);
    let min_age = shared.read("min_file_age_minutes", time(60, MAX_AGE_MINUTES));
    let max_workers = shared.read("max_workers", whole(1..=64));
    let done_spec = done_of(job, done.as_ref(), zip.unwrap_or(false));
    let transfer_spec = transfer_of(&shared);
    let own = Own::read(&top, base);
    check_done(&top, &own.folder_pattern, &done_spec);
    let log_dir = own.log_dir.or(log_dir);
    if log_dir.is_none() {
        job.error(top.line, "log_dir", "there is no place for logs: set it, or HOME");
    }
    [Some(top), transfer, done].into_iter().flatten().for_each(|s| s.finish(elsewhere));
    let (source, destination) = (ends.0?, ends.1?);
    if let Some(why) = end::overlap(&source, &destination) {
        job.error(node.line, "destination", why);
    }
    Some(JobSpec {
        key: key.to_owned(),
        name: own.name.unwrap_or_else(|| key.to_owned()),
        description: own.description.unwrap_or_default(),
        source,
        destination,
        file_pattern: own.file_pattern?,
        folder_pattern: own.folder_pattern,
        layout: own.layout.unwrap_or_default(),
        overwrite: own.overwrite.unwrap_or_default(),
        transfer: transfer_spec,
        done: done_spec,
        min_age: min_age.unwrap_or_default(),
        stable: own.stable.unwrap_or_default(),
        marker: own.marker,
        clock: own.clock.unwrap_or_default(),
        max_workers: max_workers.unwrap_or(5) as usize,
        max_connections: own.max_connections.unwrap_or(4) as usize,
        log_dir: log_dir?,
        on_success: own.on_success,
        on_failure: own.on_failure,
    })
}

/// What stands at the job itself and depends on nothing else.
struct Own {
    name: Option<String>,
    description: Option<String>,
    file_pattern: Option<Regex>,
    folder_pattern: FolderPattern,
    layout: Option<Layout>,
    overwrite: Option<Overwrite>,
    stable: Option<Duration>,
    marker: Option<String>,
    clock: Option<ClockRule>,
    max_connections: Option<u64>,
    log_dir: Option<PathBuf>,
    on_success: Option<String>,
    on_failure: Option<String>,
}

impl Own {
    fn read(top: &Section<'_>, base: &Base) -> Own {
        Own {
            name: top.remark("name").filter(|name| !name.is_empty()),
            description: top.remark("description"),
            file_pattern: file_pattern(top),
            folder_pattern: top.read("folder_pattern", str::parse).unwrap_or_default(),
            layout: top.read("layout", choice(LAYOUTS)),
            overwrite: top.read("overwrite", choice(OVERWRITES)),
            stable: top.read("stable_seconds", time(1, 3600)),
            marker: top.read("marker", marker),
            clock: top.read("clock", choice(CLOCKS)),
            max_connections: top.read("max_connections", whole(1..=64)),
            log_dir: top.read("log_dir", |text| base.file(text)),
            on_success: top.read("on_success", command),
            on_failure: top.read("on_failure", command),
        }
    }
}

/// Keys that users' files have at the job, under `done` or under `transfer`.
struct Shared<'s, 'a>([Option<&'s Section<'a>>; 3]);

impl Shared<'_, '_> {
    fn read<T: PartialEq>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let mut first: Option<(String, T)> = None;
        for section in self.0.into_iter().flatten() {
            let Some(value) = section.read(key, &parse) else { continue };
            match &first {
                Some((place, said)) if *said != value => {
                    section.error(key, format!("it says another thing than {place}: keep one"));
                }
                Some(_) => {}
                None => first = Some((section.path(key), value)),
            }
        }
        first.map(|(_, value)| value)
    }
}

fn transfer_of(shared: &Shared<'_, '_>) -> Transfer {
    let number = |key, range, default| shared.read(key, whole(range)).unwrap_or(default);
    let switch = |key, default| shared.read(key, truth).unwrap_or(default);
    let delay = shared.read("retry_delay_seconds", time(1, 3600));
    Transfer {
        large_file_threshold: number("large_file_threshold_mb", 0..=1_000_000, 500) * MIB,
        chunk_size: number("chunk_size_mb", 1..=1024, 32) * MIB,
        resume: switch("resume_enabled", true),
        verify_integrity: switch("verify_integrity", false),
        show_progress: switch("show_progress", true),
        attempts: number("retry_attempts", 1..=100, 3) as u32,
        retry_delay: delay.unwrap_or(Duration::from_secs(10)),
    }
}

fn done_of(job: &Job<'_>, section: Option<&Section<'_>>, zip: bool) -> Done {
    let action = section.and_then(|s| s.read("action", choice(ACTIONS))).unwrap_or_default();
    let folder = section.and_then(|s| s.read("folder", below));
    if zip && action != Action::Move {
        job.warn("zip_before_move has no effect: the action is not MOVE");
    }
    let zip = zip && action == Action::Move;
    Done { action, zip, folder: folder.unwrap_or_else(|| "DONE".to_owned()) }
}

/// A path below a folder, with slashes.
fn below(text: &str) -> Result<String, String> {
    let text = text.replace('\\', "/");
    match RelPath::new(text.as_bytes()) {
        Ok(_) => Ok(text),
        Err(why) => {
            Err(format!("a folder below the file's own is needed, and this is one with {why}"))
        }
    }
}

/// What was put away is never picked up again.
fn check_done(top: &Section<'_>, pattern: &FolderPattern, done: &Done) {
    let pattern = pattern.to_string();
    let put_away = |part: &str| done.folder.split('/').any(|d| d.eq_ignore_ascii_case(part));
    if done.action == Action::Move
        && pattern.split('/').any(|part| !part.is_empty() && put_away(part))
    {
        top.error("folder_pattern", "it leads into done.folder, whose files are done with");
    }
}

/// `file_pattern`; without one, every name matches.
fn file_pattern(top: &Section<'_>) -> Option<Regex> {
    if !top.has("file_pattern") {
        top.job.warn("there is no file_pattern: every file is taken");
        return Regex::new("").ok();
    }
    top.read("file_pattern", |text| {
        if text.len() > MAX_PATTERN {
            return Err(format!("a pattern has at most {MAX_PATTERN} bytes"));
        }
        let mut builder = RegexBuilder::new(text);
        builder.unicode(false).size_limit(MAX_REGEX).dfa_size_limit(MAX_REGEX).nest_limit(100);
        builder.build().map_err(|error| regex_error(&error))
    })
}

/// The one line that says what is wrong; the others repeat the pattern.
fn regex_error(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
    format!("not a regex that can be used: {}", fcp_proto::escape_text(last))
}

fn marker(text: &str) -> Result<String, String> {
    let needed = "a name with {name} in it is needed, as in \"{name}.done\"";
    let other = text.replacen("{name}", "", 1);
    let bad = other == text || other.is_empty() || text.contains(['/', '\\', '\0']);
    if bad || other.contains(['{', '}']) { Err(needed.to_owned()) } else { Ok(text.to_owned()) }
}

fn command(text: &str) -> Result<String, String> {
    let empty = text.trim().is_empty();
    if empty { Err("a command is needed".to_owned()) } else { Ok(text.to_owned()) }
}

/// Where a key belongs that nobody knows where it stands.
pub(super) fn elsewhere(key: &str) -> Option<String> {
    let home = HOMES.iter().find(|(_, keys)| keys.contains(&key));
    home.map(|(home, _)| format!("it belongs under {home}"))
}
