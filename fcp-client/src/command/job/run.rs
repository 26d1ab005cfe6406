//! `fcp job run`: jobs at the same time, once or again and again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::Selection;
use crate::cli::{JobOptions, RunArgs};
use crate::error::CliError;
use crate::job::audit::Audit;
use crate::job::folders;
use crate::job::ledger::place;
use crate::job::ledger::sqlite::SqliteBook;
use crate::job::lock::{JobLock, LockError};
use crate::job::log::{JobLog, Level};
use crate::job::report::{JobEvent, JobSummary};
use crate::job::run::{self, Halt, Listener, Order, Stop, Tries, hooks};
use crate::job::spec::{End, JobSpec};
use crate::job::state;
use crate::location::{Location, Reason};
use crate::ui;
use crate::ui::exit::ExitStatus;
use crate::ui::job::{JobScreen, Style};

/// "File size limit exceeded", on every Linux but MIPS.
const SIGXFSZ: i32 = 25;

/// Runs jobs at the same time, and again with `--every`; then [`super::select`] reads the file
/// anew.
pub(super) fn run(
    options: &JobOptions,
    args: &RunArgs,
    jobs: Selection,
) -> Result<ExitStatus, CliError> {
    let style = Style {
        json: options.json,
        verbose: options.verbose,
        quiet: options.quiet,
        progress: !args.dry_run && jobs.jobs.iter().any(|job| job.transfer.show_progress),
    };
    let state = state::dir(&|name| std::env::var_os(name)).ok_or_else(|| {
        CliError::Usage("the ledger needs a place: set HOME or XDG_STATE_HOME".to_owned())
    })?;
    let built = |mut builder: Builder| {
        builder
            .enable_all()
            .build()
            .map_err(|why| CliError::Internal(format!("cannot start: {why}")))
    };
    // Small files are a few calls each: waking another thread for one costs more than the call.
    // Large ones are work for several.
    let runtime = built(Builder::new_current_thread())?;
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2);
    let large = built(builder)?;
    let runner = Runner {
        state,
        year: args.year,
        dry_run: args.dry_run,
        style,
        stop: Stop::new(),
        large: large.handle().clone(),
        refused: Arc::default(),
    };
    let here = tokio::task::LocalSet::new();
    let status = here.block_on(&runtime, async {
        let (hang_up, again) = (Arc::new(Notify::new()), args.every.is_some());
        let reload = again.then(|| Arc::clone(&hang_up));
        let signals = tokio::spawn(listen(runner.stop.clone(), reload)?);
        let status = match args.every {
            None => runner.round(jobs.jobs).await,
            Some(every) => {
                let reload = || super::select(options, &args.names);
                runner.every(every, jobs, &hang_up, reload).await
            }
        };
        signals.abort();
        Ok(status)
    });
    // What still blocks a thread (a hook, a dead disk) does not keep the process.
    large.shutdown_timeout(Duration::from_secs(1));
    runtime.shutdown_timeout(Duration::from_secs(1));
    status
}

/// The first signal ends runs in good order, a second one the process. SIGHUP is one of them, or
/// has the job file read anew.
fn listen(stop: Stop, reload: Option<Arc<Notify>>) -> Result<impl Future<Output = ()>, CliError> {
    let on = |kind| signal(kind).map_err(|why| CliError::Internal(format!("cannot start: {why}")));
    // Past a size limit a write is to fail as one file's error. A handler that nobody listens to
    // replaces the default action, for good.
    let _ = signal(SignalKind::from_raw(SIGXFSZ));
    let mut hang_up = on(SignalKind::hangup())?;
    let mut signals = vec![on(SignalKind::interrupt())?, on(SignalKind::terminate())?];
    if reload.is_none() {
        signals.push(on(SignalKind::hangup())?);
    }
    Ok(async move {
        let reloading = async {
            while hang_up.recv().await.is_some() {
                if let Some(reload) = &reload {
                    reload.notify_one();
                }
            }
            std::future::pending::<()>().await;
        };
        let ending = async {
            any(&mut signals).await;
            ui::error("stopping; a second signal stops at once");
            stop.halt(Halt::Cancelled);
            any(&mut signals).await;
            std::process::exit(ExitStatus::Signal as i32);
        };
        tokio::select! {
            () = reloading => {}
            () = ending => {}
        }
    })
}

async fn any(signals: &mut [Signal]) {
    std::future::poll_fn(|cx| {
        let any = signals.iter_mut().any(|s| s.poll_recv(cx).is_ready());
        if any { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// An end that cannot be used.
struct Ended {
    /// What that means for the job.
    summary: Box<JobSummary>,
    /// Its base directory is not there.
    missing: bool,
}

/// What holds for all jobs of a command.
#[derive(Clone)]
struct Runner {
    state: PathBuf,
    year: Option<i16>,
    dry_run: bool,
    style: Style,
    stop: Stop,
    /// Threads for large files.
    large: Handle,
    /// A server refused a login, or is not the one we know. Trying again can lock an account.
    refused: Arc<AtomicBool>,
}

impl Runner {
    /// All jobs at the same time; the worst of their ends.
    async fn round(&self, jobs: Vec<JobSpec>) -> ExitStatus {
        let book = match self.book().await {
            Ok(book) => book,
            Err(text) => {
                ui::error(&text);
                return ExitStatus::FileIo;
            }
        };
        let screen = JobScreen::new(self.style);
        let mut tasks = JoinSet::new();
        for spec in jobs {
            let (this, book, screen) = (self.clone(), book.clone(), screen.clone());
            tasks.spawn_local(async move { this.job(spec, book, &screen).await });
        }
        let mut worst = ExitStatus::Success;
        while let Some(ended) = tasks.join_next().await {
            worst = graver(worst, ended.unwrap_or(ExitStatus::FileIo));
        }
        screen.finish();
        worst
    }

    /// Rounds until somebody stops them, and nothing but waiting in between. A job file that broke
    /// meanwhile leaves the old one.
    async fn every(
        &self,
        every: Duration,
        first: Selection,
        hang_up: &Notify,
        reload: impl Fn() -> Result<Selection, CliError>,
    ) -> ExitStatus {
        let mut jobs = first.jobs;
        loop {
            let next = Instant::now() + every;
            let status = self.round(jobs.clone()).await;
            if self.stop.is_over() {
                return status;
            }
            if self.refused.load(Ordering::Relaxed) {
                ui::error(
                    "a login or a host key was refused: --every ends here, as an account that is \
                     tried again and again gets locked; mend it and start again",
                );
                return ExitStatus::Socket;
            }
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(next.into()) => break,
                    () = hang_up.notified() => jobs = reloaded(jobs, reload()),
                    () = self.stop.over() => return ExitStatus::Signal,
                }
            }
            jobs = reloaded(jobs, reload());
        }
    }

    /// The ledger; none for a dry run, which writes nothing.
    async fn book(&self) -> Result<Option<SqliteBook>, String> {
        if self.dry_run {
            return Ok(None);
        }
        let path = state::ledger(&self.state);
        let opened = tokio::task::spawn_blocking(move || SqliteBook::open(&path)).await;
        let opened = opened.map_err(|why| why.to_string())?;
        opened.map(Some).map_err(|error| error.to_string())
    }

    /// One job, from its lock to its hook.
    async fn job(&self, spec: JobSpec, book: Option<SqliteBook>, screen: &JobScreen) -> ExitStatus {
        let (listener, files) = match self.dry_run {
            true => (screen.listener(), None),
            false => {
                let (listener, files) = with_files(&spec, self.year, screen);
                (listener, Some(files))
            }
        };
        let summary = match &book {
            None => self.planned(&spec, listener).await,
            Some(book) => match JobLock::take(&self.state, &spec.key, seconds()) {
                Ok(lock) => {
                    let summary = self.locked(&spec, book, Arc::clone(&listener)).await;
                    if let Some(files) = &files {
                        files.flush();
                    }
                    drop(lock);
                    summary
                }
                Err(error @ LockError::Held { .. }) => {
                    screen.trouble(&error.to_string());
                    return ExitStatus::Locked;
                }
                Err(error) => ended(&spec, 11, error.to_string()),
            },
        };
        let summary = sorted(summary, &spec, self.year);
        self.told(spec, summary, screen).await
    }

    async fn locked(&self, spec: &JobSpec, book: &SqliteBook, listener: Listener) -> JobSummary {
        match self.order(spec, true, &listener).await {
            Ok((order, _)) => run::run_job(order, book, listener, &self.stop).await,
            Err(summary) => *summary,
        }
    }

    async fn planned(&self, spec: &JobSpec, listener: Listener) -> JobSummary {
        let (path, key) = (state::ledger(&self.state), spec.key.clone());
        let records = tokio::task::spawn_blocking(move || records(&path, &key)).await;
        let records = match records.map_err(|why| why.to_string()).flatten() {
            Ok(records) => records,
            Err(text) => return ended(spec, 11, text),
        };
        match self.order(spec, false, &listener).await {
            Ok((order, there)) => run::dry_run(order, there, records, listener, &self.stop).await,
            Err(summary) => *summary,
        }
    }

    /// Reaches both ends; and whether the destination is there, which only a dry run may find out.
    async fn order(
        &self,
        spec: &JobSpec,
        make: bool,
        listener: &Listener,
    ) -> Result<(Order, bool), Box<JobSummary>> {
        let (source, destination) = tokio::join!(
            self.end(spec, &spec.source, false, listener),
            self.end(spec, &spec.destination, make, listener)
        );
        let source = source.map_err(|ended| ended.summary)?;
        let (destination, there) = match destination {
            Ok(destination) => (destination, true),
            // Nobody asks it anything.
            Err(ended) if !make && ended.missing => (source.clone(), false),
            Err(ended) => return Err(ended.summary),
        };
        let today = jiff::Zoned::now().date();
        let folders = folders::folders(&spec.folder_pattern, self.year, today);
        let order = Order {
            spec: spec.clone(),
            place: place::of(&spec.source),
            source,
            destination,
            folders: folders.into_iter().map(|folder| folder.path).collect(),
            year: self.year,
            large: Some(self.large.clone()),
        };
        Ok((order, there))
    }

    async fn end(
        &self,
        spec: &JobSpec,
        end: &End,
        make: bool,
        listener: &Listener,
    ) -> Result<Location, Ended> {
        let failed = |code, text: String| {
            let summary = Box::new(ended(spec, code, text));
            Ended { summary, missing: false }
        };
        let of = end.clone();
        // A secret may come from a command.
        let login = tokio::task::spawn_blocking(move || of.login()).await;
        let login = match login {
            Ok(login) => login.map_err(|error| failed(1, error.to_string()))?,
            Err(why) => return Err(failed(11, why.to_string())),
        };
        let told = |text: String| listener(&JobEvent::Note { job: spec.key.clone(), text });
        let tries = Tries { max: spec.transfer.attempts, told: &told };
        run::connect(spec, end, login, make, tries, &self.stop).await.map_err(|unreached| {
            let reason = unreached.error.reason;
            let code = match (self.stop.is_over(), unreached.is_connection()) {
                (true, _) => 20,
                (false, true) => 10,
                // The job file is right; its place is not as it should be.
                (false, false) => 23,
            };
            if unreached.is_refused() {
                self.refused.store(true, Ordering::Relaxed);
            }
            Ended { missing: reason == Reason::NotFound, ..failed(code, unreached.to_string()) }
        })
    }

    /// Tells the end of a job, and runs its hook.
    async fn told(&self, spec: JobSpec, summary: JobSummary, screen: &JobScreen) -> ExitStatus {
        screen.summary(&summary);
        if !self.dry_run {
            log_summary(&spec, self.year, &summary);
            let (hooked, of) = (spec.clone(), summary.clone());
            let hook = tokio::task::spawn_blocking(move || hooks::run(&hooked, &of)).await;
            self.told_of_hook(&spec, hook.unwrap_or_default(), screen);
        }
        status(summary.exit_code)
    }

    /// What a hook said and that it failed, which changes nothing.
    fn told_of_hook(&self, spec: &JobSpec, hook: hooks::Heard, screen: &JobScreen) {
        let log = log_of(spec, self.year);
        for line in &hook.lines {
            log.line(Level::Info, &format!("hook: {line}"));
            if !self.style.quiet {
                screen.trouble(&format!("{}: hook: {line}", spec.key));
            }
        }
        if let Some(text) = hook.failure {
            let text = format!("{text}; what the job did stays done");
            log.line(Level::Warn, &text);
            screen.trouble(&format!("{}: {text}", spec.key));
        }
    }
}

/// The jobs of a new file, and the old ones of those that do not make sense in it; all of the old
/// ones where the file itself does not.
fn reloaded(old: Vec<JobSpec>, new: Result<Selection, CliError>) -> Vec<JobSpec> {
    let new = match new {
        Ok(new) => new,
        Err(error) => {
            ui::error(&format!("{error}; going on with the jobs as they were"));
            return old;
        }
    };
    new.refused.iter().for_each(|error| ui::error(&error.to_string()));
    let broken = |job: &JobSpec| {
        let key = fcp_proto::escape_text(&job.key);
        new.refused.iter().any(|error| error.job.as_ref() == Some(&key))
    };
    let kept: Vec<_> = old.into_iter().filter(broken).collect();
    new.jobs.into_iter().chain(kept).collect()
}

/// The log and the audit.
struct Files {
    log: JobLog,
    audit: Audit,
}

impl Files {
    fn flush(&self) {
        self.log.flush();
        self.audit.flush();
    }
}

/// The screen, the log and the audit.
fn with_files(spec: &JobSpec, year: Option<i16>, screen: &JobScreen) -> (Listener, Arc<Files>) {
    let listener = screen.listener();
    let year = year.unwrap_or_else(this_year);
    let complain = || {
        let screen = screen.clone();
        Box::new(move |text: &str| screen.trouble(text))
    };
    let log = JobLog::new(&spec.log_dir, &spec.key, year, complain());
    let audit = Audit::new(&spec.log_dir, &spec.key, year, complain());
    let files = Arc::new(Files { log, audit });
    let of = Arc::clone(&files);
    let listener: Listener = Arc::new(move |event| {
        listener(event);
        of.audit.note(event);
        if let Some((level, text)) = log_line(event) {
            of.log.line(level, &text);
        }
    });
    (listener, files)
}

fn log_line(event: &JobEvent) -> Option<(Level, String)> {
    Some(match event {
        JobEvent::Done(done) => (
            Level::Info,
            format!(
                "{} -> {}: {} bytes, {}",
                done.source, done.destination, done.size, done.action
            ),
        ),
        JobEvent::Skipped { file, why, .. } => (Level::Info, format!("{file}: skipped: {why}")),
        JobEvent::Failed { file, error, .. } => (Level::Error, format!("{file}: {error}")),
        JobEvent::Retried { file, attempt, error, .. } => {
            (Level::Warn, format!("{file}: try {attempt} failed: {error}"))
        }
        JobEvent::Note { text, .. } => (Level::Warn, text.clone()),
        JobEvent::Planning { files, bytes, .. } => {
            (Level::Info, format!("{files} files to copy, {bytes} bytes"))
        }
        JobEvent::Started { .. }
        | JobEvent::Progress { .. }
        | JobEvent::Phase { .. }
        | JobEvent::Planned { .. } => return None,
    })
}

/// The job's log. Whoever cannot be told that it fails was told already.
fn log_of(spec: &JobSpec, year: Option<i16>) -> JobLog {
    let year = year.unwrap_or_else(this_year);
    JobLog::new(&spec.log_dir, &spec.key, year, Box::new(|_| ()))
}

fn log_summary(spec: &JobSpec, year: Option<i16>, summary: &JobSummary) {
    let log = log_of(spec, year);
    let level = if summary.exit_code == 0 { Level::Info } else { Level::Error };
    let text = format!(
        "{} found, {} delivered, {} bytes, {} not put away, {} skipped, {} failed, exit code {}{}",
        summary.found,
        summary.delivered,
        summary.bytes,
        summary.not_put_away,
        summary.skipped,
        summary.failed,
        summary.exit_code,
        summary.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default()
    );
    log.line(level, &text);
    if summary.spared > 0 {
        let text = "moved instead of deleted: their copies are not to be seen any more";
        log.line(Level::Warn, &format!("{} {text}", summary.spared));
    }
    if !summary.missing_folders.is_empty() {
        log.line(Level::Warn, &format!("not there: {}", summary.missing_folders.join(", ")));
    }
    if !summary.folders_to_come.is_empty() {
        log.line(Level::Info, &format!("not yet there: {}", summary.folders_to_come.join(", ")));
    }
}

fn records(path: &std::path::Path, job: &str) -> Result<Vec<crate::job::ledger::Record>, String> {
    let overview = crate::job::ledger::overview::Overview::open(path);
    match overview.map_err(|error| error.to_string())? {
        None => Ok(Vec::new()),
        Some(overview) => overview.records(job).map_err(|error| error.to_string()),
    }
}

/// A month that has not begun is no missing one.
fn sorted(mut summary: JobSummary, spec: &JobSpec, year: Option<i16>) -> JobSummary {
    let today = jiff::Zoned::now().date();
    let to_come = folders::to_come(&spec.folder_pattern, year, today);
    let to_come: Vec<_> = to_come.iter().map(|folder| folder.path.to_string()).collect();
    let missing = std::mem::take(&mut summary.missing_folders).into_iter();
    (summary.folders_to_come, summary.missing_folders) =
        missing.partition(|folder| to_come.contains(folder));
    summary
}

/// A job that ended before it began.
fn ended(spec: &JobSpec, exit_code: u8, error: String) -> JobSummary {
    JobSummary { job: spec.key.clone(), exit_code, error: Some(error), ..JobSummary::default() }
}

fn status(code: u8) -> ExitStatus {
    match code {
        0 => ExitStatus::Success,
        1 => ExitStatus::Usage,
        10 => ExitStatus::Socket,
        20 => ExitStatus::Signal,
        23 => ExitStatus::Partial,
        75 => ExitStatus::Locked,
        _ => ExitStatus::FileIo,
    }
}

/// What several jobs end in.
fn graver(one: ExitStatus, other: ExitStatus) -> ExitStatus {
    let rank = |status| match status {
        ExitStatus::Success => 0,
        ExitStatus::Locked => 1,
        ExitStatus::Partial => 2,
        ExitStatus::Socket => 3,
        ExitStatus::Usage => 4,
        ExitStatus::Signal => 6,
        _ => 5,
    };
    if rank(other) > rank(one) { other } else { one }
}

fn seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn this_year() -> i16 {
    jiff::Zoned::now().year()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::job::run::bench;
    use crate::job::spec::SpecError;

    fn job(key: &str, name: &str) -> JobSpec {
        let spec = bench::spec(Path::new("/in"), Path::new("/out"));
        JobSpec { key: key.to_owned(), name: name.to_owned(), ..spec }
    }

    fn names(jobs: &[JobSpec]) -> Vec<&str> {
        jobs.iter().map(|job| job.name.as_str()).collect()
    }

    #[test]
    fn j12_a_broken_file_keeps_the_old_jobs() {
        let old = || vec![job("A", "old A"), job("B", "old B"), job("C", "old C")];
        let kept = reloaded(old(), Err(CliError::Usage("broken".to_owned())));
        assert_eq!(names(&kept), ["old A", "old B", "old C"]);
        let refused = SpecError {
            file: "f".to_owned(),
            line: None,
            job: Some("B".to_owned()),
            key: None,
            text: "broken".to_owned(),
        };
        let jobs = vec![job("A", "new A")];
        let new = reloaded(old(), Ok(Selection { jobs, refused: vec![refused] }));
        assert_eq!(names(&new), ["new A", "old B"]);
    }

    #[test]
    fn the_worst_end_of_several_jobs_is_told() {
        let ends = [
            ExitStatus::Success,
            ExitStatus::Locked,
            ExitStatus::Partial,
            ExitStatus::Socket,
            ExitStatus::Usage,
            ExitStatus::Signal,
        ];
        for pair in ends.windows(2) {
            assert_eq!(graver(pair[0], pair[1]), pair[1]);
            assert_eq!(graver(pair[1], pair[0]), pair[1]);
        }
    }
}
