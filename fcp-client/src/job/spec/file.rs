//! A whole `jobs.yaml`: where it is, who may read it, and the jobs in it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use fcp_common::private::{self, PrivateError, Rule, shown};
use zeroize::Zeroizing;

use super::end::{Base, dir_of};
use super::error::{SpecError, nearest};
use super::fields::shown_key;
use super::secrets::{mended, quoted};
use super::yaml::{self, Key, Node, Value};
use super::{JobSpec, job};

/// What no job file exceeds.
const MAX_SIZE: u64 = 1 << 20;
/// Who could write it could have fcp run commands.
const RULE: Rule = Rule::given(0o022, MAX_SIZE);
/// Keys of the file that are no jobs.
const LOG_DIR: &str = "log_dir";
const SECRETS: [&str; 2] = ["password", "passphrase"];

/// What a job file holds.
#[derive(Clone, Debug)]
pub struct JobFile {
    /// Where it was read from.
    pub path: PathBuf,
    /// Its jobs, in order.
    pub jobs: Vec<Checked>,
}

/// A job, or what is wrong with it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Its top-level key.
    pub key: String,
    /// What it is, or all its mistakes.
    pub spec: Result<JobSpec, Vec<SpecError>>,
    /// What is no mistake but looks like one.
    pub warnings: Vec<String>,
}

impl JobFile {
    /// The job that is called so.
    ///
    /// # Errors
    /// There is none; the text names those that there are.
    pub fn job(&self, name: &str) -> Result<&Checked, SpecError> {
        self.jobs.iter().find(|job| job.key == name).ok_or_else(|| {
            let keys = || self.jobs.iter().map(|job| job.key.as_str());
            let meant = nearest(name, keys());
            let meant = meant.map(|key| format!("; did you mean {}?", fcp_proto::escape_text(key)));
            let all: Vec<_> = keys().take(50).map(fcp_proto::escape_text).collect();
            let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
            let name = fcp_proto::escape_text(name);
            let meant = meant.unwrap_or_default();
            let meant = if meant.is_empty() { "." } else { &meant };
            let text = format!("there is no job {name}{meant} The jobs are: {all}");
            SpecError::of_file(&escaped(&self.path), None, text)
        })
    }
}

/// Where job files are looked for: `explicit` (`-c`) alone, or `./jobs.yaml`, the user's and the
/// system's directory of settings.
pub fn candidates(
    explicit: Option<&Path>,
    env: &impl Fn(&str) -> Option<OsString>,
) -> Vec<PathBuf> {
    if let Some(only) = explicit {
        return vec![only.to_owned()];
    }
    let absolute = |name| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    let user = base.map(|base| base.join("fcp/jobs.yaml"));
    let [here, system] = ["jobs.yaml", "/etc/fcp/jobs.yaml"].map(PathBuf::from);
    [Some(here), user, Some(system)].into_iter().flatten().collect()
}

/// Reads the first of [`candidates`] that is there.
///
/// # Errors
/// None is there, or see [`load`].
pub fn find(
    explicit: Option<&Path>,
    env: &impl Fn(&str) -> Option<OsString>,
) -> Result<JobFile, SpecError> {
    let candidates = candidates(explicit, env);
    for path in &candidates {
        if let Some(found) = read(path)? {
            return understand(path, &found.bytes, found.is_secret, env);
        }
    }
    match explicit {
        Some(path) => Err(failed(path, &PrivateError::missing(path))),
        None => {
            let tried: Vec<_> = candidates.iter().map(|path| escaped(path)).collect();
            let text =
                format!("there is none (looked for {}); -c FILE names one", tried.join(", "));
            Err(SpecError::of_file("jobs.yaml", None, text))
        }
    }
}

/// Reads the job file `path`. `env` is asked for `HOME` and `XDG_STATE_HOME` only.
///
/// # Errors
/// It cannot be read, others can write to it, others can read it and it holds a secret, or it is
/// no YAML of jobs. What is wrong with a single job is in [`Checked::spec`].
pub fn load(path: &Path, env: &impl Fn(&str) -> Option<OsString>) -> Result<JobFile, SpecError> {
    let found = read(path)?.ok_or_else(|| failed(path, &PrivateError::missing(path)))?;
    understand(path, &found.bytes, found.is_secret, env)
}

/// What a file holds, wiped when dropped.
struct Found {
    bytes: Zeroizing<Vec<u8>>,
    /// Nobody else can read it.
    is_secret: bool,
}

/// The file, if it is there.
fn read(path: &Path) -> Result<Option<Found>, SpecError> {
    let found = private::read(path, &RULE).map_err(|error| failed(path, &error))?;
    let found = found.map(|f| Found { bytes: Zeroizing::new(f.bytes), is_secret: f.is_secret });
    Ok(found)
}

fn failed(path: &Path, error: &PrivateError) -> SpecError {
    let text = mended(error);
    // The file is named already.
    let text = text.strip_prefix(&format!("{}: ", shown(path))).unwrap_or(&text).to_owned();
    SpecError::of_file(&escaped(path), None, text)
}

fn escaped(path: &Path) -> String {
    fcp_proto::escape(path.as_os_str().as_encoded_bytes())
}

/// What the bytes of a file say.
pub(super) fn understand(
    path: &Path,
    bytes: &[u8],
    is_secret: bool,
    env: &impl Fn(&str) -> Option<OsString>,
) -> Result<JobFile, SpecError> {
    let file = escaped(path);
    let root = tree(&file, bytes)?;
    if let (false, Some(line)) = (is_secret, secret_in(&root)) {
        let (path, mends) = (shown(path), quoted(path));
        let text = format!("a password is here, and others can read {path}: chmod 600 {mends}");
        return Err(SpecError::of_file(&file, Some(line), text));
    }
    let Value::Map(entries) = &root.value else {
        return Err(SpecError::of_file(&file, Some(root.line), "jobs are needed, as in `NAME:`"));
    };
    let absolute = |name| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = Base { dir: absolute_dir(path), home: absolute("HOME") };
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    let log_dir = log_dir(&file, entries, &base)?.or(state.map(|dir| dir.join("fcp")));
    let jobs = jobs(&file, entries, &base, log_dir.as_ref())?;
    Ok(JobFile { path: path.to_owned(), jobs })
}

fn tree(file: &str, bytes: &[u8]) -> Result<Node, SpecError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count();
        SpecError::of_file(file, Some(line), "it is not UTF-8")
    })?;
    yaml::parse(text).map_err(|flaw| SpecError::of_file(file, Some(flaw.line), flaw.text))
}

/// The directory that relative names count from, also after a change of directory.
fn absolute_dir(path: &Path) -> PathBuf {
    std::path::absolute(path).map_or_else(|_| dir_of(path), |path| dir_of(&path))
}

fn log_dir(file: &str, entries: &[(Key, Node)], base: &Base) -> Result<Option<PathBuf>, SpecError> {
    let Some((key, node)) = entries.iter().find(|(key, _)| key.name == LOG_DIR) else {
        return Ok(None);
    };
    let path = match &node.value {
        Value::Scalar { text, .. } if !node.is_null() => base.file(text),
        _ => Err("a directory is needed".to_owned()),
    };
    path.map(Some)
        .map_err(|why| SpecError::of_file(file, Some(key.line), format!("log_dir: {why}")))
}

fn jobs(
    file: &str,
    entries: &[(Key, Node)],
    base: &Base,
    log_dir: Option<&PathBuf>,
) -> Result<Vec<Checked>, SpecError> {
    let mut jobs: Vec<Checked> = Vec::new();
    for (at, (key, node)) in entries.iter().enumerate() {
        let is_settings = key.name == LOG_DIR;
        let twice = entries[..at].iter().find(|(other, _)| other.name == key.name);
        if let Some((first, _)) = twice {
            let name = shown_key(&key.name);
            let text = format!("{name} is there twice, in line {}, too", first.line);
            return Err(SpecError::of_file(file, Some(key.line), text));
        }
        if is_settings {
            continue;
        }
        if !matches!(node.value, Value::Map(_)) {
            return Err(SpecError::of_file(file, Some(key.line), no_job(&key.name)));
        }
        let (spec, warnings) = job::read(file, &key.name, node, base, log_dir.cloned());
        jobs.push(Checked { key: key.name.clone(), spec, warnings });
    }
    Ok(jobs)
}

/// A key of the file that is neither a job nor `log_dir`.
fn no_job(key: &str) -> String {
    let shown = shown_key(key);
    match job::elsewhere(key) {
        Some(about) => format!("{shown}: {about} of a job: is it indented?"),
        None => match nearest(key, [LOG_DIR].into_iter()) {
            Some(meant) => format!("{shown}: unknown key; did you mean {meant}?"),
            None => format!("{shown}: unknown key; a job has keys of its own, indented below it"),
        },
    }
}

/// The line of a secret that stands in the file itself.
fn secret_in(node: &Node) -> Option<usize> {
    match &node.value {
        Value::Scalar { .. } => None,
        Value::List(nodes) => nodes.iter().find_map(secret_in),
        Value::Map(entries) => entries.iter().find_map(|(key, value)| {
            let is_secret = SECRETS.contains(&key.name.to_ascii_lowercase().as_str());
            match is_secret && !value.is_null() {
                true => Some(key.line),
                false => secret_in(value),
            }
        }),
    }
}
